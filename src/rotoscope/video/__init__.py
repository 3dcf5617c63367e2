"""Files to types and back: frames, masks, overlays."""
