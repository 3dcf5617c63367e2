"""One pass of AOT or DeAOT over one clip: which objects there are, what is remembered of them, and what the next frame holds."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from rotoscope.errors import InputError, MaskError, MemoryBudgetError, PropagationError
from rotoscope.memory import FrameCache, bytes_in
from rotoscope.models.aot.config import MAX_OBJECTS, AotConfig
from rotoscope.models.aot.memory import GroupMemory, attention_shares
from rotoscope.models.aot.network import AotNetwork, Pass, Picture, one_hot_identities
from rotoscope.nn.looks import Looks, descriptors_of
from rotoscope.ops.aggregate import merge_groups, normalised
from rotoscope.ops.color import imagenet_scaled, rgb_to_lab
from rotoscope.ops.components import without_strays
from rotoscope.ops.confidence import agreement, scored
from rotoscope.ops.guided import follow_edges
from rotoscope.ops.sizing import resize_cubic, resize_labels, resize_smooth, working_size
from rotoscope.types import FeatureStore, Frame, Masks

_STRIDE = 16
_EDGE_PIXELS = 480 * 1120
"""Of the frame as the guided filter sees it, at most."""
_NEGLIGIBLE = 0.05
"""Probability of an object below which the network sees none,"""
_REACH = 4
"""and cells at stride 4 around the others in which there may be one, if it looks like it."""


@dataclass(frozen=True, slots=True)
class _Matched:
    """What reading the memory made of a frame, kept for its memory update."""

    frame_index: int
    passes: tuple[Pass, ...]


class _Seen(NamedTuple):
    """What is computed of a frame alone; descriptors are what the looks are learnt from, where the variant has them."""

    picture: Picture
    descriptors: Float[Tensor, "d h w"] | None


class AotTracker:
    """AOT or DeAOT with its weights; one may serve many clips and threads.

    Args:
        network: in evaluation mode, on its device.
        config: of the variant.
    """

    def __init__(self, network: AotNetwork, config: AotConfig) -> None:
        self.network = network
        self.config = config

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> "AotPropagator":
        """A new pass; see `Tracker`."""
        return AotPropagator(self.network, self.config, max_memory_bytes=max_memory_bytes, features=features)

    def at_scale(self, scale: float, *, short_edge: int | None = 624) -> "AotTracker":
        """The same weights on frames of another size, for test-time augmentation (official short edge: 624)."""
        return AotTracker(self.network, replace(self.config, scale=scale, short_edge=short_edge))


class AotPropagator:
    """The state of one pass.

    Every object has a slot, in the order in which objects were first spoken of; ten slots share a pass through the network. An object that masks
    no longer list leaves the results, and comes back to its slot when they list it again.

    Args:
        network: see `AotTracker`.
        config: see `AotTracker`.
        max_memory_bytes: budget of the remembered frames.
        features: see `Tracker`.
    """

    def __init__(self, network: AotNetwork, config: AotConfig, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> None:
        if max_memory_bytes is not None and max_memory_bytes <= 0:
            message = f"a memory budget of {max_memory_bytes} bytes holds nothing; give a positive number"
            raise InputError(message)
        self._network = network
        self._config = config
        self._max_bytes = max_memory_bytes
        self._pictures = FrameCache() if features is None else features
        self._restart()

    def _restart(self) -> None:
        self._slots: list[int] = []
        self._listed: tuple[int, ...] = ()
        self._groups: list[GroupMemory] = []
        self._looks = None if self._config.looks is None else Looks(self._config.looks)
        self._hw: tuple[int, int] | None = None
        self._step = -1
        self._last_index: int | None = None
        self._matched: _Matched | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order of the results."""
        return self._listed

    @property
    def long_term_frames(self) -> list[int]:
        """How many frames each group of objects keeps for long."""
        return [len(group.long_term) for group in self._groups]

    @torch.inference_mode()
    def predict(self, frame: Frame) -> Masks:
        """Masks of a frame, at its size, from what is remembered; the memory stays as it is.

        Raises:
            PropagationError: nothing is remembered yet.
            InputError: the frame has another size than the remembered ones.
        """
        self._check_size(frame)
        if self._hw is None:
            message = f"frame {frame.index} cannot be predicted before a frame with masks is remembered; start where a mask is given"
            raise PropagationError(message)
        if not self._listed:
            return Masks(torch.ones((1, *frame.hw)), ())
        with self._precision():
            seen, matched = self._see(frame), self._match(frame)
            hw = frame.hw if seen.descriptors is None else (seen.descriptors.shape[1], seen.descriptors.shape[2])
            groups = [self._upsampled(seen.picture, result, hw, index) for index, result in enumerate(matched.passes)]
        channels = [0, *(1 + self._slots.index(object_id) for object_id in self._listed)]
        logits = groups[0] if len(groups) == 1 else merge_groups([group.softmax(dim=0) for group in groups])
        read = logits[channels].softmax(dim=0)
        probs, agreed = read, None
        if seen.descriptors is not None:
            probs = self._with_looks(read, seen.descriptors)
            agreed = agreement(read, probs)
        if self._config.stray_share:
            probs = without_strays(probs, share=self._config.stray_share)
        if self._config.edge_radius:
            probs = self._on_edges(probs, frame)
        elif hw != frame.hw:
            probs = normalised(resize_smooth(probs, frame.hw))
        return scored(Masks(probs, self._listed), self._config.calibration, factors=agreed)

    @torch.inference_mode()
    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store a frame with its masks: as the frame before, and for long if they are given or the gap has passed.

        Raises:
            InputError: the frame has another size than the remembered ones.
            MaskError: the masks have another size than the frame.
            MemoryBudgetError: the frames that must stay do not fit the budget.
        """
        self._check_size(frame)
        if masks.hw != frame.hw:
            message = f"the masks of frame {frame.index} have {masks.hw} pixels but the frame has {frame.hw}; resize the masks first"
            raise MaskError(message)
        if frame.index != self._last_index:
            self._step += 1
        with self._precision():
            seen = self._see(frame)
            matched = None if given else self._match_old_groups(frame)
            self._list_objects(masks, given=given)
            working = working_size_of(frame.hw, self._config)
            slots = resize_labels(self._slot_labels(masks), working)
            for index, group in enumerate(self._groups):
                own = matched.passes[index] if matched and index < len(matched.passes) else None
                self._update(group, seen.picture, slots - index * MAX_OBJECTS, own)
        if self._looks is not None and seen.descriptors is not None:
            fine = normalised(resize_smooth(masks.probs.to(seen.descriptors), seen.descriptors.shape[1:]))
            self._looks.learn(seen.descriptors, Masks(fine, masks.object_ids), given=given)
        self._hw, self._last_index, self._matched = frame.hw, frame.index, None

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, as named tensors."""
        tensors = {f"group.{index}.{name}": tensor for index, group in enumerate(self._groups) for name, tensor in group.state().items()}
        if self._looks is not None:
            tensors |= {f"looks.{name}": tensor for name, tensor in self._looks.state().items()}
        tensors["slots"] = torch.tensor(self._slots, dtype=torch.int64)
        tensors["listed"] = torch.tensor(self._listed, dtype=torch.int64)
        height, width = self._hw or (0, 0)
        last = -1 if self._last_index is None else self._last_index
        tensors["counters"] = torch.tensor([height, width, self._step, last], dtype=torch.int64)
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Replace all that is remembered by what `state` gave.

        Raises:
            InputError: the tensors are not those of this kind of propagator.
        """
        try:
            height, width, step, last = state["counters"].tolist()
            slots, listed = state["slots"].tolist(), tuple(state["listed"].tolist())
            groups = [self._restored_group(state, index) for index in range(-(-len(slots) // MAX_OBJECTS))]
            looks = self._restored_looks(state)
        except (KeyError, ValueError) as error:
            message = f"this is not the state of a pass of {self._config.name}: {error} is missing or has another shape"
            raise InputError(message) from error
        self._restart()
        self._slots, self._listed, self._groups, self._looks = slots, listed, groups, looks
        self._hw = (height, width) if height else None
        self._step, self._last_index = step, None if last < 0 else last

    def _restored_group(self, state: Mapping[str, Tensor], index: int) -> GroupMemory:
        prefix = f"group.{index}."
        group = GroupMemory.restored({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}, self._device)
        if len(group.short_term) != self._config.num_layers:
            message = f"{len(group.short_term)} of {self._config.num_layers} layers"
            raise ValueError(message)
        return group

    def _restored_looks(self, state: Mapping[str, Tensor]) -> Looks | None:
        if self._config.looks is None:
            return None
        held = {name.removeprefix("looks."): tensor.to(self._device) for name, tensor in state.items() if name.startswith("looks.")}
        return Looks.restored(held, self._config.looks)

    @property
    def _device(self) -> str:
        return str(self._network.projector.weight.device)

    def _precision(self) -> AbstractContextManager[object]:
        if self._config.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.split(":")[0], dtype=torch.bfloat16)

    def _check_size(self, frame: Frame) -> None:
        if self._hw is not None and frame.hw != self._hw:
            (height, width), (old_height, old_width) = frame.hw, self._hw
            message = (
                f"frame {frame.index} is {width}x{height} but the clip started with {old_width}x{old_height}; cut the clip where the size changes"
            )
            raise InputError(message)

    def _see(self, frame: Frame) -> _Seen:
        return self._pictures.get(frame, lambda: self._seen(frame))

    def _seen(self, frame: Frame) -> _Seen:
        maps = self._network.encoder(network_input(frame, self._config, self._device))
        picture = self._network.picture_of(maps)
        if self._config.looks is None:
            return _Seen(picture, None)
        lab = rgb_to_lab(resize_smooth(frame.image.to(self._device).float(), maps[0].shape[2:]) / 255) / 100
        return _Seen(picture, descriptors_of([F.normalize(one[0].float(), dim=0) for one in maps[:3]], lab))

    def _match(self, frame: Frame) -> _Matched:
        if self._matched is None or self._matched.frame_index != frame.index:
            picture = self._see(frame).picture
            self._matched = _Matched(frame.index, tuple(self._network.match(picture, group.layers()) for group in self._groups))
        return self._matched

    def _match_old_groups(self, frame: Frame) -> _Matched | None:
        return self._match(frame) if self._groups else None

    def _upsampled(self, picture: Picture, result: Pass, hw: tuple[int, int], group: int) -> Float[Tensor, "ids h w"]:
        """Logits of a group at the frame's size; identities that no object uses get none in a lone group, and next to none among several."""
        logits = self._network.decode(picture, result).float()
        used = 1 + min(max(len(self._slots) - group * MAX_OBJECTS, 0), MAX_OBJECTS)
        enlarged = F.interpolate(logits[:, :used], size=hw, mode="bilinear", align_corners=self._config.align_corners)
        return enlarged[0]

    def _with_looks(self, read: Float[Tensor, "channels h w"], descriptors: Float[Tensor, "d h w"]) -> Float[Tensor, "channels h w"]:
        """The distribution that the memories gave times that of the looks."""
        assert self._looks is not None, "a variant with descriptors has looks"
        possible = F.max_pool2d((1 - read[:1] > _NEGLIGIBLE).float(), 2 * _REACH + 1, stride=1, padding=_REACH)
        return self._looks.weighed(read, descriptors, self._listed, possible)

    def _on_edges(self, probs: Float[Tensor, "channels _ _"], frame: Frame) -> Float[Tensor, "channels h w"]:
        """The distribution at the frame's size with its outlines on the frame's edges, found at no more than the size of 480p."""
        shrinking = min(1.0, (_EDGE_PIXELS / (frame.hw[0] * frame.hw[1])) ** 0.5)
        hw = tuple(max(2, round(side * shrinking)) for side in frame.hw)
        guide = rgb_to_lab(resize_smooth(frame.image.to(self._device).float(), hw) / 255) / 100
        followed = follow_edges(resize_smooth(probs, hw), guide, radius=self._config.edge_radius, smoothness=self._config.edge_smoothness)
        return normalised(resize_smooth(followed, frame.hw))

    def _list_objects(self, masks: Masks, *, given: bool) -> None:
        """Give objects that are met for the first time a slot, and groups of ten a memory."""
        if given and self._config.lose_absent_highest_ids and self._slots:
            present = set(torch.unique(masks.labels()).tolist())
            while self._slots and self._slots[-1] not in present:
                self._slots.pop()
            masks = masks.select([i for i in masks.object_ids if i in self._slots or i in present])
        self._slots += [object_id for object_id in masks.object_ids if object_id not in self._slots]
        self._listed = masks.object_ids
        while len(self._groups) * MAX_OBJECTS < len(self._slots):
            self._groups.append(GroupMemory())

    def _slot_labels(self, masks: Masks) -> Int64[Tensor, "h w"]:
        """The winner of each pixel as a slot, counted from 1; 0 is the background. Ties go to the lower channel."""
        slots = [0, *(1 + self._slots.index(object_id) if object_id in self._slots else 0 for object_id in masks.object_ids)]
        winners = masks.probs.max(dim=0).indices.to(self._device)
        return torch.tensor(slots, device=self._device)[winners]

    def _update(self, group: GroupMemory, picture: Picture, labels: Int64[Tensor, "h w"], matched: Pass | None) -> None:
        """Both memories of a group; labels below 1 or above 10 belong to other groups, and are background here."""
        own = torch.where((labels >= 1) & (labels <= MAX_OBJECTS), labels, 0)
        embedding = self._network.id_bank(one_hot_identities(own[None]))
        is_reference = matched is None
        result = self._network.match_itself(picture, embedding) if matched is None else matched
        stored = self._network.store(result, embedding)
        gap = self._config.long_term_gap
        is_due = gap is not None and self._step - group.last_kept_step >= gap
        most_frames = self._most_frames(stored)
        if most_frames is not None and matched is not None:
            self._note_attention(group, matched)
        group.short_term = stored
        if is_reference or is_due:
            group.long_term.add(self._step, stored, given=is_reference, most_frames=most_frames)
            group.last_kept_step = self._step
            self._check_budget(stored)

    def _note_attention(self, group: GroupMemory, matched: Pass) -> None:
        last = self._config.num_layers - 1
        num_heads = 1 if self._config.gated else 8
        group.long_term.note_attention(
            attention_shares(matched.described[last].key, group.long_term.layer(last).key, len(group.long_term), num_heads=num_heads)
        )

    def _most_frames(self, stored: Sequence[tuple[Tensor, Tensor]]) -> int | None:
        """How many long-term frames of one group the variant wants and the budget holds, beside the frame before."""
        wanted = self._config.long_term_frames
        if self._max_bytes is None:
            return wanted
        held = max(self._max_bytes // (bytes_in(stored) * len(self._groups)) - 1, 0)
        return held if wanted is None else min(held, wanted)

    def _check_budget(self, stored: Sequence[tuple[Tensor, Tensor]]) -> None:
        most = self._most_frames(stored)
        if most is None or self._max_bytes is None:  # a limit of the variant alone is kept by the memory itself
            return
        for group in self._groups:
            group.long_term.shrink(most)
        needed = sum(len(group.long_term) + 1 for group in self._groups) * bytes_in(stored)
        if needed > self._max_bytes:
            message = (
                f"the given frames need {needed / 2**20:.1f} MB of memory, but the budget is {self._max_bytes / 2**20:.1f} MB; "
                "raise the budget or give fewer masks"
            )
            raise MemoryBudgetError(message)


def working_size_of(hw: tuple[int, int], config: AotConfig) -> tuple[int, int]:
    """The size at which a variant sees frames of a size."""
    return working_size(
        hw, stride=_STRIDE, corners=config.align_corners, short_edge=config.short_edge, long_edge=config.long_edge, scale=config.scale
    )


def network_input(frame: Frame, config: AotConfig, device: str) -> Float[Tensor, "1 3 h w"]:
    """A frame as the encoder takes it."""
    image = resize_cubic(frame.image.to(device).float(), working_size_of(frame.hw, config)) / 255
    return imagenet_scaled(image)[None].contiguous(memory_format=torch.channels_last)
