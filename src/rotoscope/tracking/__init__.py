"""Runs the protocols on clips; knows no concrete model."""
