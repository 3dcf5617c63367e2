"""What a round of correction needs around it: a propagator that knows the frames given before, and results that leave other objects alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rotoscope.errors import PropagationError
from rotoscope.memory import FrameCache
from rotoscope.types import ChangeCarrier, Frame, Masks, Propagator, Tracker

MOST_BEHIND = 4
"""How many given frames behind the corrected one a pass in travelling order is shown: each costs as much time as a frame of the pass."""


@dataclass(frozen=True, slots=True)
class GivenFrame:
    """A frame that a person gave, as the trackers see it.

    Attributes:
        index: its position.
        key: stands for the masks before objects were removed from them: the same key and ids, the same masks.
        masks: over the objects that are still there.
    """

    index: int
    key: str
    masks: Masks


class PassSource:
    """Propagators for the rounds of one clip.

    A tracker whose propagators carry changes (MiVOS) reads its memory as a set: one propagator serves all rounds, with all the given frames, and so
    keeps what it cached of the frames it visited. Other trackers read theirs as a past: each direction of a round is a fresh pass that comes
    from the given frames behind the corrected one.

    Args:
        tracker: makes the propagators.
        frames: the clip.
        max_memory_bytes: budget of each pass.
        feature_bytes: of the features of frames that all passes share.
    """

    def __init__(self, tracker: Tracker, frames: Sequence[Frame], *, max_memory_bytes: int | None = None, feature_bytes: int = 0) -> None:
        self._frames = frames
        features = FrameCache(max_bytes=feature_bytes)
        self._start: Callable[[], Propagator] = lambda: tracker.start(max_memory_bytes=max_memory_bytes, features=features)
        self._lasting: Propagator | None = None
        self._empty: dict[str, Tensor] = {}
        self._shown: list[GivenFrame] = []

    def for_round(self, corrected: GivenFrame, given: Sequence[GivenFrame]) -> Propagator:
        """A propagator for a round that starts at a given frame; `given` are all of them, in the order in which they were given."""
        others = [one for one in given if one.index != corrected.index]
        if self._lasting is None:
            fresh = self._start()
            if not isinstance(fresh, ChangeCarrier):
                return _TwoWays(self._start, others, self._frames)
            self._lasting, self._empty = fresh, fresh.state()
        self._show(self._lasting, others, corrected)
        return self._lasting

    def _show(self, propagator: Propagator, others: Sequence[GivenFrame], corrected: GivenFrame) -> None:
        """Bring the memory to exactly the other given frames; what it holds already is kept if it only needs additions."""
        stale = [one for one in self._shown if not any(_is_same(one, other) for other in others) and not _is_replaced(one, corrected)]
        if stale:
            self.forget()
        for one in others:
            if not any(_is_same(one, shown) for shown in self._shown):
                propagator.remember(self._frames[one.index], one.masks, given=True)
                self._shown.append(one)
        self._shown = [*(one for one in self._shown if one.index != corrected.index), corrected]  # the round will show it

    def forget(self) -> None:
        """Let the next round begin with an empty memory: the last one broke off in the middle, or failed."""
        if self._lasting is not None:
            self._lasting.restore(self._empty)
        self._shown = []

    def replace(self) -> None:
        """Let the next round begin with a fresh propagator: somebody may still be using the last one."""
        self._lasting = None
        self._shown = []


class _TwoWays:
    """A propagator for one round that walks each way in a pass of its own, from the given frames behind it; see `PassSource`."""

    def __init__(self, start: Callable[[], Propagator], others: Sequence[GivenFrame], frames: Sequence[Frame]) -> None:
        self._start = start
        self._others = others
        self._frames = frames
        self._corrected: tuple[Frame, Masks] | None = None
        self._pass: Propagator | None = None

    def predict(self, frame: Frame) -> Masks:
        """What the pass in the direction of the frame predicts.

        Raises:
            PropagationError: no corrected frame is remembered yet.
        """
        return self._towards(frame).predict(frame)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """The corrected frame first, then those of the pass."""
        if self._corrected is None:
            self._corrected = frame, masks
        else:
            self._towards(frame).remember(frame, masks, given=given)

    def state(self) -> dict[str, Tensor]:
        """Nothing: the corrected frame is all that lasts."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Back to where the ways part."""
        del state
        self._pass = None

    def _towards(self, frame: Frame) -> Propagator:
        if self._corrected is None:
            message = f"frame {frame.index} cannot be predicted before the corrected frame is remembered"
            raise PropagationError(message)
        if self._pass is None:
            origin, masks = self._corrected
            self._pass = self._start()
            behind = [one for one in self._others if (one.index < origin.index) == (origin.index < frame.index)]
            behind.sort(key=lambda one: abs(one.index - origin.index), reverse=True)
            for one in behind[-MOST_BEHIND:]:
                self._pass.remember(self._frames[one.index], one.masks, given=True)
            self._pass.remember(origin, masks, given=True)
        return self._pass


def _is_same(one: GivenFrame, other: GivenFrame) -> bool:
    return (one.index, one.key, one.masks.object_ids) == (other.index, other.key, other.masks.object_ids)


def _is_replaced(one: GivenFrame, corrected: GivenFrame) -> bool:
    """Whether remembering a corrected frame puts it in the place of what is remembered of it, with no object left over."""
    return one.index == corrected.index and set(one.masks.object_ids) <= set(corrected.masks.object_ids)


def with_others(newer: Masks, earlier: Masks | None) -> Masks:
    """The newer masks, and the earlier ones of objects that the newer do not list: a pass changes only the objects it knows."""
    others = [] if earlier is None else [object_id for object_id in earlier.object_ids if object_id not in newer.object_ids]
    if earlier is None or not others:
        return newer
    kept = earlier.select(others).probs[1:].to(newer.probs)
    left = (1 - kept.sum(dim=0, keepdim=True)).clamp(min=0)
    return Masks(torch.cat((newer.probs * left, kept)), (*newer.object_ids, *others))
