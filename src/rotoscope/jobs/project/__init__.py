"""A project of corrections: its folder, what can be asked of it, and its masks written out."""
