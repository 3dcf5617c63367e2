"""Blocks with weights that two or more systems share."""
