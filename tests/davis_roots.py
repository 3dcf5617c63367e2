"""DAVIS roots and predictions made of squares, for the tests of datasets, evaluation and the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HW = (10, 12)
SQUARE = (slice(2, 6), slice(2, 6))


def labels_of(*objects: tuple[int, tuple[slice, slice]], hw: tuple[int, int] = HW) -> np.ndarray:
    labels = np.zeros(hw, dtype=np.uint8)
    for object_id, where in objects:
        labels[where] = object_id
    return labels


def write_labels(folder: Path, frames: Sequence[np.ndarray], *, indexed: bool = True) -> Path:
    """One PNG per frame, from 00000.png on; indexed with a palette that is no identity, or grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, labels in enumerate(frames):
        image = Image.fromarray(labels)
        if indexed:
            image.putpalette([255 - index // 3 % 256 for index in range(768)])
        image.save(folder / f"{index:05d}.png")
    return folder


def write_root(root: Path, clips: Mapping[str, Sequence[np.ndarray]], *, resolution: str = "480p", indexed: bool = True) -> Path:
    """A DAVIS root with annotations, and a grey image for each of them."""
    for name, frames in clips.items():
        write_labels(root / "Annotations" / resolution / name, frames, indexed=indexed)
        images = root / "JPEGImages" / resolution / name
        images.mkdir(parents=True, exist_ok=True)
        for index, labels in enumerate(frames):
            Image.new("RGB", labels.shape[::-1], (40 * index % 256, 90, 120)).save(images / f"{index:05d}.jpg")
    return root


def given_frames() -> list[np.ndarray]:
    """Five frames of object 1, a square that stands still, and object 2, which leaves after frame 2."""
    second = (2, (slice(7, 9), slice(8, 11)))
    return [labels_of((1, SQUARE), *([second] if index <= 2 else [])) for index in range(5)]


def predicted_frames() -> list[np.ndarray]:
    """Object 1 is right in frame 1, lost in frame 2 and two pixels off in frame 3; object 2 is right but seen in frame 3, where it is gone."""
    second = (2, (slice(7, 9), slice(8, 11)))
    shifted = (1, (slice(2, 6), slice(4, 8)))
    return [labels_of((1, SQUARE), second), labels_of((1, SQUARE), second), labels_of(second), labels_of(shifted, second), labels_of()]
