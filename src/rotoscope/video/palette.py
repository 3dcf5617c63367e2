"""The 256 colours with which DAVIS and PASCAL VOC paint object ids."""

from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def palette() -> NDArray[np.uint8]:
    """RGB by label, `[256, 3]`, read-only: 0 is black, 1 dark red, 2 dark green, ...

    The bits of a label are dealt out to red, green and blue in turn, the lowest bits to the highest bits of the colour (PASCAL VOC development kit).
    """
    colours = np.zeros((256, 3), dtype=np.uint8)
    labels = np.arange(256)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * place + channel) & 1) << (7 - place)).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def palette_bytes() -> bytes:
    """The palette as a PNG file holds it: 768 bytes, red green blue by label."""
    return palette().tobytes()


def colour_of(object_id: int) -> tuple[int, int, int]:
    """The colour of an object; ids above 255 share the 255 colours that are not black."""
    red, green, blue = palette()[palette_labels(np.array([object_id]))[0]].tolist()
    return red, green, blue


def palette_labels(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """For each object id the palette's label whose colour it gets: itself up to 255, then again from 1 on."""
    return np.where(labels > 255, (labels - 1) % 255 + 1, labels).astype(np.uint8)
