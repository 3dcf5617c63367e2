"""The figure that YOLACT's authors print: the evaluator in the official repository (dbolya/yolact, `eval.py` of the revision with YOLACT++).

The 29.92 of its README for `yolact_base` on val2017 is such a figure. It follows COCO's rules but for five things, each a field of `OfficialRules`
with the official way as the default. Report COCO's figures; these are for comparisons with theirs.

Beyond these: detections with the same score are in the order of a hash of the image's id there, in that of the ids here. And for YOLACT++ masks are
ranked there by a rescored list and boxes by the class score; here both are ranked by the `score` of the file.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as coco_masks
from numpy.typing import NDArray

from rotoscope.evaluation.coco.average_precision import OVERLAPS, CategoryScores, CocoScores, read_both
from rotoscope.evaluation.coco.files import GroundTruth, ImageId, Predictions
from rotoscope.evaluation.coco.shapes import Comparison, Kind, Shape, box_of, compare, image_order
from rotoscope.video.rle import mask_box

SMALLEST_SIDE = 4 / 550
"""Annotated boxes with a side below this share of the image are dropped (data/config.py: discard_box_width, meant as 4 pixels of 550)."""
RECALL_LEVELS = np.arange(101) / 100


@dataclass(frozen=True, slots=True)
class OfficialRules:
    """Where the official evaluator differs from COCO; the defaults are the official way.

    Attributes:
        match_crowds: detections on a crowd of their class are left out. The official loader takes the class off crowds, so that such detections
            count as wrong. COCO: True.
        absent_classes_count: a class without annotations that something was detected of has an AP of 0. COCO leaves it out: False.
        overlap_must_exceed: an object is found if the overlap, in single precision, is more than the threshold. COCO: at least as much, False.
        unannotated_images_count: images without annotations count, with their detections. COCO: True.
        drop_tiny_objects: annotated boxes with a side of at most `SMALLEST_SIDE` of the image are not there. COCO: False.
    """

    match_crowds: bool = False
    absent_classes_count: bool = True
    overlap_must_exceed: bool = True
    unannotated_images_count: bool = False
    drop_tiny_objects: bool = True


OFFICIAL = OfficialRules()


@dataclass(slots=True)
class _Ranking:
    """The detections of a class at one overlap, over all images."""

    num_objects: int = 0
    scores: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)

    def average_precision(self) -> float:
        """The mean of the precision envelope over 101 levels of recall; 0 without objects."""
        if self.num_objects == 0:
            return 0.0
        order = np.argsort(-np.asarray(self.scores), kind="stable")
        num_found = np.cumsum(np.asarray(self.found, dtype=np.int64)[order])
        precision = num_found / np.arange(1, order.size + 1)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        return float(envelope[np.searchsorted(num_found / self.num_objects, RECALL_LEVELS, side="left")].mean())


def evaluate_official(
    predictions: Path | str | Sequence[Mapping[str, Any]] | Predictions,
    ground_truth: Path | str | Mapping[str, Any] | GroundTruth,
    kind: Kind = "segm",
    *,
    rules: OfficialRules = OFFICIAL,
) -> CocoScores:
    """AP of detections by the official YOLACT evaluator; it counts no recall and no sizes, which are left empty.

    Args:
        predictions: as for `evaluate_coco`.
        ground_truth: as for `evaluate_coco`.
        kind: compare masks ("segm") or boxes ("bbox").
        rules: where it differs from COCO.

    Raises:
        InputError: a file or an entry is broken, or the two do not belong together.
    """
    comparison = compare(*read_both(predictions, ground_truth), kind)
    rankings: dict[int, list[_Ranking]] = defaultdict(lambda: [_Ranking() for _ in OVERLAPS])
    annotated = [shape for shape in comparison.annotated if not (rules.drop_tiny_objects and _is_tiny(shape, comparison))]
    for truths, detections in _by_image(annotated, comparison.detected, comparison.annotated if not rules.unannotated_images_count else None):
        for category_id in {shape.instance.category_id for shape in (*truths, *detections)}:
            objects, found = ([shape for shape in shapes if shape.instance.category_id == category_id] for shapes in (truths, detections))
            _rank(rankings[category_id], objects, found, rules)
    return _scores(comparison, rankings, absent_classes_count=rules.absent_classes_count)


def _by_image(annotated: Sequence[Shape], detected: Sequence[Shape], counted: Sequence[Shape] | None) -> list[tuple[list[Shape], list[Shape]]]:
    """What is annotated and what is detected, best first, on each image; only on those with a counted shape, if they are given."""
    images: dict[ImageId, tuple[list[Shape], list[Shape]]] = defaultdict(lambda: ([], []))
    for index, shapes in enumerate((annotated, sorted(detected, key=lambda shape: -shape.instance.score))):
        for shape in shapes:
            images[shape.instance.image_id][index].append(shape)
    kept = None if counted is None else {shape.instance.image_id for shape in counted}
    return [images[image_id] for image_id in sorted(images, key=image_order) if kept is None or image_id in kept]


def _rank(rankings: Sequence[_Ranking], truths: Sequence[Shape], detections: Sequence[Shape], rules: OfficialRules) -> None:
    """Add the detections of one class on one image, best first, to the rankings of all overlaps: found something new, or not."""
    objects = [shape for shape in truths if not shape.instance.is_crowd]
    crowds = [shape for shape in truths if shape.instance.is_crowd and rules.match_crowds]
    precision = np.float32 if rules.overlap_must_exceed else np.float64  # in single precision 0.55, of 11 pixels of 20, exceeds 0.55
    overlaps, on_crowds = (_overlaps(detections, shapes).astype(precision) for shapes in (objects, crowds))
    for ranking, threshold in zip(rankings, OVERLAPS, strict=True):
        ranking.num_objects += len(objects)
        free = np.ones(len(objects), dtype=np.bool_)
        for row, detection in enumerate(detections):
            best = int(np.argmax(np.where(free, overlaps[row], -1))) if free.any() else -1
            if best >= 0 and _is_enough(float(overlaps[row, best]), threshold, rules):
                free[best] = False
            elif on_crowds.shape[1] and _is_enough(float(on_crowds[row].max()), threshold, rules):
                continue
            else:
                best = -1
            ranking.scores.append(detection.instance.score)
            ranking.found.append(best >= 0)


def _is_enough(overlap: float, threshold: float, rules: OfficialRules) -> bool:
    return overlap > threshold if rules.overlap_must_exceed else overlap >= threshold


def _overlaps(detections: Sequence[Shape], truths: Sequence[Shape]) -> NDArray[np.float64]:
    """Intersection over union, `[detections, truths]`; over the detection's area for crowds."""
    if not detections or not truths:
        return np.zeros((len(detections), len(truths)))
    is_crowd = [int(shape.instance.is_crowd) for shape in truths]
    first, second = ([shape.outline for shape in shapes] for shapes in (detections, truths))
    if isinstance(first[0], tuple):
        boxes = [np.asarray(outlines, dtype=np.float64) for outlines in (first, second)]
        return np.asarray(coco_masks.iou(*boxes, is_crowd), dtype=np.float64)
    return np.asarray(coco_masks.iou(first, second, is_crowd), dtype=np.float64)


def _is_tiny(shape: Shape, comparison: Comparison) -> bool:
    """Whether a side of the annotated box is at most the smallest share of the image. Not if the size of the image is unknown."""
    hw = comparison.image_sizes[shape.instance.image_id]
    outline = shape.outline if shape.instance.box is None else box_of(shape.instance)
    _, _, width, height = outline if isinstance(outline, tuple) else mask_box(outline)
    return hw is not None and (width <= SMALLEST_SIDE * hw[1] or height <= SMALLEST_SIDE * hw[0])


def _scores(comparison: Comparison, rankings: Mapping[int, Sequence[_Ranking]], *, absent_classes_count: bool) -> CocoScores:
    names = comparison.truth.categories
    averages: dict[int, list[float]] = {}
    categories = []
    for category_id in sorted(names):
        of_class = rankings.get(category_id, ())
        num_objects = of_class[0].num_objects if of_class else 0
        if num_objects or (absent_classes_count and of_class and of_class[0].scores):
            averages[category_id] = [ranking.average_precision() for ranking in of_class]
        counted = averages.get(category_id)
        figures = (fmean(counted), counted[0], counted[OVERLAPS.index(0.75)]) if counted else (None, None, None)
        categories.append(CategoryScores(category_id, names[category_id], num_objects, *figures))
    by_overlap = tuple(fmean(column) for column in zip(*averages.values(), strict=True)) or (None,) * len(OVERLAPS)
    return CocoScores(
        kind=comparison.kind,
        evaluator="official",
        ap=fmean(value for value in by_overlap if value is not None) if averages else None,
        ap_by_overlap=by_overlap,
        ap_by_size={},
        ar_by_count={},
        ar_by_size={},
        categories=tuple(categories),
        num_images=len(comparison.image_sizes),
        num_predictions=len(comparison.detected),
        notes=comparison.notes,
    )
