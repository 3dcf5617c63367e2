"""Several guesses of one frame made into one distribution."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST = 1e-5
"""Probabilities are cut to this distance from 0 and 1 before their log-odds are taken (AOT's official code)."""


_LEAST_GUESS = 1e-7
"""The same for guesses of single objects (RGMP's official code)."""

Aggregation = Literal["softmax", "maximum", "winner-take-all"]
"""How `aggregate` joins guesses; the three that RGMP, section 3.3, compares."""


def aggregate(guesses: Float[Tensor, "channels h w"], how: Aggregation = "softmax") -> Float[Tensor, "channels h w"]:
    """One distribution from guesses that were made apart: of the background (first), and of each object.

    - "softmax" weighs each channel by its odds p / (1 - p) (RGMP, eq. 1).
    - "maximum" scales the guesses to sum to 1, so that the largest stays the largest.
    - "winner-take-all" gives each pixel wholly to the largest guess; ties go to the lower channel.
    """
    if how == "softmax":
        return torch.logit(guesses.clamp(_LEAST_GUESS, 1 - _LEAST_GUESS)).softmax(dim=0)
    if how == "maximum":
        return guesses.clamp(min=_LEAST_GUESS) / guesses.clamp(min=_LEAST_GUESS).sum(dim=0, keepdim=True)
    winners = guesses.argmax(dim=0, keepdim=True)
    return torch.zeros_like(guesses).scatter_(0, winners, 1.0)


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
