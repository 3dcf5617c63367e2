"""Confidence that means something: raw figures of a model mapped to the overlap that they lead one to expect."""

from collections.abc import Sequence
from dataclasses import replace

from rotoscope.types import Masks


def scored(masks: Masks, knots: Sequence[float]) -> Masks:
    """The masks with a score for each object: the expected overlap at its mean probability.

    Args:
        masks: as the model gave them.
        knots: the expected overlaps at mean probabilities of 0, ..., 1 in even steps, from `evaluation.calibration.fit`; between them it is linear.
            Empty for a model that was never calibrated: the masks are then returned as they are.
    """
    if not knots:
        return masks
    return replace(masks, scores=tuple(_read_off(raw, knots) if raw > 0 else 0.0 for raw in replace(masks, scores=None).confidence()))


def _read_off(raw: float, knots: Sequence[float]) -> float:
    place = min(max(raw, 0.0), 1.0) * (len(knots) - 1)
    lower = min(int(place), len(knots) - 2)
    return knots[lower] + (place - lower) * (knots[lower + 1] - knots[lower])
