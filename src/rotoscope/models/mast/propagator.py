"""One pass of MAST over one clip: which frames it reads, and how labels become masks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from rotoscope.memory import FrameCache, MaskMemory, MemorySchedule
from rotoscope.models.mast.network import MastEncoder, normalised_lab
from rotoscope.models.mast.read import Reference, read_memory, to_coarse, to_full_size
from rotoscope.types import FeatureStore, Frame, Masks

FULL_MEMORY = MemorySchedule(anchors=(0, 5), recent=(1, 3, 5))
"""The official script's `--ref 0`."""


@dataclass(frozen=True, slots=True)
class MastConfig:
    """How MAST reads its memory; the defaults are the official test settings but for the fault.

    Attributes:
        radius: of the window read, in cells of 4 pixels.
        schedule: which frames are read: 0 and 5, and those 1, 3 and 5 frames ago.
        logit_scale: factor on the dot products of features.
        one_offset_for_all_values: the official code's fault, which the released weights were scored with; set when official weights are loaded.
        aligned_upsampling: take cell i to pixel 4i, where it was read, instead of 4i + 1.5.
        soft_memory: remember probabilities of predicted frames instead of labels (the paper's ablation).
    """

    radius: int = 12
    schedule: MemorySchedule = FULL_MEMORY
    logit_scale: float = 1.0
    one_offset_for_all_values: bool = False
    aligned_upsampling: bool = False
    soft_memory: bool = False


class MastPropagator:
    """One pass over one clip; see `rotoscope.types.Propagator`.

    Gaps between frames are counted in frames of the clip, forwards and backwards alike.
    """

    def __init__(
        self, encoder: MastEncoder, config: MastConfig, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None
    ) -> None:
        self._encoder = encoder
        self._config = config
        self._memory = MaskMemory(config.schedule, max_bytes=max_memory_bytes)
        self._cache = FrameCache() if features is None else features

    @torch.inference_mode()
    def predict(self, frame: Frame) -> Masks:
        """Masks of a frame, for every object ever remembered.

        Raises:
            PropagationError: nothing is remembered yet.
        """
        coarse, ids = self.read(frame)
        probs = to_full_size(coarse, frame.hw, aligned=self._config.aligned_upsampling)
        return Masks(_distribution(probs), ids)

    def read(self, frame: Frame) -> tuple[Float[Tensor, "n h w"], tuple[int, ...]]:
        """What the memory says on the coarse grid, and the object of each channel after the background's.

        Near the edges the channels may sum to less than 1: the rest fell outside the frame.

        Raises:
            PropagationError: nothing is remembered yet.
        """
        remembered = self._memory.references(frame.index)
        features = self._features(frame)
        references = [Reference(one.features, one.masks.probs, one.gap) for one in remembered]
        config = self._config
        coarse = read_memory(
            features,
            references,
            radius=config.radius,
            logit_scale=config.logit_scale,
            one_offset_for_all_values=config.one_offset_for_all_values,
        )
        return coarse, self._memory.object_ids

    @torch.inference_mode()
    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store a frame: its features, and its labels at every fourth pixel."""
        features = self._features(frame)
        masks = self._memory.with_all_objects(masks)
        probs = to_coarse(masks.probs.to(features))
        if not self._config.soft_memory or given:
            probs = _one_hot(probs)
        self._memory.add(frame.index, features, Masks(probs, masks.object_ids), given=given)

    def state(self) -> dict[str, Tensor]:
        """All that is remembered."""
        return self._memory.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave.

        Raises:
            InputError: the tensors are not those of this kind of propagator.
        """
        self._memory.restore(state, next(self._encoder.parameters()).device)

    def _features(self, frame: Frame) -> Float[Tensor, "c h w"]:
        return self._cache.get(frame, lambda: encode(self._encoder, frame))


def encode(encoder: MastEncoder, frame: Frame) -> Float[Tensor, "c h w"]:
    """The features of a frame."""
    device = next(encoder.parameters()).device
    lab = normalised_lab(frame.image.to(device))
    features: Tensor = encoder(lab[None].contiguous(memory_format=torch.channels_last))[0]
    return features.contiguous()


def _one_hot(probs: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    winner: Int32[Tensor, "h w"] = probs.max(dim=0).indices
    return torch.nn.functional.one_hot(winner, probs.shape[0]).permute(2, 0, 1).to(probs)


def _distribution(probs: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Channels that sum to 1: what fell outside the frame is shared in proportion, which leaves the largest channel the largest."""
    total = probs.sum(dim=0, keepdim=True)
    empty = torch.zeros_like(probs)
    empty[0] = 1
    return torch.where(total > 0, probs / total.clamp(min=torch.finfo(probs.dtype).tiny), empty)
