"""One pass of RGMP over one clip: a reference of every object, and the soft masks of the frame before. It does not grow with the clip."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError, MaskError, MemoryBudgetError, PropagationError
from rotoscope.models.rgmp.config import RgmpConfig
from rotoscope.models.rgmp.network import STRIDE, RgmpNetwork
from rotoscope.ops.aggregate import aggregate
from rotoscope.ops.sizing import Border, border_to_multiple, resize_linear, scaled_size
from rotoscope.types import FeatureStore, Frame, Masks

_MERGED = 0
"""The id under which the merged foreground is remembered; objects count from 1."""

_PIXELS_AT_ONCE = 512 * 864
"""On the CPU more pixels in a batch cost memory and gain no time: one 480p pass at a time takes 9.7 CPU seconds for four, and four at once 10.3."""

Reference = tuple[Tensor, ...]
"""What is kept of an object's reference frame, for each scale."""


@dataclass(frozen=True, slots=True)
class _Predicted:
    """A prediction with its margin, which the next frame shall see if the masks are remembered as they were given out."""

    frame_index: int
    masks: Masks
    previous: Float[Tensor, "channels h w"]


class RgmpTracker:
    """RGMP with its weights; one may serve many clips and threads.

    Args:
        network: in evaluation mode, on its device.
        config: of the variant.
    """

    def __init__(self, network: RgmpNetwork, config: RgmpConfig) -> None:
        self.network = network
        self.config = config

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> "RgmpPropagator":
        """A new pass. What it remembers grows with the objects alone; `max_memory_bytes` refuses more of them than fit.

        Of a frame alone nothing is computed that `features` could keep: the encoder sees the masks too.
        """
        del features
        return RgmpPropagator(self.network, self.config, max_memory_bytes=max_memory_bytes)


class RgmpPropagator:
    """The state of one pass.

    The reference of an object is the newest frame for which its mask was given, and the first one in which it was seen if none was. The merged
    foreground takes the newest of these frames, with all the objects in it. An object that has had no pixels yet has no reference and no
    probability. Objects stay in the results once they are listed.

    Args:
        network: see `RgmpTracker`.
        config: see `RgmpTracker`.
        max_memory_bytes: budget of the references and the masks.
    """

    def __init__(self, network: RgmpNetwork, config: RgmpConfig, *, max_memory_bytes: int | None = None) -> None:
        if max_memory_bytes is not None and max_memory_bytes <= 0:
            message = f"a memory budget of {max_memory_bytes} bytes holds nothing; give a positive number"
            raise InputError(message)
        self._network = network
        self._config = config
        self._max_bytes = max_memory_bytes
        self._forget()

    def _forget(self) -> None:
        self._hw: tuple[int, int] | None = None
        self._ids: tuple[int, ...] = ()
        self._previous: Tensor | None = None
        self._references: dict[int, Reference] = {}
        self._predicted: _Predicted | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order of the results."""
        return self._ids

    @property
    def used_bytes(self) -> int:
        """The size of all that is remembered; it depends on the objects and the size of the frames, not on how many frames came before."""
        tensors = [tensor for reference in self._references.values() for tensor in reference]
        tensors += [] if self._previous is None else [self._previous]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.inference_mode()
    def predict(self, frame: Frame) -> Masks:
        """Masks of a frame, at its size, from what is remembered.

        Raises:
            PropagationError: nothing is remembered yet.
            InputError: the frame has another size than the remembered ones.
        """
        self._check_size(frame)
        if self._previous is None:
            message = f"frame {frame.index} cannot be predicted: no frame is remembered yet; remember one with its masks first"
            raise PropagationError(message)
        known = [object_id for object_id in self._ids if object_id in self._references]
        passes = [_MERGED, *known] if len(known) > 1 else known
        guesses = self._guesses(frame, passes, self._previous)
        probs, previous = self._joined(guesses, known, self._previous)
        masks = Masks(self._cropped(probs).clone(), self._ids)
        self._predicted = _Predicted(frame.index, masks, previous)
        return masks

    @torch.inference_mode()
    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store the masks of a frame as those of the frame before, and the frame as the reference of the objects whose masks are given.

        In a given frame, those objects count as given whose probabilities are all 0 or 1, and that have pixels.

        Raises:
            InputError: the frame has another size than the remembered ones.
            MaskError: the masks have another size than the frame.
            MemoryBudgetError: the references of so many objects do not fit the budget.
        """
        self._check_size(frame)
        if masks.hw != frame.hw:
            message = f"the masks of frame {frame.index} have {masks.hw} pixels but the frame has {frame.hw}; resize the masks first"
            raise MaskError(message)
        previous = self._as_predicted(frame, masks)
        masks = masks.select((*self._ids, *(object_id for object_id in masks.object_ids if object_id not in self._ids)))
        self._hw, self._ids, self._predicted = frame.hw, masks.object_ids, None
        self._previous = self._padded_masks(masks) if previous is None else previous
        self._refer(frame, [i for i, mask in zip(self._ids, masks.probs[1:], strict=True) if self._is_reference(i, mask, given=given)])
        if self._max_bytes is not None and self.used_bytes > self._max_bytes:
            needed, budget = self.used_bytes / 2**20, self._max_bytes / 2**20
            message = f"{len(self._ids)} objects need {needed:.1f} MB of memory, but the budget is {budget:.1f} MB; raise the budget or follow fewer"
            raise MemoryBudgetError(message)

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, as named tensors."""
        if self._previous is None or self._hw is None:
            return {}
        tensors = {f"reference.{i}.{scale}": tensor for i, reference in self._references.items() for scale, tensor in enumerate(reference)}
        tensors |= {"previous": self._previous, "hw": torch.tensor(self._hw), "object_ids": torch.tensor(self._ids, dtype=torch.int64)}
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Replace all that is remembered by what `state` gave.

        Raises:
            InputError: the tensors are not those of such a pass: of another model, or with other scales.
        """
        if not state:
            self._forget()
            return
        try:
            height, width = state["hw"].tolist()
            ids, previous = tuple(state["object_ids"].tolist()), state["previous"].to(self._device)
            referenced = {int(name.split(".")[1]) for name in state if name.startswith("reference.")}
            scales = range(len(self._config.scales))
            references = {i: tuple(state[f"reference.{i}.{scale}"].to(self._device) for scale in scales) for i in sorted(referenced)}
        except (KeyError, ValueError, IndexError) as error:
            message = f"this is not the state of a pass of {self._config.name} at these scales: {error} is missing or misnamed"
            raise InputError(message) from error
        if 1 + len(ids) != previous.shape[0] or sum(name.startswith("reference.") for name in state) != len(references) * len(scales):
            message = f"this is not the state of a pass of {self._config.name} at {len(scales)} scales; start the clip again without --resume"
            raise InputError(message)
        self._forget()
        self._hw, self._ids, self._previous, self._references = (height, width), ids, previous, references

    @property
    def _device(self) -> torch.device:
        return self._network.decoder.head_4.weight.device

    def _check_size(self, frame: Frame) -> None:
        if self._hw is not None and frame.hw != self._hw:
            (height, width), (old_height, old_width) = frame.hw, self._hw
            message = (
                f"frame {frame.index} is {width}x{height} but the clip started with {old_width}x{old_height}; cut the clip where the size changes"
            )
            raise InputError(message)

    def _as_predicted(self, frame: Frame, masks: Masks) -> Tensor | None:
        """The predicted masks of this frame with their margin, if these are they."""
        last = self._predicted
        if last is None or last.frame_index != frame.index or last.masks.object_ids != masks.object_ids:
            return None
        return last.previous if masks.probs is last.masks.probs or torch.equal(masks.probs, last.masks.probs) else None

    def _is_reference(self, object_id: int, mask: Float[Tensor, "h w"], *, given: bool) -> bool:
        if not bool((mask > 0.5).any()):
            return False  # nothing could be found again by it
        return object_id not in self._references or (given and bool(((mask == 0) | (mask == 1)).all()))

    def _refer(self, frame: Frame, object_ids: list[int]) -> None:
        """Take a frame as the reference of some objects, and of the merged foreground once there are several."""
        assert self._previous is not None
        if not object_ids:
            return
        channels = {object_id: 1 + self._ids.index(object_id) for object_id in object_ids}
        masks = [self._previous[channel] for channel in channels.values()]
        if len({*self._references, *object_ids} - {_MERGED}) > 1:
            channels, masks = {_MERGED: 0, **channels}, [1 - self._previous[0], *masks]
        image, sizes = self._padded_image(frame), self._sizes(frame.hw)
        per_scale = [self._related(resize_linear(image, size), resize_linear(torch.stack(masks)[:, None], size)[:, 0]) for size in sizes]
        for index, object_id in enumerate(channels):
            self._references[object_id] = tuple(related[index].clone() for related in per_scale)

    def _related(self, image: Float[Tensor, "1 3 h w"], masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n d h32 w32"]:
        image = image.contiguous(memory_format=torch.channels_last)
        at_once = self._at_once((masks.shape[1], masks.shape[2]))
        return torch.cat([self._network.relate(image, part) for part in torch.split(masks, at_once)])

    def _at_once(self, size: tuple[int, int]) -> int:
        """How many passes share a batch."""
        most = self._config.passes_at_once
        return min(most, max(1, _PIXELS_AT_ONCE // (size[0] * size[1]))) if self._device.type == "cpu" else most

    def _guesses(self, frame: Frame, passes: list[int], previous: Float[Tensor, "channels h w"]) -> Float[Tensor, "passes h w"]:
        """The mean over the scales of what the network says to each pass by itself, at the padded size."""
        hw = (previous.shape[1], previous.shape[2])
        total = previous.new_zeros((len(passes), *hw))
        if not passes:
            return total
        image = self._padded_image(frame)
        before = torch.stack([1 - previous[0] if i == _MERGED else previous[1 + self._ids.index(i)] for i in passes])
        for scale, size in enumerate(self._sizes(frame.hw)):
            resized = resize_linear(image, size).contiguous(memory_format=torch.channels_last)
            related = [self._references[i][scale] for i in passes]
            at_once = self._at_once(size)
            for start in range(0, len(passes), at_once):
                part = slice(start, start + at_once)
                masks = resize_linear(before[part, None], size)[:, 0]
                found = self._network.probabilities(resized, masks, torch.stack(related[part]))
                total[part] += resize_linear(found[:, None], hw)[:, 0]
        return total / len(self._config.scales)

    def _joined(self, guesses: Tensor, known: list[int], previous: Tensor) -> tuple[Float[Tensor, "channels h w"], Float[Tensor, "channels h w"]]:
        """The distribution over all channels, and what the next frame sees of this one."""
        probs = torch.zeros_like(previous)
        if len(known) < 2:
            probs[0] = 1 - guesses.sum(dim=0)
            for object_id, guess in zip(known, guesses, strict=True):
                probs[1 + self._ids.index(object_id)] = guess
            return probs, probs
        channels = [0, *(1 + self._ids.index(object_id) for object_id in known)]
        apart = torch.cat((1 - guesses[:1], guesses[1:]))
        probs[channels] = aggregate(apart, self._config.aggregation)
        if self._config.aggregation != "maximum":
            return probs, probs
        fed_back = torch.zeros_like(previous)
        fed_back[channels] = apart  # objects stay apart until the end of the clip
        return probs, fed_back

    def _sizes(self, hw: tuple[int, int]) -> list[tuple[int, int]]:
        """The size at each scale, all made from the padded one."""
        border = self._border(hw)
        padded = (hw[0] + border.top + border.bottom, hw[1] + border.left + border.right)
        return [scaled_size(padded, scale, multiple=STRIDE, always=self._config.always_pad) for scale in self._config.scales]

    def _border(self, hw: tuple[int, int]) -> Border:
        return border_to_multiple(hw, STRIDE, always=self._config.always_pad)

    def _padded_image(self, frame: Frame) -> Float[Tensor, "1 3 h w"]:
        return self._border(frame.hw).add(frame.image.to(self._device)[None] / 255)  # black, before the normalisation

    def _padded_masks(self, masks: Masks) -> Float[Tensor, "channels h w"]:
        padded = self._border(masks.hw).add(masks.probs.to(self._device, torch.float32))
        padded[0] = 1 - padded[1:].sum(dim=0)  # the margin is background
        return padded

    def _cropped(self, probs: Float[Tensor, "channels h w"]) -> Float[Tensor, "channels h0 w0"]:
        assert self._hw is not None
        return self._border(self._hw).cut(probs)
