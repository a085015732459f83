"""Trainings made of several: continuation, and one for any family of equations."""
