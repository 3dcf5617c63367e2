"""What is compared: the masks or the boxes of annotated and detected objects, checked, at the size of their image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from faster_coco_eval.core import mask as coco_masks

from rotoscope.errors import InputError, MaskError
from rotoscope.evaluation.coco.files import GroundTruth, ImageId, Instance, Predictions, finite
from rotoscope.video.rle import EncodedMask, pack_run_lengths, run_lengths

Kind = Literal["segm", "bbox"]
XYWH = tuple[float, float, float, float]
Sizes = dict[ImageId, tuple[int, int] | None]

FARTHEST = 2
"""How many widths (heights) of the image a corner may be away from it: the time to draw an outline grows with its length."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An object as it is compared.

    Attributes:
        instance: the entry of the file.
        outline: its mask, or its box as x, y, width, height in pixels.
        area: in pixels: of an annotation as stated, if it is; otherwise that of the outline.
    """

    instance: Instance
    outline: EncodedMask | XYWH
    area: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be compared, in the order of the files, and what is to be said about it.

    Attributes:
        kind: masks or boxes.
        truth: whose images and categories are meant.
        image_sizes: height and width of each image; those that the ground truth does not tell are those of the masks, or None.
        annotated: what is to be found.
        detected: what was found.
        notes: of the files and of the shapes.
    """

    kind: Kind
    truth: GroundTruth
    image_sizes: Mapping[ImageId, tuple[int, int] | None]
    annotated: tuple[Shape, ...]
    detected: tuple[Shape, ...]
    notes: tuple[str, ...]


def kinds_in(predictions: Predictions) -> list[Kind]:
    """What all predictions have: masks, boxes or both. For no predictions both.

    Raises:
        InputError: some have neither, or some have only masks and others only boxes.
    """
    lacking = {kind: next((one for one in predictions.instances if not _given(one, kind)), None) for kind in ("segm", "bbox")}
    kinds: list[Kind] = [kind for kind in ("segm", "bbox") if lacking[kind] is None]
    if not kinds:
        message = f"{lacking['segm'] and lacking['segm'].place} has no segmentation and {lacking['bbox'] and lacking['bbox'].place} no bbox"
        raise InputError(f"{message}; all predictions must have the one or the other")
    return kinds


def compare(truth: GroundTruth, predictions: Predictions, kind: Kind) -> Comparison:
    """The masks or boxes of both files.

    Raises:
        InputError: an object has no such shape, or a broken one; the message names the entry. Or nothing is annotated.
    """
    counts: Counter[str] = Counter()
    sizes = dict(truth.image_sizes)
    annotated = _shapes(truth.instances, sizes, kind, counts)
    if not annotated:
        message = f"{truth.name} has no annotated object; there is nothing to score against"
        raise InputError(message)
    detected = _shapes(predictions.instances, sizes, kind, counts)
    empty = len(truth.image_sizes) - len({shape.instance.image_id for shape in detected})
    if empty:
        counts[f"of {len(truth.image_sizes)} images have no predictions; they are scored all the same"] = empty
    notes = tuple(f"{count} {what}" for what, count in counts.items())
    return Comparison(kind, truth, sizes, tuple(annotated), tuple(detected), (*truth.notes, *predictions.notes, *notes))


def box_of(instance: Instance) -> XYWH:
    """The box of an object.

    Raises:
        InputError: it has none, or a broken one.
    """
    values = [finite(value) for value in instance.box] if isinstance(instance.box, Sequence) and not isinstance(instance.box, str) else []
    x, y, width, height = values if len(values) == 4 else (None,) * 4
    if x is None or y is None or width is None or height is None or width < 0 or height < 0:
        message = f"{instance.place}: the box is {instance.box!r:.60}; boxes are [x, y, width, height] in pixels"
        raise InputError(message)
    return x, y, width, height


def image_order(image_id: ImageId) -> tuple[int, str]:
    """What to sort ids of images by, be they numbers or text."""
    return (0, image_id) if isinstance(image_id, str) else (image_id, "")


def _given(instance: Instance, kind: Kind) -> bool:
    value = instance.segmentation if kind == "segm" else instance.box
    return value is not None and value != []


def _shapes(instances: Sequence[Instance], sizes: Sizes, kind: Kind, counts: Counter[str]) -> list[Shape]:
    shapes = []
    for instance in instances:
        if not _given(instance, kind):
            field, other = ("segmentation", "boxes") if kind == "segm" else ("bbox", "masks")
            message = f"{instance.place} has no {field}; give it one, or score only {other}"
            raise InputError(message)
        outline, area = _mask(instance, sizes, counts) if kind == "segm" else _box_and_area(instance)
        if outline is not None:
            shapes.append(Shape(instance, outline, area if instance.area is None else _stated_area(instance)))
    return shapes


def _stated_area(instance: Instance) -> float:
    area = finite(instance.area)
    if area is None or area < 0:
        message = f"{instance.place}: the area is {instance.area!r}; it must be a number of pixels"
        raise InputError(message)
    return area


def _box_and_area(instance: Instance) -> tuple[XYWH, float]:
    box = box_of(instance)
    return box, box[2] * box[3]


def _mask(instance: Instance, sizes: Sizes, counts: Counter[str]) -> tuple[EncodedMask | None, float]:
    """The mask and its area; None for polygons that are no areas."""
    if isinstance(instance.segmentation, Mapping):
        return _checked_run_lengths(instance, sizes)
    hw = sizes[instance.image_id]
    if hw is None:
        message = f"{instance.place}: its polygons cannot be drawn, because image {instance.image_id!r} has no height and width in the ground truth"
        raise InputError(message)
    polygons = _polygons(instance, hw)
    drawn = [polygon for polygon in polygons if len(polygon) >= 6]
    if len(drawn) < len(polygons):
        counts["polygons have fewer than three corners; they are left out"] += len(polygons) - len(drawn)
    if not drawn:
        counts["objects have no polygon with three corners; they are skipped"] += 1
        return None, 0.0
    merged = coco_masks.merge(coco_masks.frPyObjects(drawn, *hw))
    return {"size": list(hw), "counts": merged["counts"].decode("ascii")}, float(coco_masks.area(merged))


def _checked_run_lengths(instance: Instance, sizes: Sizes) -> tuple[EncodedMask, float]:
    encoded = instance.segmentation
    try:
        lengths = run_lengths(encoded)
    except MaskError as error:
        message = f"{instance.place}: {error}"
        raise InputError(message) from error
    height, width = encoded["size"]
    hw = sizes[instance.image_id]
    if hw is None:
        sizes[instance.image_id] = height, width  # which the other masks of the image must have too
    elif (height, width) != hw:
        message = (
            f"{instance.place}: its mask is {width}x{height} but image {instance.image_id!r} is {hw[1]}x{hw[0]}; masks are as large as the image"
        )
        raise InputError(message)
    text = encoded["counts"] if isinstance(encoded["counts"], str) else pack_run_lengths(lengths)
    return {"size": [height, width], "counts": text}, float(lengths[1::2].sum())


def _polygons(instance: Instance, hw: tuple[int, int]) -> list[list[float]]:
    """The polygons of an outline, each a list of x, y, x, y, ..."""
    given: Any = instance.segmentation
    if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(polygon, Sequence) for polygon in given):
        message = f"{instance.place}: the segmentation is {given!r:.60}; it must be a list of polygons [x, y, x, y, ...], or run lengths"
        raise InputError(message)
    polygons = []
    for polygon in given:
        numbers = [number for number in map(finite, polygon) if number is not None]
        if len(numbers) != len(polygon) or len(numbers) % 2:
            wrong = f"{len(numbers)} numbers" if len(numbers) == len(polygon) else "something else than finite numbers"
            message = f"{instance.place}: a polygon holds {wrong}; it must hold x and y of each corner"
            raise InputError(message)
        _check_near(numbers, hw, instance)
        polygons.append(numbers)
    return polygons


def _check_near(numbers: Sequence[float], hw: tuple[int, int], instance: Instance) -> None:
    for first, side in ((0, hw[1]), (1, hw[0])):
        far = next((number for number in numbers[first::2] if not -FARTHEST * side <= number <= (1 + FARTHEST) * side), None)
        if far is not None:
            message = f"{instance.place}: a corner of a polygon is at {far:g}, far outside of the image of {hw[1]}x{hw[0]}"
            raise InputError(message)
