"""Annotated clips and images, as the field lays them out on disk."""
