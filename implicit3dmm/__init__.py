"""Implicit-surface 3D morphable models of the human head."""

__version__ = "0.1.0"
