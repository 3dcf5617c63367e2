"""What the background and each object look like, learnt while tracking: a classifier of cells beside a tracker's memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.ops.discriminant import Moments, discriminant, moments_of
from rotoscope.ops.sizing import resize_smooth
from rotoscope.types import Masks

_BACKGROUND = 0
"""Stands for the background where object ids are keys."""


@dataclass(frozen=True, slots=True)
class LooksSettings:
    """How looks are learnt, and what they count; lengths are in cells of the descriptors' grid.

    Attributes:
        weight: share of the classifier's log-odds that is added to those of the tracker.
        limit: the classifier's log-odds are cut to plus and minus this.
        least_prior: a channel's probability by the tracker, at least; it is what lets the classifier win.
        shrinkage: of the classifier's covariance.
        surroundings: how far around the objects the background is learnt at full weight.
        distant_weight: weight of the background farther off.
        fading: what is left of the predicted frames' moments after each further frame.
        predicted_share: weight of the predicted frames' moments, that of the given ones being 1,
        largest_growth: times how much larger the object is in them, but at most this (and at least one over this).
    """

    weight: float = 0.5
    limit: float = 4.0
    least_prior: float = 0.02
    shrinkage: float = 2e-3
    surroundings: int = 12
    distant_weight: float = 0.05
    fading: float = 0.9
    predicted_share: float = 0.3
    largest_growth: float = 4.0


def descriptors_of(maps: Sequence[Float[Tensor, "_ _ _"]], lab: Float[Tensor, "3 h w"]) -> Float[Tensor, "d h w"]:
    """What the classifier sees of each cell: features, and the colour with its products (L², La, Lb, a², ab, b²).

    Args:
        maps: of an encoder, each of any size, each cell's features of unit length.
        lab: the picture at the size of the result, in hundredths of CIE Lab's units.
    """
    features = [resize_smooth(one, lab.shape[1:]) for one in maps]
    return torch.cat([*features, lab, lab[[0, 0, 0, 1, 1, 2]] * lab[[0, 1, 2, 1, 2, 2]]])


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

    def __init__(self, settings: LooksSettings) -> None:
        self.settings = settings
        self.given: dict[int, _Samples] = {}
        self.predicted: dict[int, _Samples] = {}

    def learn(self, descriptors: Float[Tensor, "d h w"], masks: Masks, *, given: bool) -> None:
        """Add a frame; classes that do not occur in it stay as they were."""
        table, fading = (self.given, 1.0) if given else (self.predicted, self.settings.fading)
        for object_id, weights in zip((_BACKGROUND, *masks.object_ids), self._weights(masks.probs), strict=True):
            used = (weights > 0).flatten().nonzero()[:, 0]
            if len(used) == 0:
                continue
            weights = weights.flatten()[used]
            samples = _Samples(moments_of(descriptors.flatten(1)[:, used], weights), float(weights.sum()), 1.0)
            table[object_id] = table[object_id].join(samples, fading=fading) if object_id in table else samples

    def weighed(
        self, prior: Float[Tensor, "channels _ _"], descriptors: Float[Tensor, "d h w"], object_ids: Sequence[int], possible: Float[Tensor, "1 h w"]
    ) -> Float[Tensor, "channels h w"]:
        """A tracker's distribution over the background and objects, at the descriptors' size, times that of the looks.

        Args:
            prior: of the tracker, at any size.
            descriptors: of the frame.
            object_ids: of the channels after the background.
            possible: 1 where there may be an object, and 0 where there is none, whatever it looks like there.
        """
        fine = resize_smooth(prior, descriptors.shape[1:]).clamp(min=self.settings.least_prior)
        evidence = self.settings.weight * self.log_odds(descriptors, object_ids)
        probs = (fine.log() + F.pad(evidence, (0, 0, 0, 0, 1, 0))).softmax(0)
        return torch.cat([1 - possible * (1 - probs[:1]), possible * probs[1:]])

    def log_odds(self, descriptors: Float[Tensor, "d h w"], object_ids: Sequence[int]) -> Float[Tensor, "n h w"]:
        """How much more each object's looks speak for it than for the background; 0 for an object never seen."""
        result = descriptors.new_zeros((len(object_ids), *descriptors.shape[1:]))
        seen = [index for index, object_id in enumerate(object_ids) if object_id in self.given]
        if not seen or _BACKGROUND not in self.given:
            return result
        moments = [self._moments(object_ids[index]) for index in seen]
        weights, biases = discriminant(self._moments(_BACKGROUND), moments, shrinkage=self.settings.shrinkage)
        scores = torch.einsum("nd,dhw->nhw", weights, descriptors) + biases[:, None, None]
        result[seen] = scores.clamp(-self.settings.limit, self.settings.limit)
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
    def restored(cls, state: Mapping[str, Tensor], settings: LooksSettings) -> "Looks":
        """The looks that `state` described.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a name is not one of `state`.
        """
        looks = cls(settings)
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
        growth = min(max(predicted.cells / given.cells, 1 / self.settings.largest_growth), self.settings.largest_growth)
        seniority = (1 - self.settings.fading) * predicted.frames  # approaches 1 as frames come in
        mass = self.settings.predicted_share * seniority * growth
        return given.moments.blend(predicted.moments, mass / (1 + mass))

    def _weights(self, probs: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """How much each cell teaches about each class: its probability, less where it is doubtful; for the background, less far from the objects."""
        weights = probs * (2 * probs - 1).clamp(min=0)
        reach = 2 * self.settings.surroundings + 1
        objects = (probs[:1] < 0.7).float()
        rows = F.max_pool2d(objects, (reach, 1), stride=1, padding=(self.settings.surroundings, 0))
        near = F.max_pool2d(rows, (1, reach), stride=1, padding=(0, self.settings.surroundings))
        weights[0] *= near[0] + self.settings.distant_weight * (1 - near[0])
        return weights
