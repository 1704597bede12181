"""Spherical-native deep learning for full-sky maps."""

__version__ = "0.1.0"
