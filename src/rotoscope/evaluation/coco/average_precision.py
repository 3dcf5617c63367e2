"""Average precision and recall as COCO counts them (https://cocodataset.org/#detection-eval), through faster-coco-eval.

Figures equal those of pycocotools' `COCOeval`, with these exceptions:

- Sizes of detected masks are those of the masks. For results that hold both a box and a mask COCOeval takes the area of the box, so that its AP for
  small, medium and large objects depends on what else is in the file.
- Ids of annotations have no say. To COCOeval an annotation with the id 0 is never found, and one of two with the same id is lost.
- Annotations may lack `iscrowd` and `area`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from rotoscope.evaluation.coco.files import GroundTruth, Predictions, read_ground_truth, read_predictions
from rotoscope.evaluation.coco.shapes import Comparison, Kind, Shape, compare, image_order

OVERLAPS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""The least intersection over union at which an object counts as found; AP is the mean over them."""
SIZES = ("small", "medium", "large")
"""Areas below 32², up to 96², and above, in pixels."""
MOST_DETECTIONS = (1, 10, 100)
"""Per image and class, the best first; AP is at 100."""

Evaluator = Literal["coco", "official"]


@dataclass(frozen=True, slots=True)
class CategoryScores:
    """The figures of one class, in 0..1; None where it has no object to find.

    Attributes:
        category_id: its id in the ground truth.
        name: its name there.
        num_objects: how many there are to find, crowds not counted.
        ap: mean over overlaps.
        ap50: at an overlap of 0.5.
        ap75: at an overlap of 0.75.
        ar: the share of objects that are found, mean over overlaps.
    """

    category_id: int
    name: str
    num_objects: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None = None


@dataclass(frozen=True, slots=True)
class CocoScores:
    """The figures of a detector, in 0..1; None where there is no object to find, and for what an evaluator does not count.

    Attributes:
        kind: masks ("segm") or boxes ("bbox").
        evaluator: COCO's, or the one that YOLACT's authors wrote.
        ap: mean over classes and overlaps.
        ap_by_overlap: mean over classes at each of `OVERLAPS`.
        ap_by_size: by the names in `SIZES`.
        ar_by_count: with at most so many detections per image and class.
        ar_by_size: by the names in `SIZES`.
        categories: the classes of the ground truth, in the order of their ids.
        num_images: of the ground truth.
        num_predictions: those that were scored.
        notes: what was taken for granted or skipped, in words.
    """

    kind: Kind
    evaluator: Evaluator
    ap: float | None
    ap_by_overlap: tuple[float | None, ...]
    ap_by_size: Mapping[str, float | None]
    ar_by_count: Mapping[int, float | None]
    ar_by_size: Mapping[str, float | None]
    categories: tuple[CategoryScores, ...]
    num_images: int
    num_predictions: int
    notes: tuple[str, ...] = ()

    @property
    def stats(self) -> tuple[float | None, ...]:
        """COCO's twelve figures in its order: AP, AP50, AP75, AP by size, AR by count, AR by size."""
        overlaps = [self.ap_by_overlap[OVERLAPS.index(overlap)] for overlap in (0.5, 0.75)]
        return (self.ap, *overlaps, *self.ap_by_size.values(), *self.ar_by_count.values(), *self.ar_by_size.values())


def evaluate_coco(
    predictions: Path | str | Sequence[Mapping[str, Any]] | Predictions,
    ground_truth: Path | str | Mapping[str, Any] | GroundTruth,
    kind: Kind = "segm",
) -> CocoScores:
    """AP and AR of detections by the rules of COCO.

    Args:
        predictions: a results file, or what it holds: a list of `image_id`, `category_id`, `score`, and `segmentation` (run lengths or polygons) or
            `bbox` (x, y, width, height).
        ground_truth: an instances file, or what it holds.
        kind: compare masks ("segm") or boxes ("bbox").

    Raises:
        InputError: a file or an entry is broken, or the two do not belong together.
    """
    return scores_of(compare(*read_both(predictions, ground_truth), kind))


def read_both(
    predictions: Path | str | Sequence[Mapping[str, Any]] | Predictions, ground_truth: Path | str | Mapping[str, Any] | GroundTruth
) -> tuple[GroundTruth, Predictions]:
    """Both files, unless they are read already.

    Raises:
        InputError: a file or an entry is broken, or the two do not belong together.
    """
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else read_ground_truth(ground_truth)
    return truth, predictions if isinstance(predictions, Predictions) else read_predictions(predictions, truth)


def scores_of(comparison: Comparison) -> CocoScores:
    """The figures of what is compared."""
    truth = comparison.truth
    precision, recall = _accumulated(comparison)
    most, every = len(MOST_DETECTIONS) - 1, 0  # the last axes: sizes (all, small, medium, large), and counts
    counts = dict.fromkeys(truth.categories, 0)
    for shape in comparison.annotated:
        counts[shape.instance.category_id] += not shape.instance.is_crowd
    categories = tuple(
        CategoryScores(
            category_id,
            truth.categories[category_id],
            counts[category_id],
            _mean(precision[:, :, index, every, most]),
            _mean(precision[OVERLAPS.index(0.5), :, index, every, most]),
            _mean(precision[OVERLAPS.index(0.75), :, index, every, most]),
            _mean(recall[:, index, every, most]),
        )
        for index, category_id in enumerate(sorted(truth.categories))
    )
    return CocoScores(
        kind=comparison.kind,
        evaluator="coco",
        ap=_mean(precision[..., every, most]),
        ap_by_overlap=tuple(_mean(precision[index, ..., every, most]) for index in range(len(OVERLAPS))),
        ap_by_size={size: _mean(precision[..., index, most]) for index, size in enumerate(SIZES, start=1)},
        ar_by_count={count: _mean(recall[..., every, index]) for index, count in enumerate(MOST_DETECTIONS)},
        ar_by_size={size: _mean(recall[..., index, most]) for index, size in enumerate(SIZES, start=1)},
        categories=categories,
        num_images=len(truth.image_sizes),
        num_predictions=len(comparison.detected),
        notes=comparison.notes,
    )


def _accumulated(comparison: Comparison) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision by overlap, recall level, class, size and count; recall by overlap, class, size and count. -1 where there is no object."""
    image_number = {image_id: number for number, image_id in enumerate(sorted(comparison.image_sizes, key=image_order), start=1)}
    categories = sorted(comparison.truth.categories)
    category_number = {category_id: number for number, category_id in enumerate(categories, start=1)}
    header = {
        "images": [{"id": number, **_size_fields(comparison.image_sizes[image_id])} for image_id, number in image_number.items()],
        "categories": [{"id": number, "name": str(category_id)} for category_id, number in category_number.items()],
    }
    field = "segmentation" if comparison.kind == "segm" else "bbox"

    def dataset(shapes: Sequence[Shape]) -> COCO:
        entries = [
            {
                "id": number,  # from 1 on: 0 would count as not found
                "image_id": image_number[shape.instance.image_id],
                "category_id": category_number[shape.instance.category_id],
                field: shape.outline if comparison.kind == "segm" else list(shape.outline),
                "area": shape.area,
                "iscrowd": int(shape.instance.is_crowd),
                "score": shape.instance.score,
            }
            for number, shape in enumerate(shapes, start=1)
        ]
        return COCO({**header, "annotations": entries})

    evaluation = COCOeval_faster(dataset(comparison.annotated), dataset(comparison.detected), comparison.kind)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def _size_fields(hw: tuple[int, int] | None) -> dict[str, int]:
    return {} if hw is None else {"height": hw[0], "width": hw[1]}


def _mean(values: NDArray[np.float64]) -> float | None:
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None
