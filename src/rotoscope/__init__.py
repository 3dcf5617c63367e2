"""Video object segmentation: one mask in, masks for every frame out."""
