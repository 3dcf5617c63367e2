"""One pass of MAST over one clip: which frames it reads, and how labels become masks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from rotoscope.errors import InputError, PropagationError
from rotoscope.memory import FrameCache, FrameMemory, MemorySchedule
from rotoscope.models.mast.network import MastEncoder, normalised_lab
from rotoscope.models.mast.read import Reference, read_memory, to_coarse, to_full_size
from rotoscope.types import Frame, Masks

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


@dataclass(frozen=True, slots=True)
class _Entry:
    """A remembered frame on the coarse grid: its features and the probabilities of its objects."""

    features: Float[Tensor, "c h w"]
    masks: Masks

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.features, self.masks.probs))


class MastPropagator:
    """One pass over one clip; see `rotoscope.types.Propagator`.

    Gaps between frames are counted in frames of the clip, forwards and backwards alike.
    """

    def __init__(self, encoder: MastEncoder, config: MastConfig, *, max_memory_bytes: int | None = None) -> None:
        self._encoder = encoder
        self._config = config
        self._memory: FrameMemory[_Entry] = FrameMemory(config.schedule, lambda entry: entry.num_bytes, max_bytes=max_memory_bytes)
        self._cache: FrameCache[Tensor] = FrameCache(2)
        self._first: int | None = None

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
        step, entries = self._step(frame), self._references(frame)
        ids = self._newest()[1].masks.object_ids  # it knows every object
        features = self._features(frame)
        references = [Reference(entry.features, entry.masks.select(ids).probs, step - at) for at, entry in entries]
        config = self._config
        coarse = read_memory(
            features,
            references,
            radius=config.radius,
            logit_scale=config.logit_scale,
            one_offset_for_all_values=config.one_offset_for_all_values,
        )
        return coarse, ids

    @torch.inference_mode()
    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store a frame: its features, and its labels at every fourth pixel."""
        if self._first is None:
            self._first = frame.index
        known = self._newest()[1].masks.object_ids if len(self._memory) else ()
        ids = (*known, *(object_id for object_id in masks.object_ids if object_id not in known))
        features = self._features(frame)
        probs = to_coarse(masks.select(ids).probs.to(features))
        if not self._config.soft_memory or given:
            probs = _one_hot(probs)
        self._memory.add(self._step(frame), _Entry(features, Masks(probs, ids)), given=given)

    def state(self) -> dict[str, Tensor]:
        """All that is remembered."""
        tensors = {} if self._first is None else {"first": torch.tensor(self._first)}
        for step, entry, given in self._memory:
            tensors[f"frames.{step}.features"] = entry.features
            tensors[f"frames.{step}.probs"] = entry.masks.probs
            tensors[f"frames.{step}.object_ids"] = torch.tensor(entry.masks.object_ids, dtype=torch.int64)
            tensors[f"frames.{step}.given"] = torch.tensor(given)
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave.

        Raises:
            InputError: the tensors are not those of this kind of propagator.
        """
        try:
            steps = sorted({int(name.split(".")[1]) for name in state if name.startswith("frames.")})
            frames = {step: {part: state[f"frames.{step}.{part}"] for part in ("features", "probs", "object_ids", "given")} for step in steps}
            first = int(state["first"]) if steps else None
        except (KeyError, ValueError, IndexError) as error:
            message = f"this is not the state of a MAST pass: {error} is missing or misnamed; start the clip again without --resume"
            raise InputError(message) from error
        self._memory.clear()
        self._cache = FrameCache(2)
        self._first = first
        device = next(self._encoder.parameters()).device
        for step, parts in frames.items():
            masks = Masks(parts["probs"].to(device), tuple(parts["object_ids"].tolist()))
            self._memory.add(step, _Entry(parts["features"].to(device), masks), given=bool(parts["given"]))

    def _features(self, frame: Frame) -> Float[Tensor, "c h w"]:
        return self._cache.get(frame.index, lambda: encode(self._encoder, frame))

    def _step(self, frame: Frame) -> int:
        return 0 if self._first is None else abs(frame.index - self._first)

    def _newest(self) -> tuple[int, _Entry]:
        *_, (step, entry, _) = self._memory
        return step, entry

    def _references(self, frame: Frame) -> list[tuple[int, _Entry]]:
        """The remembered frames that serve, oldest first; where frames are missing from the clip, the newest stands in for the recent ones."""
        if not len(self._memory):
            message = f"frame {frame.index} cannot be predicted: no frame is remembered yet; remember one with its masks first"
            raise PropagationError(message)
        step, newest = self._step(frame), self._newest()
        found = self._memory.references(step)
        complete = any(at == newest[0] or self._config.schedule.is_recent(at, step) for at, _ in found)
        return found if complete else [*found, newest]


def encode(encoder: MastEncoder, frame: Frame) -> Float[Tensor, "c h w"]:
    """The features of a frame."""
    device = next(encoder.parameters()).device
    lab = normalised_lab(frame.image.to(device))
    features: Tensor = encoder(lab[None].contiguous(memory_format=torch.channels_last))[0]
    return features.contiguous()


def _one_hot(probs: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    winner: Int32[Tensor, "h w"] = probs.argmax(dim=0)
    return torch.nn.functional.one_hot(winner, probs.shape[0]).permute(2, 0, 1).to(probs)


def _distribution(probs: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Channels that sum to 1: what fell outside the frame is shared in proportion, which leaves the largest channel the largest."""
    total = probs.sum(dim=0, keepdim=True)
    empty = torch.zeros_like(probs)
    empty[0] = 1
    return torch.where(total > 0, probs / total.clamp(min=torch.finfo(probs.dtype).tiny), empty)
