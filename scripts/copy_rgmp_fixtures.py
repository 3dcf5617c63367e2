"""Copy the official outputs of RGMP compactly into tests/parity/data/rgmp: python scripts/copy_rgmp_fixtures.py SOURCE_FOLDER.

Random inputs are left out, because tests make them again from their seeds; probabilities are kept at every second pixel in steps of 1/65535; of large
maps some channels are kept; feature maps lose the mantissa bits below the tolerances.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).resolve().parent.parent / "tests" / "parity" / "data" / "rgmp"
KEPT_CHANNELS = {"r2": 4, "r3": 2, "m3": 2, "m3_ac0": 2, "refine_out": 4, "refine_out_ac0": 4, "img_050": 3, "img_075": 3}
SEEDS = {"gc_in": (21, 0.5), "refine_f": (22, 1.0), "refine_pm": (23, 1.0), "img": (31, 0.0), "mask": (32, 0.0)}
MANTISSA_BITS = 15


def main() -> int:
    """Copy everything; 0 on success."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the folder with the official outputs")
    source = parser.parse_args().source
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "keys.json").write_bytes((source / "keys.json").read_bytes())
    for path in sorted(source.glob("*.npz")):
        with np.load(path) as file:
            kept = {key: compact(path.stem, key, file[key]) for key in file.files if not is_generated(key, file[key])}
        np.savez_compressed(TARGET / path.name, **kept)
    sizes = [path.stat().st_size for path in TARGET.iterdir()]
    print(f"{TARGET}: {len(sizes)} files, {sum(sizes):,} bytes")
    return 0


def is_generated(key: str, value: NDArray[np.generic]) -> bool:
    """Whether a test can make the array from its seed."""
    if key not in SEEDS:
        return False
    seed, scale = SEEDS[key]
    random = np.random.RandomState(seed)
    made = scale * random.standard_normal(value.shape) if scale else random.random_sample(value.shape)
    if not np.array_equal(made.astype(np.float32), value):
        message = f"{key} is not what seed {seed} gives"
        raise ValueError(message)
    return True


def compact(file: str, key: str, value: NDArray[np.generic]) -> NDArray[np.generic]:
    """The array as it is stored."""
    if key in ("in_f", "ref_f"):
        return np.round(value * 255).astype(np.uint8)
    if file.startswith("clip_") and value.dtype == np.float32:
        return np.round(value[..., ::2, ::2] * 65535).astype(np.uint16)
    if value.dtype != np.float32 or key in ("in_p", "ref_p", "loss_per_frame"):
        return value
    if key in KEPT_CHANNELS:
        value = value[:, :: KEPT_CHANNELS[key]]
    dropped = 23 - MANTISSA_BITS
    bits = np.ascontiguousarray(value).view(np.uint32).astype(np.uint64) + (1 << (dropped - 1))
    return (bits >> dropped << dropped).astype(np.uint32).view(np.float32)


if __name__ == "__main__":
    sys.exit(main())
