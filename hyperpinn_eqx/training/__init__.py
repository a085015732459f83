"""A loss in, a trained model out; knows no equation."""
