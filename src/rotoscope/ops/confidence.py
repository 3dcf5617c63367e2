"""Confidence that means something: raw figures of a model mapped to the overlap that they lead one to expect."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.types import Masks


def agreement(one: Float[Tensor, "channels h w"], other: Float[Tensor, "channels h w"]) -> tuple[float, ...]:
    """How much two distributions over the background (channel 0) and objects agree about each object, in 0..1.

    It is the soft overlap: the sum of the smaller probabilities over that of the larger ones. Two ways to masks that agree are seldom both wrong.
    """
    shared, all_ = (pick(one[1:], other[1:]).sum(dim=(1, 2)) for pick in (torch.minimum, torch.maximum))
    return tuple((shared / all_.clamp(min=1e-6)).tolist())


def scored(masks: Masks, knots: Sequence[float], figures: Sequence[float] | None = None, *, factors: Sequence[float] | None = None) -> Masks:
    """The masks with a score for each object: the overlap with the truth that its raw figure leads one to expect; 0 for objects without pixels.

    Args:
        masks: as the model gave them.
        knots: the expected overlaps at raw figures of 0, ..., 1 in even steps, from `evaluation.calibration.fit`; between them it is linear. Empty
            for a model that was never calibrated: the raw figures are the scores.
        figures: the raw figures, in 0..1; None for mean probabilities, which without knots are what masks without scores stand for anyway.
        factors: what the raw figures are multiplied by, in 0..1.
    """
    if not knots and figures is None and factors is None:
        return masks
    probable = replace(masks, scores=None).confidence()
    raw = [one * factor for one, factor in zip(figures or probable, factors or [1.0] * len(probable), strict=True)]
    scores = (0.0 if shown == 0 else _read_off(one, knots) if knots else one for shown, one in zip(probable, raw, strict=True))
    return replace(masks, scores=tuple(scores))


def _read_off(raw: float, knots: Sequence[float]) -> float:
    place = min(max(raw, 0.0), 1.0) * (len(knots) - 1)
    lower = min(int(place), len(knots) - 2)
    return knots[lower] + (place - lower) * (knots[lower + 1] - knots[lower])
