"""Several guesses of one frame made into one distribution."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_LEAST = 1e-5
"""Probabilities are cut to this distance from 0 and 1 before their log-odds are taken (AOT's official code)."""


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
