"""Several guesses of one frame made into one distribution."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST = 1e-5
"""Probabilities are cut to this distance from 0 and 1 before their log-odds are taken (AOT's official code)."""
_LEAST_ALONE = 1e-7
"""The same for objects that were segmented one by one (RGMP's and MiVOS's official code)."""
_HARDNESS = 1000.0
"""What log-odds are multiplied by to make a distribution almost certain (MiVOS, official code)."""


Aggregation = Literal["softmax", "maximum", "winner-take-all"]
"""How `aggregate` joins guesses; the three that RGMP, section 3.3, compares."""


def join_objects(probs: Float[Tensor, "n h w"], *, background: float | None = None, hard: bool = False) -> Float[Tensor, "channels h w"]:
    """A distribution over the background and n objects that were segmented one by one: a softmax over their log-odds.

    A pixel is background if no object claims it: the background's probability is the product of (1 - p) (Oh et al., RGMP, CVPR 2018, eq. 3).

    Args:
        probs: the probability of each object, in 0..1; they need not sum to 1.
        background: the background's probability instead, one for all pixels.
        hard: the largest channel takes nearly all.
    """
    empty = (1 - probs).prod(dim=0, keepdim=True) if background is None else probs.new_full((1, *probs.shape[1:]), background)
    logits = _log_odds(torch.cat((empty, probs)))
    return (logits * _HARDNESS if hard else logits).softmax(dim=0)


def aggregate(guesses: Float[Tensor, "channels h w"], how: Aggregation = "softmax") -> Float[Tensor, "channels h w"]:
    """One distribution from guesses that were made apart: of the background (first), and of each object.

    - "softmax" weighs each channel by its odds p / (1 - p) (RGMP, eq. 1).
    - "maximum" scales the guesses to sum to 1, so that the largest stays the largest.
    - "winner-take-all" gives each pixel wholly to the largest guess; ties go to the lower channel.
    """
    if how == "softmax":
        return _log_odds(guesses).softmax(dim=0)
    if how == "maximum":
        return guesses.clamp(min=_LEAST_ALONE) / guesses.clamp(min=_LEAST_ALONE).sum(dim=0, keepdim=True)
    winners = guesses.argmax(dim=0, keepdim=True)
    return torch.zeros_like(guesses).scatter_(0, winners, 1.0)


def _log_odds(probs: Tensor) -> Tensor:
    return torch.logit(probs.clamp(_LEAST_ALONE, 1 - _LEAST_ALONE))


def merge_groups(probs: Sequence[Float[Tensor, "_ h w"]]) -> Float[Tensor, "channels h w"]:
    """Log-odds over all objects from groups of objects that were segmented apart; a softmax makes them probabilities.

    Each group is a distribution over the background (first) and its own objects. A pixel is background if all groups say so: their background
    probabilities are multiplied. The softmax over log-odds then weighs each object by p / (1 - p) (AOT, official code). Objects keep their order.
    """
    background = torch.stack([group[0] for group in probs]).prod(dim=0, keepdim=True)
    merged = torch.cat((background, *(group[1:] for group in probs))).clamp(_LEAST, 1 - _LEAST)
    return torch.logit(merged)


def average(probs: Sequence[Float[Tensor, "channels h w"]]) -> Float[Tensor, "channels h w"]:
    """The mean of several distributions over the same channels; one alone comes back as it is."""
    total = probs[0].clone()
    for other in probs[1:]:
        total += other
    return total / len(probs)


def normalised(shares: Float[Tensor, "channels h w"]) -> Float[Tensor, "channels h w"]:
    """The same shares, summing to 1 over the channels; where all are 0 they stay so."""
    return shares / shares.sum(0, keepdim=True).clamp(min=1e-6)
