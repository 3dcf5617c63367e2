"""Images whose objects have outlines and classes: what detectors learn from, in whatever layout they lie on disk."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.coco import Outline, covered
from rotoscope.datasets.davis import VOID
from rotoscope.datasets.stills import StillImage, read_still
from rotoscope.errors import InputError, MaskError
from rotoscope.video.folders import read_picture

MAX_FAULTY_SHARE = 0.01
"""Of the annotations of a set; more are no slips, but a set that is read in the wrong way."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Annotation:
    """An object of an image.

    Attributes:
        class_id: index in the names of the classes.
        outline: what it covers, or, of a crowd, where the objects are that nobody told apart.
        box: x0, y0, x1, y1 in pixels, where the file states one.
        is_relative: the outline is in shares of the image's sides.
    """

    class_id: int
    outline: Outline
    box: Box | None = None
    is_relative: bool = False


@dataclass(frozen=True, slots=True)
class DetectionSample:
    """An image and what it shows.

    Attributes:
        name: unique in its set.
        image_path: the image.
        annotations: its objects; none in an image that shows nothing of interest.
        still: for images with a label map in place of outlines; all its objects have the class 0.
    """

    name: str
    image_path: Path
    annotations: tuple[Annotation, ...] = ()
    still: StillImage | None = None


@dataclass(frozen=True, slots=True)
class DetectionSet:
    """Samples of one set.

    Attributes:
        layout: how they lie there, such as "COCO instances".
        class_names: in the order of the class ids.
        samples: those with objects, and those without.
        skipped: how many images or annotations were left out, by reason.
    """

    layout: str
    class_names: tuple[str, ...]
    samples: tuple[DetectionSample, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        bare = sum(not sample.annotations and sample.still is None for sample in self.samples)
        skipped = "".join(f", {count} {reason}" for reason, count in self.skipped.items())
        return f"{len(self.samples)} images of {len(self.class_names)} classes ({self.layout}), {bare} without objects{skipped}"


@dataclass(frozen=True, slots=True)
class ShownObjects:
    """An image in memory, and its n objects, crowds last.

    Attributes:
        rgb: `[h, w, 3]`.
        masks: `[n, h, w]`.
        boxes: `[n, 4]`, x0, y0, x1, y1 in pixels; each has a width and a height.
        class_ids: `[n]`.
        num_crowds: how many of the last are crowds.
    """

    rgb: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    num_crowds: int


class Faults:
    """What is wrong with a set, counted by reason: a few slips are left out, more are refused.

    Args:
        source: the file or folder, for messages.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one; the first example of each reason is kept."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, example)

    def counts(self, total: int) -> dict[str, int]:
        """How many there are by reason, of so many annotations and images.

        Raises:
            InputError: more than 1 % are at fault; the message gives each reason with an example.
        """
        count = self._counts.total()
        if count > MAX_FAULTY_SHARE * total:
            reasons = "; ".join(f"{number} {reason} ({self._examples[reason]})" for reason, number in self._counts.items())
            message = f"{self._source}: {count} of {total} images and annotations cannot be used, more than {MAX_FAULTY_SHARE:.0%}: {reasons}"
            raise InputError(message)
        return dict(self._counts)


def read_objects(sample: DetectionSample) -> ShownObjects:
    """The image and the objects of a sample. Objects that cover no pixel are left out.

    Raises:
        InputError: the image or its masks cannot be read, or do not fit each other; the message names the file.
    """
    if sample.still is not None:
        return _of_labels(*read_still(sample.still))
    rgb = read_picture(sample.image_path)
    hw = (rgb.shape[0], rgb.shape[1])
    ordered = sorted(sample.annotations, key=lambda one: one.outline.is_crowd)
    try:
        drawn = [(one, covered(_in_pixels(one, hw), hw)) for one in ordered]
    except MaskError as error:
        message = f"{sample.image_path}: {error}"
        raise MaskError(message) from error
    found = [(one, mask, _box(one, mask)) for one, mask in drawn if mask.any()]
    return ShownObjects(
        rgb=rgb,
        masks=np.stack([mask for _, mask, _ in found]) if found else np.zeros((0, *hw), dtype=np.bool_),
        boxes=np.asarray([box for _, _, box in found], dtype=np.float64).reshape(-1, 4),
        class_ids=np.asarray([one.class_id for one, _, _ in found], dtype=np.int64),
        num_crowds=sum(one.outline.is_crowd for one, _, _ in found),
    )


def mask_box(mask: NDArray[np.bool_]) -> Box:
    """The tightest box around the pixels of a mask that has some."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _in_pixels(one: Annotation, hw: tuple[int, int]) -> Outline:
    if not one.is_relative or isinstance(one.outline.polygons, Mapping):
        return one.outline
    sides = np.asarray((hw[1], hw[0]), dtype=np.float64)
    polygons = [(np.asarray(polygon, dtype=np.float64).reshape(-1, 2) * sides).reshape(-1).tolist() for polygon in one.outline.polygons]
    return replace(one.outline, polygons=polygons)


def _box(one: Annotation, mask: NDArray[np.bool_]) -> Box:
    """The stated box within the image, unless it has no area there: then, and where none is stated, that around the mask."""
    if one.box is not None:
        height, width = mask.shape
        x0, x1 = (min(max(side, 0.0), float(width)) for side in one.box[::2])
        y0, y1 = (min(max(side, 0.0), float(height)) for side in one.box[1::2])
        if x1 > x0 and y1 > y0:
            return x0, y0, x1, y1
    return mask_box(mask)


def _of_labels(rgb: NDArray[np.uint8], labels: NDArray[np.uint8]) -> ShownObjects:
    """Objects of a label map, all of the class 0; void is a crowd."""
    ids = [int(label) for label in np.unique(labels) if label not in (0, VOID)]
    num_crowds = int((labels == VOID).any())
    masks = labels == np.asarray(ids + [VOID] * num_crowds, dtype=np.int64).reshape(-1, 1, 1)
    boxes = np.asarray([mask_box(mask) for mask in masks], dtype=np.float64).reshape(-1, 4)
    return ShownObjects(rgb, masks, boxes, np.zeros(len(masks), dtype=np.int64), num_crowds)
