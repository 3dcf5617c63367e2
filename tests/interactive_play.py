"""Clips and stand-in sessions for the tests of interactive evaluation: each knows the truth, and uses a part of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from davis_roots import labels_of, write_root
from numpy.typing import NDArray

from rotoscope.datasets.davis import AnnotatedClip, read_davis
from rotoscope.evaluation.davis_interactive import Rules, Sample, Start, find_starts, play, read_truth
from rotoscope.types import Frame, Masks, Scribble

HW, NUM_FRAMES = (32, 44), 6


def moving_frames() -> list[NDArray[np.uint8]]:
    """Object 1 goes right; object 3 is smaller, and gone in the last frame."""
    first = [(1, (slice(4, 16), slice(2 + 2 * index, 14 + 2 * index))) for index in range(NUM_FRAMES)]
    second = (3, (slice(20, 28), slice(24, 34)))
    return [labels_of(one, *([second] if index < NUM_FRAMES - 1 else []), hw=HW) for index, one in enumerate(first)]


def moving_clips(folder: Path, *names: str) -> list[AnnotatedClip]:
    root = write_root(folder / "davis", {name: moving_frames() for name in names or ("cat",)})
    return read_davis(root, with_frames=True)


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Learner:
    """A session that copies `spread` frames of the truth on either side of the one it is asked about, and takes `seconds` for each."""

    clip: AnnotatedClip
    object_ids: tuple[int, ...]
    spread: int = NUM_FRAMES
    clock: Clock = field(default_factory=Clock)
    seconds: float = 0.0
    asked: list[tuple[int, int, bool]] = field(default_factory=list)
    is_closed: bool = False

    def interact(self, frame_index: int, scribbles: Sequence[Scribble], *, carry_on: bool) -> Iterator[tuple[int, Masks]]:
        self.asked.append((frame_index, len(scribbles), carry_on))
        truth = read_truth(self.clip).labels
        reach = self.spread if carry_on else 0
        for index in range(max(frame_index - reach, 0), min(frame_index + reach, NUM_FRAMES - 1) + 1):
            self.clock.now += self.seconds
            yield index, Masks.from_labels(torch.from_numpy(truth[index].copy()), self.object_ids)

    def close(self) -> None:
        self.is_closed = True


def learnt(start: Start, rules: Rules, **settings: object) -> tuple[Sample, Learner]:
    """The finished sample of a learner, and the learner."""
    sessions: list[Learner] = []
    clock = Clock()

    def begin(clip: AnnotatedClip, object_ids: tuple[int, ...]) -> Learner:
        sessions.append(Learner(clip, object_ids, clock=clock, **settings))
        return sessions[0]

    *_, last = play(start, begin, rules, clock=clock)
    return last, sessions[0]


GOLDEN_RULES = Rules(interactions=4)


def golden_samples(folder: Path) -> list[Sample]:
    """Two samples that need several rounds, one of which runs out of time; the seconds are made up, so that all figures are fixed."""
    starts = find_starts(moving_clips(folder), None, num_drawn=2, seed=1)
    return [learnt(starts[0], GOLDEN_RULES, spread=1, seconds=8.0)[0], learnt(starts[1], GOLDEN_RULES, spread=0, seconds=180.0)[0]]


def rounded(value: object) -> object:
    """A JSON value with its figures to nine places."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 9) + 0.0 if isinstance(value, float) else value


class BoxMaker:
    """Makes each object the rectangle around its lines, widened; off lines are cut out of it, as rectangles too."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def make(self, frame: Frame, interactions: Sequence[Scribble], current: Masks) -> Masks:
        self.calls.append((frame.index, len(interactions)))
        labels = current.labels().clone()
        for one in interactions:
            (x0, y0), (x1, y1) = one.path.amin(dim=0).int().tolist(), one.path.amax(dim=0).int().tolist()
            region = labels[max(y0 - 3, 0) : y1 + 4, max(x0 - 3, 0) : x1 + 4]
            region[(region == one.object_id) | torch.tensor(one.positive)] = one.object_id if one.positive else 0
        return Masks.from_labels(labels, current.object_ids)
