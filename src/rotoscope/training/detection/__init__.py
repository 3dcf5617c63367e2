"""What the training of detectors is made of: truth, matching, losses, augmentation (YOLACT's sheet, section 4)."""
