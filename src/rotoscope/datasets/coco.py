"""COCO: images, and the outlines of their objects in one large JSON file (https://cocodataset.org/#format-data).

Outlines are drawn with OpenCV, eight times as fine as the image: the COCO tools would be a compiled dependency for one function, and at that
fineness the two agree to 0.06 pixels along the edge (300 random outlines), which is far less than annotators do. Run lengths are decoded exactly.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.davis import VOID, abridged
from rotoscope.datasets.stills import MAX_STILL_OBJECTS, StillImage
from rotoscope.errors import InputError, MaskError
from rotoscope.video.rle import decode_mask

_FINENESS = 8  # pieces that a pixel's side is cut into


@dataclass(frozen=True, slots=True)
class Outline:
    """What an annotation covers.

    Attributes:
        polygons: closed lines as x, y, x, y, ... in pixels, united; or run lengths as the file has them.
        area: in pixels, as stated.
        is_crowd: a group of objects that nobody told apart: void.
    """

    polygons: Sequence[Sequence[float]] | Mapping[str, Any]
    area: float
    is_crowd: bool


def read_coco(annotations: Path, image_folders: Sequence[Path], *, name: str) -> tuple[list[StillImage], int]:
    """The images of an instances file that hold an object, and how many hold none.

    Args:
        annotations: `instances_*.json`.
        image_folders: where the images may be; the first that there is is taken.
        name: of the set, put before the names of the images.

    Raises:
        InputError: the file cannot be read or is no such file, or no folder holds its images.
    """
    content = _read_json(annotations)
    folder = next((folder for folder in image_folders if folder.is_dir()), None)
    if folder is None:
        message = f"the images of {annotations} are not there; put them in {' or '.join(str(folder) for folder in image_folders)}"
        raise InputError(message)
    try:
        outlines: dict[int, list[Outline]] = defaultdict(list)
        for one in content["annotations"]:
            outlines[one["image_id"]].append(Outline(one["segmentation"], float(one.get("area", 0)), bool(one.get("iscrowd", 0))))
        licences = {one["id"]: str(one.get("name", "")) for one in content.get("licenses", [])}
        stills = [
            StillImage(
                name=f"{name}/{Path(image['file_name']).stem}",
                image_path=folder / Path(image["file_name"]).name,
                mask_path=annotations,
                source=name,
                licence=licences.get(image.get("license"), ""),
                outlines=partial(draw_outlines, outlines[image["id"]]),
            )
            for image in content["images"]
            if any(not one.is_crowd for one in outlines[image["id"]])
        ]
    except (KeyError, TypeError, ValueError) as error:
        message = f"{annotations} is not an instances file of COCO: {error!r} is missing or of the wrong kind"
        raise InputError(message) from error
    return _present(stills, folder), len(content["images"]) - len(stills)


def draw_outlines(outlines: Sequence[Outline], height: int, width: int) -> NDArray[np.uint8]:
    """Labels: objects 1..n in the order given, smaller ones over larger ones, crowds void and under all others.

    Raises:
        MaskError: there are more objects than labels, or run lengths of another size.
    """
    crowds, objects = [one for one in outlines if one.is_crowd], [one for one in outlines if not one.is_crowd]
    if len(objects) > MAX_STILL_OBJECTS:
        message = f"an image has {len(objects)} objects; at most {MAX_STILL_OBJECTS} can be told apart"
        raise MaskError(message)
    labels = np.zeros((height, width), dtype=np.uint8)
    for crowd in crowds:
        labels[covered(crowd, (height, width))] = VOID
    for label, one in sorted(enumerate(objects, start=1), key=lambda numbered: -numbered[1].area):
        labels[covered(one, (height, width))] = label
    return labels


def covered(one: Outline, hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of an image of a height and width that an outline covers.

    Raises:
        MaskError: run lengths are damaged, or of another size.
    """
    if isinstance(one.polygons, Mapping):
        mask = decode_mask(one.polygons)
        if mask.shape != hw:
            message = f"run lengths are of {mask.shape[1]}x{mask.shape[0]} but the image is {hw[1]}x{hw[0]}"
            raise MaskError(message)
        return mask
    covered = np.zeros(hw, dtype=np.bool_)
    for polygon in one.polygons:
        _fill(covered, np.asarray(polygon, dtype=np.float64).reshape(-1, 2))
    return covered


def _fill(covered: NDArray[np.bool_], points: NDArray[np.float64]) -> None:
    """Add the pixels of which a polygon covers half or more; only the part of the image that it lies in is drawn."""
    height, width = covered.shape
    left, top = np.floor(points.min(axis=0)).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, (width, height))
    if right <= left or bottom <= top:
        return
    fine = np.zeros(((bottom - top) * _FINENESS, (right - left) * _FINENESS), dtype=np.uint8)
    corners = np.round((points - (left, top)) * _FINENESS - 0.5).astype(np.int32)  # OpenCV counts from the centre of the first pixel
    cv2.fillPoly(fine, [corners], 1)
    shares = fine.reshape(bottom - top, _FINENESS, right - left, _FINENESS).sum(axis=(1, 3))
    covered[top:bottom, left:right] |= 2 * shares >= _FINENESS**2


def _present(stills: list[StillImage], folder: Path) -> list[StillImage]:
    there = {path.name for path in folder.iterdir()}
    missing = [still.image_path.name for still in stills if still.image_path.name not in there]
    if len(missing) == len(stills) and stills:
        message = f"none of the {len(stills)} images of {stills[0].mask_path} is in {folder} ({abridged(missing)}); the two belong to different parts"
        raise InputError(message)
    return [still for still in stills if still.image_path.name in there]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as JSON ({error}); copy or download it again"
        raise InputError(message) from error
