"""J and F of one object in one frame, and mean, recall and decay of a series of them.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016. Numbers equal those of the official
DAVIS-2017 evaluator in every frame; here only the part of the frame that holds an object is looked at, which changes no number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rotoscope.errors import InputError

BOUNDARY_TOLERANCE = 0.008
"""How far apart two boundaries may be and still match, as a share of the frame's diagonal (official evaluator)."""
RECALL_THRESHOLD = 0.5
"""Recall is the share of frames above this value (Perazzi et al.)."""
NUM_DECAY_BINS = 4

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a series of J or F comes to.

    Attributes:
        mean: in 0..1.
        recall: the share of frames whose value is above 0.5, in 0..1.
        decay: mean of the first quarter minus mean of the last, in -1..1; 0 is best, positive means it gets worse.
    """

    mean: float
    recall: float
    decay: float


def jaccard(predicted: Mask, given: Mask, void: Mask | None = None) -> float:
    """J: the intersection of two masks over their union, in 0..1; 1 if both are empty. Pixels of `void` are left out.

    Raises:
        InputError: the masks have different sizes.
    """
    predicted, given = _comparable(predicted, given, void)
    return jaccard_and_boundary_f(predicted, given)[0]


def boundary_f(predicted: Mask, given: Mask, void: Mask | None = None) -> float:
    """F: the harmonic mean of precision and recall of the predicted boundary, in 0..1.

    Boundary pixels match if they are within `boundary_radius` of the other boundary. 1 if neither mask has a boundary (both empty, or full
    frame), 0 if only one has. Pixels of `void` are empty in both masks.

    Raises:
        InputError: the masks have different sizes.
    """
    predicted, given = _comparable(predicted, given, void)
    return jaccard_and_boundary_f(predicted, given)[1]


def jaccard_and_boundary_f(predicted: Mask, given: Mask) -> tuple[float, float]:
    """J and F of two masks of one size, for the cost of looking at the part of the frame where there is an object."""
    box = _object_box(predicted, given)
    if box is None:
        return 1.0, 1.0
    radius = boundary_radius(predicted.shape)
    predicted, given = np.ascontiguousarray(predicted[box]), np.ascontiguousarray(given[box])
    j = float(np.count_nonzero(predicted & given) / np.count_nonzero(predicted | given))
    return j, _boundary_f(boundary(predicted), boundary(given), radius)


def boundary_radius(hw: Sequence[int]) -> int:
    """How many pixels apart two boundaries of a frame may be and still match."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(*hw))


def boundary(mask: Mask) -> Mask:
    """The pixels whose right, lower or lower right neighbour is on the other side; the outer edge of the frame is no boundary.

    This is the pixel-wide map of the Berkeley benchmark (Martin, Fowlkes and Malik, PAMI 2004) that DAVIS uses.
    """
    edges = np.zeros_like(mask)
    edges[:, :-1] = mask[:, :-1] ^ mask[:, 1:]
    edges[:-1] |= mask[:-1] ^ mask[1:]
    edges[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edges


def summarize(values: Sequence[float]) -> Summary:
    """Mean, recall and decay of a series.

    Decay compares the first and the last of four stretches that share their end points (official rule). The official code keeps the end points in
    8 bits, so that it is wrong for more than 256 frames; this is not.

    Raises:
        InputError: the series is empty.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.size == 0:
        message = "no frame is left to score; a clip needs at least three frames, because the first and the last are not scored"
        raise InputError(message)
    ends = np.round(np.linspace(1, series.size, NUM_DECAY_BINS + 1) + 1e-10).astype(np.intp) - 1  # 1e-10 rounds halves up, as officially
    first, last = series[ends[0] : ends[1] + 1], series[ends[-2] : ends[-1] + 1]
    return Summary(float(series.mean()), float((series > RECALL_THRESHOLD).mean()), float(first.mean() - last.mean()))


def _boundary_f(predicted: Mask, given: Mask, radius: int) -> float:
    num_predicted, num_given = np.count_nonzero(predicted), np.count_nonzero(given)
    if num_predicted == 0 or num_given == 0:
        return float(num_predicted == num_given)
    precision = float(np.count_nonzero(predicted & _widened(given, radius)) / num_predicted)
    recall = float(np.count_nonzero(given & _widened(predicted, radius)) / num_given)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _widened(edges: Mask, radius: int) -> Mask:
    return cv2.dilate(edges.view(np.uint8), _disk(radius)).view(np.bool_)


@lru_cache(maxsize=8)
def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk: NDArray[np.uint8] = (x * x + y * y <= radius * radius).astype(np.uint8)
    return disk


def _object_box(predicted: Mask, given: Mask) -> tuple[slice, slice] | None:
    """The rectangle of both objects with a border of one pixel, in which all their boundary pixels are; None if there is no object."""
    x, y, width, height = cv2.boundingRect((predicted | given).view(np.uint8))
    if width == 0:
        return None
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _comparable(predicted: Mask, given: Mask, void: Mask | None) -> tuple[Mask, Mask]:
    shapes = {array.shape for array in (predicted, given, void) if array is not None}
    if len(shapes) != 1 or predicted.ndim != 2:
        message = f"masks of sizes {', '.join(map(str, sorted(shapes)))} cannot be compared; all must be [h, w] of one size"
        raise InputError(message)
    predicted, given = predicted.astype(np.bool_), given.astype(np.bool_)
    return (predicted, given) if void is None else (predicted & ~void, given & ~void)
