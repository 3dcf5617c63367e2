"""One pass of MiVOS over one clip: which objects there are, what is remembered of them, and what the next frame holds."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError, MaskError, PropagationError
from rotoscope.memory import FrameCache
from rotoscope.models.mivos.memory import ClipMemory, Remembered
from rotoscope.models.mivos.network import KEY_CHANNELS, STRIDE, VALUE_CHANNELS, Picture, PropagationNetwork, sum_of_others
from rotoscope.ops.affinity import GaussianKernel, KeyValue, read_memory
from rotoscope.ops.aggregate import join_objects
from rotoscope.ops.color import imagenet_normalised
from rotoscope.ops.sizing import Border, border_to_multiple
from rotoscope.types import Change, FeatureStore, Frame, Masks


@dataclass(frozen=True, slots=True)
class MivosConfig:
    """How MiVOS reads and remembers; the defaults are the official ones.

    Attributes:
        top_k: how many memory cells have a say at each cell of a frame; None for all of them.
        memory_every: how far apart the predicted frames are that stay in memory (official: mem_freq).
        kernel_sigma: prefer memory that fits best nearby: a Gaussian of so many cells (official for YouTube-VOS and test-dev: 7); None for none.
        pixels_at_once: how many pixels, over all objects, share a pass through the network: four objects of 480p. More take more memory at a time.
        border: give and take masks with the border that pads a frame to multiples of 16, as the official code stores them between rounds.
        keep_replaced: official behaviour: if a frame is given twice, both masks stay in memory.
    """

    top_k: int | None = 50
    memory_every: int = 5
    kernel_sigma: float | None = None
    pixels_at_once: int = 4 * 480 * 864
    border: bool = False
    keep_replaced: bool = False

    def __post_init__(self) -> None:
        for name in ("top_k", "memory_every", "pixels_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                message = f"{name} {value} is not possible; give 1 or more"
                raise InputError(message)


@dataclass(frozen=True, slots=True)
class _Predicted:
    """The last result, and the same with its border."""

    masks: Masks
    whole: Masks


class MivosPropagator:
    """The state of one pass; see `rotoscope.types.Propagator`.

    An object is followed from the frame on where masks first speak of it, for the rest of the pass.

    Args:
        network: in evaluation mode, on its device.
        config: see there.
        max_memory_bytes: budget of the remembered frames.
        features: see `Tracker`.
    """

    def __init__(
        self, network: PropagationNetwork, config: MivosConfig, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None
    ) -> None:
        self._network = network
        self._config = config
        self._memory = ClipMemory(config.memory_every, max_bytes=max_memory_bytes, keep_replaced=config.keep_replaced)
        self._cache = FrameCache() if features is None else features
        self._ids: tuple[int, ...] = ()
        self._hw: tuple[int, int] | None = None
        self._predicted: _Predicted | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order in which they came."""
        return self._ids

    @property
    def remembered_frames(self) -> list[int]:
        """The frames in memory, in the order in which they came."""
        return self._memory.frame_indices

    @torch.inference_mode()
    def predict(self, frame: Frame) -> Masks:
        """Masks of a frame, from what is remembered; the memory stays as it is.

        Raises:
            PropagationError: nothing is remembered yet.
            InputError: the frame has another size than the remembered ones.
        """
        self._check_size(frame)
        if not len(self._memory):
            message = f"frame {frame.index} cannot be predicted: no frame is remembered yet; remember one with its masks first"
            raise PropagationError(message)
        border = border_to_multiple(frame.hw, STRIDE)
        whole = Masks(join_objects(self._alone(frame)), self._ids)
        masks = whole if self._config.border else Masks(border.cut(whole.probs), self._ids)
        self._predicted = _Predicted(masks, whole)
        return masks

    @torch.inference_mode()
    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store a frame with its masks: for ever if they are given, for long every so many frames, and until the next frame otherwise.

        Raises:
            InputError: the frame has another size than the remembered ones.
            MaskError: the masks have another size than the frame.
            MemoryBudgetError: the frames that must stay do not fit the budget.
        """
        self._check_size(frame)
        border = border_to_multiple(frame.hw, STRIDE)
        whole = self._with_border(frame, masks, border)
        ids = (*self._ids, *(object_id for object_id in whole.object_ids if object_id not in self._ids))
        probs = whole.select(ids).probs[1:].to(self._device)
        others, image = sum_of_others(probs), self._image(frame, border)
        parts: list[KeyValue] = []
        for batch in self._batches(len(ids), masks.hw):
            parts += self._network.memorise(image, probs[batch], others[batch])
        height, width = (side // STRIDE for side in image.shape[2:])
        keys = torch.stack([part.key for part in parts]) if parts else probs.new_zeros((0, height * width, KEY_CHANNELS))
        values = torch.stack([part.value for part in parts]) if parts else probs.new_zeros((0, height * width, VALUE_CHANNELS))
        self._memory.add(Remembered(frame.index, ids, keys, values), given=given)
        self._ids, self._hw = ids, frame.hw

    @torch.inference_mode()
    def carry(self, change: Change, frame: Frame) -> Float[Tensor, "n 2 h w"]:
        """Where the places that a correction changed are in another frame: for each object what was added, and what was taken away, in 0..1.

        Every cell of the frame takes the mean over the cells of the corrected frame, weighted by similarity (MiVOS, section 3.3.1).

        Raises:
            InputError: the corrected frame is not remembered as given.
        """
        corrected = self._memory.given_at(change.frame_index)
        if corrected is None:
            message = f"frame {change.frame_index} is not remembered with a given mask; remember it before its change is carried on"
            raise InputError(message)
        picture = self._picture(frame)
        canvas = tuple(side * STRIDE for side in picture.entry.shape[2:])
        border = border_to_multiple(frame.hw, STRIDE)
        maps = change.maps.to(self._device)
        maps = F.interpolate(maps if maps.shape[2:] == canvas else border.add(maps), size=picture.entry.shape[2:], mode="area")
        carried = torch.zeros_like(maps)
        for position, object_id in enumerate(change.object_ids):
            part = corrected.of(object_id)
            if part is not None:
                read = read_memory(picture.key, [KeyValue(part.key, maps[position].flatten(1).T)], top_k=None)
                carried[position] = read.T.reshape(2, *maps.shape[2:])
        enlarged = F.interpolate(carried, size=canvas, mode="bilinear", align_corners=False)
        return enlarged if self._config.border else border.cut(enlarged)

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, as named tensors."""
        height, width = self._hw or (0, 0)
        return self._memory.state() | {"object_ids": torch.tensor(self._ids, dtype=torch.int64), "hw": torch.tensor([height, width])}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Replace all that is remembered by what `state` gave.

        Raises:
            InputError: the tensors are not those of this kind of propagator.
        """
        self._memory.restore(state, self._device)
        try:
            height, width = state["hw"].tolist()
            self._ids = tuple(state["object_ids"].tolist())
        except KeyError as error:
            message = f"this is not the state of a pass of MiVOS: {error} is missing"
            raise InputError(message) from error
        self._hw = (height, width) if height else None
        self._predicted = None

    @property
    def _device(self) -> str:
        return str(self._network.decoder.classify.weight.device)

    def _alone(self, frame: Frame) -> Float[Tensor, "n h w"]:
        """The probability of each object by itself, with the border."""
        picture = self._picture(frame)
        height, width = (side * STRIDE for side in picture.entry.shape[2:])
        probs = [picture.key.new_zeros((0, height, width))]
        for batch in self._batches(len(self._ids), frame.hw):
            readouts = torch.stack([self._read(frame, picture, object_id) for object_id in self._ids[batch]])
            probs.append(self._network.segment(picture, readouts))
        return torch.cat(probs)

    def _read(self, frame: Frame, picture: Picture, object_id: int) -> Float[Tensor, "q v"]:
        config = self._config
        height, width = picture.entry.shape[2:]
        kernel = None if config.kernel_sigma is None else GaussianKernel(config.kernel_sigma, (height, width))
        return read_memory(picture.key, self._memory.serving(frame.index, object_id), top_k=config.top_k, kernel=kernel)

    def _batches(self, count: int, hw: tuple[int, int]) -> list[slice]:
        at_once = max(1, self._config.pixels_at_once // (hw[0] * hw[1]))
        return [slice(begin, min(begin + at_once, count)) for begin in range(0, count, at_once)]

    def _picture(self, frame: Frame) -> Picture:
        return self._cache.get(frame, lambda: self._network.see(self._image(frame, border_to_multiple(frame.hw, STRIDE))))

    def _image(self, frame: Frame, border: Border) -> Float[Tensor, "1 3 h w"]:
        image = border.add(imagenet_normalised(frame.image.to(self._device)))
        return image[None].contiguous(memory_format=torch.channels_last)

    def _with_border(self, frame: Frame, masks: Masks, border: Border) -> Masks:
        """The masks with the border: what was predicted there, or nothing if the masks are others than the last predicted."""
        if self._predicted is not None and masks is self._predicted.masks:
            return self._predicted.whole
        if masks.hw == frame.hw:
            return Masks(border.add(masks.probs), masks.object_ids)
        rows, columns = frame.hw[0] + border.top + border.bottom, frame.hw[1] + border.left + border.right
        if self._config.border and masks.hw == (rows, columns):
            return masks
        message = f"the masks of frame {frame.index} have {masks.hw} pixels but the frame has {frame.hw}; resize the masks first"
        raise MaskError(message)

    def _check_size(self, frame: Frame) -> None:
        if self._hw is not None and frame.hw != self._hw:
            (height, width), (old_height, old_width) = frame.hw, self._hw
            message = (
                f"frame {frame.index} is {width}x{height} but the clip started with {old_width}x{old_height}; cut the clip where the size changes"
            )
            raise InputError(message)
