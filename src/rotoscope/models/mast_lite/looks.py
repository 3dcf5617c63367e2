"""What the background and each object look like, learnt while tracking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.models.mast_lite.features import MastLiteConfig
from rotoscope.ops.discriminant import Moments, discriminant, moments_of
from rotoscope.types import Masks

_BACKGROUND = 0
"""Stands for the background where object ids are keys."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """The moments of one class over some frames, the mean number of its cells per frame, and how many frames that is."""

    moments: Moments
    cells: float
    frames: float

    def join(self, other: "_Samples", *, fading: float = 1.0) -> "_Samples":
        """Both together, this one's frames counting `fading` each."""
        frames = fading * self.frames + other.frames
        share = other.frames / frames
        return _Samples(self.moments.blend(other.moments, share), (1 - share) * self.cells + share * other.cells, frames)


class Looks:
    """What the background and each object look like: moments of their descriptors, given and predicted, by object id."""

    def __init__(self, config: MastLiteConfig) -> None:
        self.config = config
        self.given: dict[int, _Samples] = {}
        self.predicted: dict[int, _Samples] = {}

    def learn(self, descriptors: Float[Tensor, "d h w"], masks: Masks, *, given: bool) -> None:
        """Add a frame; classes that do not occur in it stay as they were."""
        table, fading = (self.given, 1.0) if given else (self.predicted, self.config.fading)
        for object_id, weights in zip((_BACKGROUND, *masks.object_ids), self._weights(masks.probs), strict=True):
            used = (weights > 0).flatten().nonzero()[:, 0]
            if len(used) == 0:
                continue
            weights = weights.flatten()[used]
            samples = _Samples(moments_of(descriptors.flatten(1)[:, used], weights), float(weights.sum()), 1.0)
            table[object_id] = table[object_id].join(samples, fading=fading) if object_id in table else samples

    def log_odds(self, descriptors: Float[Tensor, "d h w"], object_ids: Sequence[int]) -> Float[Tensor, "n h w"]:
        """How much more each object's looks speak for it than for the background; 0 for an object never seen."""
        result = descriptors.new_zeros((len(object_ids), *descriptors.shape[1:]))
        seen = [index for index, object_id in enumerate(object_ids) if object_id in self.given]
        if not seen or _BACKGROUND not in self.given:
            return result
        moments = [self._moments(object_ids[index]) for index in seen]
        weights, biases = discriminant(self._moments(_BACKGROUND), moments, shrinkage=self.config.shrinkage)
        scores = torch.einsum("nd,dhw->nhw", weights, descriptors) + biases[:, None, None]
        result[seen] = scores.clamp(-self.config.looks_limit, self.config.looks_limit)
        return result

    def state(self) -> dict[str, Tensor]:
        """The moments and their weights, as named tensors."""
        tensors: dict[str, Tensor] = {}
        for kind, table in (("given", self.given), ("predicted", self.predicted)):
            for object_id, samples in table.items():
                tensors[f"{kind}.{object_id}.mean"] = samples.moments.mean
                tensors[f"{kind}.{object_id}.second"] = samples.moments.second
                tensors[f"{kind}.{object_id}.counts"] = torch.tensor([samples.cells, samples.frames], dtype=torch.float64)
        return tensors

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], config: MastLiteConfig) -> "Looks":
        """The looks that `state` described.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a name is not one of `state`.
        """
        looks = cls(config)
        for name in state:
            kind, object_id, part = name.split(".")
            if part == "mean":
                moments = Moments(state[name], state[f"{kind}.{object_id}.second"])
                cells, frames = state[f"{kind}.{object_id}.counts"].tolist()
                table = looks.given if kind == "given" else looks.predicted
                table[int(object_id)] = _Samples(moments, cells, frames)
        return looks

    def _moments(self, object_id: int) -> Moments:
        """Those of the given frames with those of the predicted ones, which count more the larger the object has become."""
        given, predicted = self.given[object_id], self.predicted.get(object_id)
        if predicted is None:
            return given.moments
        growth = min(max(predicted.cells / given.cells, 1 / self.config.largest_growth), self.config.largest_growth)
        seniority = (1 - self.config.fading) * predicted.frames  # approaches 1 as frames come in
        mass = self.config.predicted_share * seniority * growth
        return given.moments.blend(predicted.moments, mass / (1 + mass))

    def _weights(self, probs: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """How much each cell teaches about each class: its probability, less where it is doubtful; for the background, less far from the objects."""
        weights = probs * (2 * probs - 1).clamp(min=0)
        reach = 2 * self.config.surroundings + 1
        objects = (probs[:1] < 0.7).float()
        rows = F.max_pool2d(objects, (reach, 1), stride=1, padding=(self.config.surroundings, 0))
        near = F.max_pool2d(rows, (1, reach), stride=1, padding=(0, self.config.surroundings))
        weights[0] *= near[0] + self.config.distant_weight * (1 - near[0])
        return weights
