"""Vector fields from trajectories (paper eq. 9), and what they do over time."""
