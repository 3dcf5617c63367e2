"""Stand-ins for the models of a session, fast and with known answers."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.types import Box, Clicks, Frame, Interaction, Masks, Scribble

HW, NUM_FRAMES = (24, 40), 9


def blank_clip(num_frames: int = NUM_FRAMES, hw: tuple[int, int] = HW) -> list[Frame]:
    """Frames that are told apart by their level of grey."""
    return [Frame(index, torch.full((3, *hw), index, dtype=torch.uint8)) for index in range(num_frames)]


class RepeatTracker:
    """Its passes predict what they last remembered, a little less sure each frame; it counts what it does."""

    def __init__(self) -> None:
        self.starts = 0
        self.remembered: list[tuple[int, bool]] = []

    def start(self, *, max_memory_bytes: int | None = None, features: object = None) -> "RepeatPass":
        del max_memory_bytes
        self.starts += 1
        return RepeatPass(self)


class RepeatPass:
    def __init__(self, tracker: RepeatTracker) -> None:
        self.tracker = tracker
        self.last: Masks | None = None

    def predict(self, frame: Frame) -> Masks:
        assert self.last is not None
        return Masks(0.97 * self.last.probs + 0.03 / len(self.last.probs), self.last.object_ids)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        self.tracker.remembered.append((frame.index, given))
        self.last = masks

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        del state


class DiscMaker:
    """Puts a disc on each positive click or line, fills boxes, and takes discs away around what is negative; the later stroke wins."""

    radius = 4.0

    def make(self, frame: Frame, interactions: Iterable[Interaction], current: Masks) -> Masks:
        ids = tuple(dict.fromkeys((*current.object_ids, *(one.object_id for one in interactions))))
        labels = current.select(ids).labels()
        for one in interactions:
            for inside, positive in self._shapes(one, frame.hw):
                labels[inside if positive else inside & (labels == one.object_id)] = one.object_id if positive else 0
        return Masks.from_labels(labels, ids)

    def _shapes(self, one: Interaction, hw: tuple[int, int]) -> list[tuple[Tensor, bool]]:
        rows, columns = torch.meshgrid(torch.arange(hw[0]), torch.arange(hw[1]), indexing="ij")
        if isinstance(one, Box):
            x0, y0, x1, y1 = one.xyxy.tolist()
            return [((columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1), True)]
        assert isinstance(one, Clicks | Scribble)
        points = one.points if isinstance(one, Clicks) else one.path
        signs = one.positive.tolist() if isinstance(one, Clicks) else [one.positive] * len(points)
        return [((columns - x) ** 2 + (rows - y) ** 2 <= self.radius**2, sign) for (x, y), sign in zip(points.tolist(), signs, strict=True)]


def open_session(**settings: Any) -> InteractiveSession:
    """A session about the blank clip with both stand-ins."""
    return InteractiveSession(settings.pop("frames", None) or blank_clip(), RepeatTracker(), mask_maker=DiscMaker(), **settings)


def picture_of(session: InteractiveSession) -> tuple[object, ...]:
    """All that a session shows, bit for bit."""
    masks = [session.masks(index) for index in range(session.num_frames)]
    shown = [(one.object_ids, one.probs.numpy().tobytes()) for one in masks]
    return repr(session._project.state), shown, session.objects, session.given_frames, session.pending_frames
