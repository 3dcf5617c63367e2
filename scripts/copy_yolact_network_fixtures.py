"""Copy the official outputs of YOLACT's networks compactly into tests/parity/data/yolact.

Usage: python scripts/copy_yolact_network_fixtures.py SOURCE_FOLDER

Left out: random inputs, which tests make again from their seeds; maps of strides 2 and 4; what the tests of the detection hold. Of `resnet50_forward`
every third prior and every second pixel are kept. Floating-point numbers lose the mantissa bits below the tolerances, but for priors and weights.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).resolve().parent.parent / "tests" / "parity" / "data" / "yolact"
SEEDS = {("resnet50_forward", "x"): 11, ("resnet50_forward", "rect_x"): 12, ("backbones_forward", "x"): 14}
LEFT_OUT = {"r101_stage0", "dark53_stage0", "dark53_stage1", "x256_seed22"}
EXACT = ("priors", "rows", "dcn_", "maskiou_in")
MANTISSA_BITS = 15


def main() -> int:
    """Copy everything; 0 on success."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder with the official outputs")
    source = parser.parse_args().source
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "keys.json").write_bytes((source / "keys.json").read_bytes())
    for name in ("priors", "resnet50_forward", "resnet50_550", "backbones_forward", "plus"):
        with np.load(source / f"{name}.npz") as file:
            kept = {key: compact(name, key, file[key]) for key in file.files if not is_left_out(name, key, file[key])}
        target = TARGET / f"network_{name}.npz"
        np.savez_compressed(target, **kept)
        print(f"{target.name}: {target.stat().st_size:,} bytes")
    return 0


def is_left_out(name: str, key: str, value: NDArray[np.generic]) -> bool:
    """Whether no test of the networks needs the array, or can make it from its seed."""
    if (name, key) not in SEEDS:
        return key in LEFT_OUT or key.startswith(("p50_det_", "p50_pp_"))
    made = np.random.RandomState(SEEDS[name, key]).standard_normal(value.shape)
    if not np.array_equal(made.astype(np.float32), value):
        message = f"{key} is not what seed {SEEDS[name, key]} gives"
        raise ValueError(message)
    return True


def compact(name: str, key: str, value: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array as it is stored."""
    if name == "resnet50_forward":
        if key in ("loc", "conf", "mask", "priors"):
            value = value[..., ::3, :]
        elif key == "proto":
            value = value[:, ::2, ::2]
        elif key == "segm":
            value = value[:, :, ::2, ::2]
    if value.dtype != np.float32 or any(part in key for part in EXACT):
        return value
    dropped = 23 - MANTISSA_BITS
    bits = np.ascontiguousarray(value).view(np.uint32).astype(np.uint64) + (1 << (dropped - 1))
    return (bits >> dropped << dropped).astype(np.uint32).view(np.float32)


if __name__ == "__main__":
    sys.exit(main())
