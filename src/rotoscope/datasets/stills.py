"""Single images with the masks of their objects: what synthetic clips are made from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.davis import VOID, read_label_map
from rotoscope.errors import MaskError
from rotoscope.video.folders import open_picture, read_picture
from rotoscope.video.masks import read_labels

Convention = Literal["ids", "shade", "painted"]
"""How a mask file is to be read: its values are object ids and 255 is void; or from half grey on it is object 1; or as `read_labels` sees it."""

MAX_STILL_OBJECTS = 254
"""What labels of 8 bits can hold beside the background and void."""


@dataclass(frozen=True, slots=True)
class StillImage:
    """An image and where the masks of its objects are.

    Attributes:
        name: unique in its set, and the same wherever the set lies: parts of a set are told by it.
        image_path: the image.
        mask_path: its label map, or the file that the outlines are from.
        source: the set it is from.
        licence: its terms, as the set states them; empty where it does not.
        convention: of the label map, where there are no outlines.
        outlines: gives the label map of an image of a height and width, for sets that keep masks in one large file (COCO).
    """

    name: str
    image_path: Path
    mask_path: Path
    source: str
    licence: str = ""
    convention: Convention = "ids"
    outlines: Callable[[int, int], NDArray[np.uint8]] | None = None


def read_still(still: StillImage) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image as RGB `[h, w, 3]`, and its labels `[h, w]`: objects 1..n without gaps in the order of their ids, 0 background, 255 void.

    Raises:
        InputError: the image or the mask cannot be read, they differ in size, or the mask holds too many objects; the message names the file.
    """
    rgb = read_picture(still.image_path)
    labels = _labels(still, (rgb.shape[0], rgb.shape[1]))
    if labels.shape != rgb.shape[:2]:
        message = f"the mask {still.mask_path} is {labels.shape[1]}x{labels.shape[0]} but its image is {rgb.shape[1]}x{rgb.shape[0]}"
        raise MaskError(message)
    return rgb, numbered(labels)


def numbered(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Labels whose objects are 1..n, in the order of their ids; the background stays 0 and void stays 255.

    Raises:
        MaskError: there are more objects than fit beside the background and void.
    """
    occurs = np.bincount(labels.ravel(), minlength=VOID + 1) > 0  # ids have 16 bits at most; sorting all pixels would take ten times as long
    occurs[[0, VOID]] = False
    if occurs.sum() > MAX_STILL_OBJECTS:
        message = f"a mask holds {int(occurs.sum())} objects; at most {MAX_STILL_OBJECTS} can be told apart"
        raise MaskError(message)
    ours = np.cumsum(occurs) * occurs
    ours[VOID] = VOID
    mapped: NDArray[np.uint8] = ours.astype(np.uint8)[labels]
    return mapped


def _labels(still: StillImage, hw: tuple[int, int]) -> NDArray[np.integer]:
    if still.outlines is not None:
        return still.outlines(*hw)
    if still.convention == "painted":
        is_empty = open_picture(still.mask_path, MaskError).getbbox() is None  # not an error here: it is an image without an object
        return np.zeros(hw, dtype=np.uint8) if is_empty else read_labels(still.mask_path).labels.numpy()
    values = read_label_map(still.mask_path)
    return (values >= 128).astype(np.uint8) if still.convention == "shade" else values
