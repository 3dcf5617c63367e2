"""Data sets for detectors: images, and objects with outlines and classes."""
