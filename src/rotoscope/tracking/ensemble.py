"""Test-time augmentation: several passes over differently sized and mirrored copies of the frames, their probabilities averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.ops.aggregate import average
from rotoscope.types import FeatureStore, Frame, Masks, Propagator, Tracker


class EnsembleTracker:
    """Several trackers as one; `start` gives a pass that averages theirs.

    Args:
        trackers: for instance one model at several scales.
        mirrored: each also follows the mirrored clip.
        own_masks: each pass remembers its own result, as in AOT's official tests; otherwise all remember the average.
    """

    def __init__(self, trackers: Sequence[Tracker], *, mirrored: bool = False, own_masks: bool = True) -> None:
        if not trackers:
            message = "an ensemble of no trackers cannot follow anything; give one or more"
            raise InputError(message)
        self._members = [(tracker, flip) for tracker in trackers for flip in ((False, True) if mirrored else (False,))]
        self._own_masks = own_masks

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> "EnsemblePropagator":
        """A new pass; a budget is shared out evenly among the members. They see other pictures of a frame, so `features` is not for them."""
        del features
        share = None if max_memory_bytes is None else max(max_memory_bytes // len(self._members), 1)
        passes = [_Member(tracker.start(max_memory_bytes=share), flip) for tracker, flip in self._members]
        return EnsemblePropagator(passes, own_masks=self._own_masks)


@dataclass(frozen=True, slots=True)
class _Member:
    propagator: Propagator
    mirrored: bool

    def frame(self, frame: Frame) -> Frame:
        """The frame as this member sees it."""
        return Frame(frame.index, frame.image.flip(2), frame.time_seconds, frame.name) if self.mirrored else frame

    def masks(self, masks: Masks) -> Masks:
        """Masks from the frame to this member's view, or back."""
        return Masks(masks.probs.flip(2), masks.object_ids) if self.mirrored else masks


class EnsemblePropagator:
    """Several passes over one clip, as one."""

    def __init__(self, members: Sequence[_Member], *, own_masks: bool) -> None:
        self._members = members
        self._own_masks = own_masks
        self._predicted: tuple[int, list[Masks]] | None = None

    def predict(self, frame: Frame) -> Masks:
        """The mean of the members' masks."""
        own = [member.propagator.predict(member.frame(frame)) for member in self._members]
        self._predicted = frame.index, own
        probs = [member.masks(masks).probs for member, masks in zip(self._members, own, strict=True)]
        return Masks(average(probs), own[0].object_ids)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store the frame in every member: with these masks if they are given, and otherwise with what the member made of it itself."""
        own = self._predicted[1] if self._predicted is not None and self._predicted[0] == frame.index else None
        self._predicted = None
        for index, member in enumerate(self._members):
            remembered = own[index] if own is not None and self._own_masks and not given else member.masks(masks)
            member.propagator.remember(member.frame(frame), remembered, given=given)

    def state(self) -> dict[str, Tensor]:
        """What all members remember."""
        return {f"{index}.{name}": tensor for index, member in enumerate(self._members) for name, tensor in member.propagator.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Replace what all members remember by what `state` gave.

        Raises:
            InputError: the tensors are those of another ensemble.
        """
        self._predicted = None
        for index, member in enumerate(self._members):
            prefix = f"{index}."
            member.propagator.restore({name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)})
