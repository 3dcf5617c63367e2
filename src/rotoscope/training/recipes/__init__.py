"""One file per system: how it is trained."""
