"""Model, frames and output together: one clip, or many."""
