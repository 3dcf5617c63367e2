"""A closed-form classifier: linear discriminant analysis on weighted samples, from moments that add up over frames.

Fisher 1936; Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 4.3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """The weighted mean and the mean outer product of one class's samples."""

    mean: Float[Tensor, "d"]
    second: Float[Tensor, "d d"]

    def blend(self, other: "Moments", share: float) -> "Moments":
        """The moments of the two sets of samples joined, `share` in 0..1 being the weight of the other."""
        return Moments(torch.lerp(self.mean, other.mean, share), torch.lerp(self.second, other.second, share))

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        """The samples' covariance."""
        return self.second - torch.outer(self.mean, self.mean)


def moments_of(samples: Float[Tensor, "d n"], weights: Float[Tensor, "n"]) -> Moments:
    """The moments of samples with non-negative weights, which need not sum to 1 but may not all be 0."""
    share = weights / weights.sum()
    weighted = samples * share
    return Moments(weighted.sum(1), weighted @ samples.T)


def discriminant(background: Moments, objects: list[Moments], *, shrinkage: float) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    """Weights and biases whose product with a sample is the log-odds of each object against the background.

    The classes are taken for Gaussians of one covariance, the mean of the background's and the objects' average, and equally probable.

    Args:
        background: the samples that are no object.
        objects: the samples of each object; at least one.
        shrinkage: share of the mean variance that is added to each variance; above 0, so that few samples are enough.
    """
    pooled = (background.covariance + torch.stack([one.covariance for one in objects]).mean(0)) / 2
    variance = pooled.diagonal().mean().clamp(min=1e-6)
    pooled = pooled + shrinkage * variance * torch.eye(len(pooled), dtype=pooled.dtype, device=pooled.device)
    means = torch.stack([one.mean for one in objects])
    difference = means - background.mean
    weights = torch.linalg.solve(pooled, difference.T).T
    biases = -(weights * (means + background.mean)).sum(1) / 2
    return weights, biases
