"""Copy the official outputs of YOLACT's detection compactly into tests/parity/data/yolact.

Usage: python scripts/copy_yolact_detection_fixtures.py SOURCE_FOLDER

Left out: what the tests of the networks, of drawing and of the training hold, coefficients that are rows of the inputs, pixels of the prepared
pictures.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).resolve().parent.parent / "tests" / "parity" / "data" / "yolact"
COPIES = {  # our file: theirs, and how the entries that are kept begin
    "detect": ("detect", ("",)),
    "postprocess": ("postprocess", ("all_", "thr85_", "nocrop_", "soft_", "size_wh")),
    "prepared_pictures": ("transform", ("image_bgr", "resnet50_", "darknet53_", "preserve_ar_sizes")),
    "clip_e2e": ("clip_e2e", ("",)),
    "plus_detections": ("plus", ("p50_det_", "p50_pp_")),
}
LEFT_OUT = {"fast_mask", "trad_mask"}


def main() -> int:
    """Copy everything; 0 on success."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder with the official outputs")
    source = parser.parse_args().source
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, (theirs, starts) in COPIES.items():
        with np.load(source / f"{theirs}.npz") as file:
            kept = {key: compact(key, file[key]) for key in file.files if key.startswith(starts) and key not in LEFT_OUT}
        np.savez_compressed(TARGET / f"{name}.npz", **kept)
        print(f"{name}: {(TARGET / name).with_suffix('.npz').stat().st_size:,} bytes")
    return 0


def compact(key: str, value: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array as it is stored: every third pixel of a prepared picture."""
    if key.endswith("_rgb_hwc"):
        return value[::3, ::3]
    return value[:, ::3, ::3] if key.endswith("_rgb_chw") else value


if __name__ == "__main__":
    sys.exit(main())
