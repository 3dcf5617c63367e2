"""Which frames are most worth a person's look: where the masks are in doubt, spread so that one correction does not do the work of another.

The doubt about a frame is the share of its objects' pixels that are expected to be wrong, going by the probabilities, and the jumps of their areas
from frame to frame. Where doubt sets in something went wrong, and a correction there mends what comes after; so a frame counts for its doubt and for
how much more there is of it than in a neighbour. Each frame taken lowers what its neighbourhood counts for.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.types import Masks

_JUMP_WEIGHT = 0.5  # an object that doubles its area within a frame counts like a third of its pixels in doubt
_DISTANCE_WEIGHT = 0.05  # confident models err too, and the more the further they are from a given frame
_REACH_SHARE = 0.15  # of the clip: how far away a frame that is taken lowers others by 1/e


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What is worth knowing of the masks of a frame.

    Attributes:
        doubt: expected share of wrong pixels among those of the objects, in 0..1; 0 without objects.
        areas: pixels by object.
    """

    doubt: float
    areas: Mapping[int, int]


def facts_of(masks: Masks) -> MaskFacts:
    """The facts of a frame's masks."""
    best, winner = masks.probs.max(dim=0)
    counts = torch.bincount(winner.flatten(), minlength=masks.probs.shape[0]).tolist()
    wrong = float((1 - best).sum())  # pixels that are expected to belong elsewhere
    claimed = float((1 - masks.probs[0]).sum())
    return MaskFacts(min(wrong / max(claimed, 1.0), 1.0), dict(zip(masks.object_ids, counts[1:], strict=True)))


def suggest(facts: Mapping[int, MaskFacts], given: Collection[int], num_frames: int, count: int) -> list[int]:
    """At most `count` frames that are not given, the one most worth a look first; ties go to the earlier frame.

    Args:
        facts: by frame; a frame without facts has no masks, and is in the greatest doubt.
        given: frames that a person gave.
        num_frames: of the clip.
        count: how many to suggest.

    Raises:
        InputError: the count is negative.
    """
    if count < 0:
        message = f"{count} frames cannot be suggested; give 0 or more"
        raise InputError(message)
    near = _nearness(num_frames)
    doubts = _doubts(facts, given, near)
    scores = doubts + _rises(doubts)
    free = torch.tensor([index not in given for index in range(num_frames)], dtype=torch.bool)
    chosen: list[int] = []
    while len(chosen) < count and bool(free.any()):
        best = int(torch.where(free, scores, -1.0).argmax())
        chosen.append(best)
        free[best] = False
        scores = scores * (1 - near[best])
    return chosen


def _doubts(facts: Mapping[int, MaskFacts], given: Collection[int], near: Float[Tensor, "t t"]) -> Float[Tensor, "t"]:
    """How much there is to settle in each frame, in 0..1."""
    apart = 1 - near[sorted(given)].amax(dim=0) if given else torch.ones(len(near))
    doubts = torch.ones(len(near))
    for index in range(len(near)):
        if index in facts:
            jumps = [_jump(facts[index], facts.get(other)) for other in (index - 1, index + 1)]
            doubts[index] = min(facts[index].doubt + _JUMP_WEIGHT * sum(jumps) / 2 + _DISTANCE_WEIGHT * float(apart[index]), 1.0)
    doubts[sorted(given)] = 0.0
    return doubts


def _rises(doubts: Float[Tensor, "t"]) -> Float[Tensor, "t"]:
    """How much more doubt there is about each frame than about the better of its neighbours."""
    ends = torch.full((1,), torch.inf)
    neighbours = torch.minimum(torch.cat((ends, doubts[:-1])), torch.cat((doubts[1:], ends)))
    return (doubts - neighbours).clamp(min=0)


def _jump(facts: MaskFacts, neighbour: MaskFacts | None) -> float:
    """How much the areas of objects differ between two frames, in 0..1: the mean over the objects of 1 - smaller / larger."""
    if neighbour is None:
        return 0.0
    pairs = [(facts.areas.get(one, 0), neighbour.areas.get(one, 0)) for one in {*facts.areas, *neighbour.areas}]
    changes = [1 - min(pair) / max(pair) for pair in pairs if max(pair)]
    return sum(changes) / len(changes) if changes else 0.0


def _nearness(num_frames: int) -> Float[Tensor, "t t"]:
    """For each two frames a measure that falls from 1 with the distance between them."""
    places = torch.arange(num_frames)
    return torch.exp(-(places[:, None] - places[None, :]).abs() / max(_REACH_SHARE * num_frames, 1.0))
