"""The nouns and verbs that all parts of Rotoscope share: frames, masks, interactions, and what a model can do with them.

Axes are always `[channels, height, width]`; points are `(x, y)` and boxes `(x0, y0, x1, y1)`, in pixels of the original frame.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Int32, UInt8
from torch import Tensor

from rotoscope.errors import InputError, MaskError

Entry = TypeVar("Entry")

MAX_OBJECT_ID = 65535
"""The largest object id: what a 16-bit PNG can hold."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a clip, as it was decoded: RGB, original size, never normalised.

    Attributes:
        index: position in the clip, from 0.
        image: RGB bytes, on the CPU.
        time_seconds: presentation time from the start of the clip; None where the source has no clock (folders of images).
        name: the source file's name without its suffix, for folders of images; empty otherwise.
    """

    index: int
    image: UInt8[Tensor, "3 h w"]
    time_seconds: float | None = None
    name: str = ""

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(frozen=True, slots=True)
class Masks:
    """What each pixel of a frame belongs to: a distribution over the background and the objects.

    Attributes:
        probs: probabilities that sum to 1 over the channels; channel 0 is the background and channel i + 1 is `object_ids[i]`.
        object_ids: distinct integers in 1..65535, stable over the clip. An id may have no pixels: the object is then known to be out of sight.
        scores: for each object the overlap with the truth (intersection over union, 0..1) that is to be expected of its mask; None where whoever
            made the masks cannot tell.

    Raises:
        MaskError: the number of channels or of scores and that of ids disagree, or an id is out of range or listed twice.
    """

    probs: Float[Tensor, "channels h w"]
    object_ids: tuple[int, ...]
    scores: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_object_ids(self.object_ids)
        if self.probs.shape[0] != 1 + len(self.object_ids):
            message = f"{self.probs.shape[0]} mask channels for {len(self.object_ids)} objects; there must be one more, for the background"
            raise MaskError(message)
        if self.scores is not None and len(self.scores) != len(self.object_ids):
            message = f"{len(self.scores)} scores for {len(self.object_ids)} objects; there must be one for each"
            raise MaskError(message)

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.probs.shape[1], self.probs.shape[2]

    @classmethod
    def from_labels(cls, labels: Int[Tensor, "h w"] | UInt8[Tensor, "h w"], object_ids: Iterable[int] | None = None) -> "Masks":
        """Certain masks from a map of object ids, 0 being the background.

        Args:
            labels: an object id, or 0, for each pixel.
            object_ids: which objects are spoken of, in channel order; those with no pixels are declared absent.
                By default the ids that occur, ascending.

        Raises:
            MaskError: the map holds an id that `object_ids` does not list, or one out of range.
        """
        present = [int(value) for value in torch.unique(labels).tolist() if value != 0]
        ids = tuple(present if object_ids is None else object_ids)
        check_object_ids(ids)
        unlisted = sorted(set(present) - set(ids))
        if unlisted:
            message = f"the mask holds object ids {unlisted}, which are not among the objects listed {list(ids)}"
            raise MaskError(message)
        channels = torch.tensor((0, *ids), dtype=torch.int64, device=labels.device)
        return Masks((labels.to(torch.int64)[None] == channels[:, None, None]).to(torch.float32), ids)

    def labels(self) -> Int32[Tensor, "h w"]:
        """The most probable id of each pixel, 0 for the background; ties go to the lower channel."""
        channel_to_id = torch.tensor((0, *self.object_ids), dtype=torch.int32, device=self.probs.device)
        return channel_to_id[self.probs.max(dim=0).indices]  # ten times as fast as argmax on a CPU, and as sure of the lower channel

    def confidence(self) -> tuple[float, ...]:
        """For each object its score where there are scores, otherwise the mean probability over the pixels it wins; in 0..1, 0 without pixels."""
        if self.scores is not None:
            return self.scores
        best, channel = self.probs.max(dim=0)
        counts = torch.bincount(channel.flatten(), minlength=self.probs.shape[0])
        sums = torch.bincount(channel.flatten(), weights=best.flatten().double(), minlength=self.probs.shape[0])
        return tuple((sums / counts.clamp(min=1))[1:].tolist())

    def select(self, object_ids: Iterable[int]) -> "Masks":
        """The same masks over another list of objects: reordered, and with empty channels for ids that are new here.

        Objects that are left out give their probability to the background.
        """
        ids = tuple(object_ids)
        probs = self.probs.new_zeros((1 + len(ids), *self.hw))
        channel_of = {object_id: channel for channel, object_id in enumerate(self.object_ids, start=1)}
        for channel, object_id in enumerate(ids, start=1):
            if object_id in channel_of:
                probs[channel] = self.probs[channel_of[object_id]]
        probs[0] = self.probs[0]
        for object_id in set(self.object_ids) - set(ids):
            probs[0] += self.probs[channel_of[object_id]]
        scores = None if self.scores is None else tuple(self.scores[channel_of[i] - 1] if i in channel_of else 0.0 for i in ids)
        return Masks(probs, ids, scores)


def check_object_ids(object_ids: Iterable[int]) -> None:
    """Refuse ids that are out of range or listed twice.

    Raises:
        MaskError: names the ids at fault.
    """
    ids = list(object_ids)
    wrong = [object_id for object_id in ids if not 1 <= object_id <= MAX_OBJECT_ID]
    if wrong:
        message = f"object ids {wrong} are out of range; ids are integers from 1 to {MAX_OBJECT_ID}"
        raise MaskError(message)
    if len(set(ids)) != len(ids):
        message = f"object ids {ids} hold a number twice; each object has an id of its own"
        raise MaskError(message)


@dataclass(frozen=True, slots=True)
class Detections:
    """The objects found in one frame, best score first; possibly none.

    Attributes:
        boxes: `(x0, y0, x1, y1)` in pixels, within the frame.
        scores: confidence in 0..1.
        class_ids: index into the detector's list of classes.
        masks: one mask per object, at the size of the frame.
        mask_scores: confidence in the masks, in 0..1: the score times the overlap with the truth that is to be expected of the mask; None where
            the detector cannot judge its masks. To rank masks use these, to rank boxes the scores.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]
    class_ids: Int[Tensor, "n"]
    masks: Bool[Tensor, "n h w"]
    mask_scores: Float[Tensor, "n"] | None = None


@dataclass(frozen=True, slots=True)
class Clicks:
    """Points on (positive) and off (negative) an object: `points` are (x, y) in pixels."""

    frame_index: int
    object_id: int
    points: Float[Tensor, "n 2"]
    positive: Bool[Tensor, "n"]

    def __post_init__(self) -> None:
        _check_interaction(self.frame_index, self.object_id, self.points)


@dataclass(frozen=True, slots=True)
class Scribble:
    """A free-hand line through an object (or, with `positive` False, through what is not the object)."""

    frame_index: int
    object_id: int
    path: Float[Tensor, "n 2"]
    positive: bool = True
    width_pixels: float = 3.0

    def __post_init__(self) -> None:
        _check_interaction(self.frame_index, self.object_id, self.path)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle around an object: `xyxy` are two corners, in pixels."""

    frame_index: int
    object_id: int
    xyxy: Float[Tensor, "4"]

    def __post_init__(self) -> None:
        _check_interaction(self.frame_index, self.object_id, self.xyxy)
        x0, y0, x1, y1 = self.xyxy.tolist()
        if x1 <= x0 or y1 <= y0:
            message = f"box {x0:g},{y0:g},{x1:g},{y1:g} is empty; give x0,y0,x1,y1 with x0 < x1 and y0 < y1"
            raise InputError(message)


@dataclass(frozen=True, slots=True)
class Painted:
    """The pixels of one object, painted by hand; they replace what was there of it."""

    frame_index: int
    object_id: int
    mask: Bool[Tensor, "h w"]

    def __post_init__(self) -> None:
        _check_interaction(self.frame_index, self.object_id, None)


Interaction = Clicks | Scribble | Box | Painted
"""Anything a person does to a frame to say where an object is."""


def _check_interaction(frame_index: int, object_id: int, points: Tensor | None) -> None:
    check_object_ids([object_id])
    if frame_index < 0:
        message = f"frame {frame_index} does not exist; frames are counted from 0"
        raise InputError(message)
    if points is not None and (points.numel() == 0 or not bool(torch.isfinite(points).all())):
        message = f"the points on frame {frame_index} for object {object_id} are empty or not finite numbers"
        raise InputError(message)


@runtime_checkable
class Propagator(Protocol):
    """The state of one pass over one clip: what it remembers, and what it makes of the next frame."""

    def predict(self, frame: Frame) -> Masks:
        """Masks of a frame, at its size, from what is remembered. Reads the memory and leaves it as it is.

        Raises:
            PropagationError: nothing is remembered yet.
        """
        ...

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store a frame with its masks. `given` masks come from a person or from ground truth and are never dropped."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, as named tensors: enough for `restore` to go on with identical results."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Replace all that is remembered by what `state` gave.

        Raises:
            InputError: the tensors are not those of this kind of propagator.
        """
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """What a correction changed in the masks of a frame.

    Attributes:
        frame_index: of the corrected frame.
        object_ids: one for each pair of maps.
        maps: how much of each pixel was added to the object (first) and taken from it (second), in 0..1.
    """

    frame_index: int
    object_ids: tuple[int, ...]
    maps: Float[Tensor, "n 2 h w"]

    @classmethod
    def between(cls, frame_index: int, before: Masks | None, after: Masks) -> "Change":
        """The change from earlier masks, or from none, to those of a correction, for the objects of the latter."""
        difference = after.probs[1:]
        if before is not None:
            difference = difference - before.select(after.object_ids).probs[1:].to(difference)
        return Change(frame_index, after.object_ids, torch.stack((difference.clamp(0, 1), (-difference).clamp(0, 1)), dim=1))


@runtime_checkable
class ChangeCarrier(Protocol):
    """A propagator that can also say where the places that a correction changed are in another frame."""

    def carry(self, change: Change, frame: Frame) -> Float[Tensor, "n 2 h w"]:
        """The maps of the change as they would be on a frame, at the size of its masks. The corrected frame is remembered as given."""
        ...


@runtime_checkable
class FeatureStore(Protocol):
    """Keeps what a tracker computes of the frames alone, whatever their objects; see `rotoscope.memory.FrameCache`."""

    def get(self, frame: Frame, compute: Callable[[], Entry]) -> Entry:
        """What was computed of this frame before, or else is now."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """A model with its weights, ready to follow objects; one may serve many clips and threads."""

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> Propagator:
        """A new pass.

        Args:
            max_memory_bytes: the remembered frames stay within that many bytes; given frames always stay.
            features: keeps features of frames for other passes of the same tracker over the same clip; by default a pass keeps the last few.
        """
        ...


@runtime_checkable
class Detector(Protocol):
    """A model that finds objects without being told where they are."""

    def detect(self, frame: Frame) -> Detections:
        """The objects of a frame, best first; possibly none."""
        ...


@runtime_checkable
class MaskMaker(Protocol):
    """A model that turns interactions into masks; it keeps nothing between calls."""

    def make(self, frame: Frame, interactions: Iterable[Interaction], current: Masks) -> Masks:
        """Masks of the frame that respect the interactions, starting from the current ones."""
        ...


@runtime_checkable
class Fuser(Protocol):
    """A model that joins an earlier result with a newer one."""

    def fuse(self, frame: Frame, earlier: Masks, newer: Masks, *, nearness: float, change: Float[Tensor, "n 2 h w"] | None = None) -> Masks:
        """The fused masks, over the objects of the newer ones. An object that the earlier masks do not list stays as the newer ones have it.

        Args:
            frame: that all is about.
            earlier: result of an earlier round.
            newer: result of this round.
            nearness: how near the frame is to the newer interaction, in 0..1 (1 = on it).
            change: what the newer interaction changed, carried to this frame (`ChangeCarrier`), for each object of the newer masks; None where
                the tracker cannot tell.
        """
        ...
