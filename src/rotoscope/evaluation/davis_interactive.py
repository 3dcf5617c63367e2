"""The interactive track of DAVIS: a session is given lines, then, round by round, lines where it is most wrong; how good is it by when?

Protocol (Caelles et al., arXiv:1803.00557; https://interactive.davischallenge.org): at most 8 interactions with each clip and start, and 8 x 30 s
for each object. Only the session's own time counts, from the lines to the last mask. Every frame is scored, the first and the last too. A result
after the budget does not count; missing interactions count as the last one, at no cost. `robot` draws, `interactive_report` makes the curve.
"""

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.davis import AnnotatedClip, read_label_map
from rotoscope.datasets.davis_scribbles import Line, read_scribbles, to_scribbles
from rotoscope.errors import InputError
from rotoscope.evaluation.davis import score_frame
from rotoscope.evaluation.robot import draw_corrections, first_lines, frames_by_need
from rotoscope.evaluation.run import first_masks
from rotoscope.tracking.rounds import ends_turn
from rotoscope.types import Frame, Interaction, Masks, Scribble

MOST_INTERACTIONS = 8
"""With a clip, from one start (the challenge's)."""
SECONDS_PER_INTERACTION = 30.0
"""For each object (the challenge's)."""


class Session(Protocol):
    """What is evaluated: interactive work on one clip."""

    def interact(self, frame_index: int, scribbles: Sequence[Scribble], *, carry_on: bool) -> Iterable[tuple[int, Masks]]:
        """The frames that change, with their masks, as they are made; the lines are the new ones only, and may be none.

        With `carry_on` False only this frame needs an answer: more lines for it follow.
        """
        ...

    def close(self) -> None:
        """The sample is over."""
        ...


SessionMaker = Callable[[AnnotatedClip, tuple[int, ...]], Session]
"""Begins a session on a clip with these objects, nothing drawn yet."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long the game goes.

    Attributes:
        interactions: at most so many with a clip, from one start.
        seconds_per_object: the budget of all of them, for each object.
        per_frame: so many follow each other on one frame, and only the last of them is carried on to the clip (MiVOS: 3).
    """

    interactions: int = MOST_INTERACTIONS
    seconds_per_object: float = MOST_INTERACTIONS * SECONDS_PER_INTERACTION
    per_frame: int = 1

    def __post_init__(self) -> None:
        if self.interactions < 1 or self.per_frame < 1 or not self.seconds_per_object > 0:
            message = f"{self} cannot be played; each number must be above 0"
            raise InputError(message)


@dataclass(frozen=True, slots=True)
class Start:
    """A clip with what a person draws first.

    Attributes:
        clip: with frames.
        name: of the scribble file, or "robot-0", "robot-1", ...
        lines: on one frame, or more.
    """

    clip: AnnotatedClip
    name: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """The annotations of a clip: a map of ids for each frame, void (255) as it is, and the objects of the first of them."""

    labels: tuple[NDArray[Any], ...]
    object_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """An interaction, and how good all frames were after it.

    Attributes:
        frames: what it was about; one but for a start with lines on several.
        lines: what was drawn.
        seconds: that the session took.
        j: the mean J over the frames, for each object.
        f: the mean F, likewise.
    """

    frames: tuple[int, ...]
    lines: tuple[Line, ...]
    seconds: float
    j: tuple[float, ...]
    f: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """All rounds with a clip from one start.

    Attributes:
        clip: its name.
        start: the start's name.
        num_frames: of the clip.
        object_ids: in the order of the figures of each round.
        budget_seconds: for all rounds.
        rounds: those that ended within the budget; fewer than the rules allow if time ran out, or nothing was left to be drawn.
        timed_out: whether time ran out.
    """

    clip: str
    start: str
    num_frames: int
    object_ids: tuple[int, ...]
    budget_seconds: float
    rounds: tuple[Round, ...]
    timed_out: bool = False


def read_truth(clip: AnnotatedClip) -> Truth:
    """The annotations of a clip, by its convention.

    Raises:
        MaskError: one of them cannot be read.
        InputError: they differ in size.
    """
    labels = [read_label_map(path) for path in clip.annotation_paths]
    for path, one in zip(clip.annotation_paths, labels, strict=True):
        if one.shape != labels[0].shape:
            message = f"clip '{clip.name}': {path} has {one.shape} pixels but the first annotation {labels[0].shape}; annotations must be of one size"
            raise InputError(message)
    return Truth(tuple((one != 0).astype(np.uint8) if clip.merged else one for one in labels), first_masks(clip).object_ids)


def find_starts(clips: Sequence[AnnotatedClip], scribbles: Path | None, *, num_drawn: int = 1, seed: int = 0) -> list[Start]:
    """What each clip starts from: the files `scribbles/CLIP/*.json`, or without that folder lines that the robot draws.

    Args:
        clips: with frames.
        scribbles: a folder like DAVIS's `Scribbles`.
        num_drawn: how many starts the robot draws for each clip.
        seed: chooses the frames that the robot draws on.

    Raises:
        InputError: a clip has no file, or a file does not fit its clip; the message says which.
    """
    if scribbles is None:
        return [
            Start(clip, f"robot-{number}", tuple(first_lines(truth.labels, truth.object_ids, seed=seed + number)))
            for clip, truth in ((clip, read_truth(clip)) for clip in clips)
            for number in range(num_drawn)
        ]
    files = {clip.name: sorted((scribbles / clip.name).glob("*.json")) for clip in clips}
    without = [name for name, paths in files.items() if not paths]
    if without:
        message = f"{scribbles} has no scribbles (CLIP/001.json) for {', '.join(without)}; choose clips with --clips, or let the robot start"
        raise InputError(message)
    return [Start(clip, path.stem, _fitting_lines(path, clip)) for clip in clips for path in files[clip.name]]


def play(start: Start, begin: SessionMaker, rules: Rules, *, clock: Callable[[], float] = time.perf_counter) -> Generator[Sample]:
    """The sample as it grows: after each round, and once more if the time runs out. Stop iterating to stop.

    It ends early when nothing is left that a line could be drawn through. A round that goes over the budget is cut off.

    Args:
        start: the clip, and the first lines.
        begin: makes the session.
        rules: how many rounds there are.
        clock: seconds.

    Raises:
        InputError: annotations differ in size, or the session answers in another size.
    """
    truth = read_truth(start.clip)
    with closing(begin(start.clip, truth.object_ids)) as session:
        yield from _rounds(start, session, truth, rules, clock)


def _rounds(start: Start, session: Session, truth: Truth, rules: Rules, clock: Callable[[], float]) -> Generator[Sample]:
    board = _Board(truth)
    left = rules.seconds_per_object * len(truth.object_ids)
    sample = Sample(start.clip.name, start.name, len(truth.labels), truth.object_ids, left, ())
    drawn, on_frames = list(start.lines), list(dict.fromkeys(line.frame_index for line in start.lines))
    for number in range(1, rules.interactions + 1):
        carry_on = ends_turn(number, per_frame=rules.per_frame, most=rules.interactions)
        begun = clock()
        answers = _until(left, _answers(session, truth, drawn, on_frames, carry_on=carry_on), clock)
        seconds = clock() - begun
        if answers is None or seconds > left:
            yield replace(sample, timed_out=True)
            return
        left -= seconds
        board.take(answers)
        sample = replace(sample, rounds=(*sample.rounds, Round(tuple(on_frames), tuple(drawn), seconds, *board.means())))
        yield sample
        on_frames, drawn = board.worst_lines() if carry_on else (on_frames[-1:], board.lines_on(on_frames[-1]))
        if not on_frames:
            return


class Step(Protocol):
    """One frame that was reached."""

    @property
    def frame(self) -> Frame:
        """Which."""
        ...

    @property
    def masks(self) -> Masks:
        """Its masks."""
        ...


class Verbs(Protocol):
    """What an interactive session of the package can do, as far as it matters here."""

    @property
    def pending_frames(self) -> list[int]:
        """The frames that were given and not carried on yet."""
        ...

    def masks(self, frame_index: int) -> Masks:
        """The masks of a frame as they are now."""
        ...

    def interact(self, *interactions: Interaction) -> Masks:
        """The masks of a frame after strokes on it."""
        ...

    def propagate(self) -> Generator[Step]:
        """Carries given masks to the other frames."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


class DrivenSession:
    """A session that drives the one that people work with.

    A line that says where an object is not is left out while there is nothing of the object on the frame: a person would not draw it.
    """

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def interact(self, frame_index: int, scribbles: Sequence[Scribble], *, carry_on: bool) -> Generator[tuple[int, Masks]]:
        """See `Session`."""
        masks = self._verbs.masks(frame_index)
        there = {one.object_id for one in scribbles if one.positive} | set(np.unique(masks.labels().cpu().numpy()).tolist())
        if strokes := [one for one in scribbles if one.object_id in there]:
            masks = self._verbs.interact(*strokes)
        yield frame_index, masks
        if carry_on and self._verbs.pending_frames:
            for step in self._verbs.propagate():
                yield step.frame.index, step.masks

    def close(self) -> None:
        """See `Session`."""
        self._verbs.close()


def _answers(
    session: Session, truth: Truth, lines: Sequence[Line], on_frames: Iterable[int], *, carry_on: bool
) -> Generator[tuple[int, NDArray[Any]]]:
    """The labels of the frames that change when the lines on some frames are given to a session."""
    for index in on_frames:
        scribbles = to_scribbles([line for line in lines if line.frame_index == index], truth.object_ids, truth.labels[0].shape)
        for frame_index, masks in session.interact(index, scribbles, carry_on=carry_on):
            yield frame_index, masks.labels().cpu().numpy()


def _until(seconds: float, answers: Generator[tuple[int, NDArray[Any]]], clock: Callable[[], float]) -> dict[int, NDArray[Any]] | None:
    """The answers by frame, the last for each; None, and the session is stopped, if they take longer."""
    begun, taken = clock(), {}
    with closing(answers):
        for index, labels in answers:
            if clock() - begun > seconds:
                return None
            taken[index] = labels
    return taken


class _Board:
    """What is predicted for each frame so far, and its scores; at first nothing is."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._predicted: list[NDArray[Any]] = [np.zeros_like(labels) for labels in truth.labels]
        self._scores = np.array([self._score(index) for index in range(len(truth.labels))])  # [frames, objects, J and F]
        self._had: list[int] = []

    def take(self, answers: dict[int, NDArray[Any]]) -> None:
        """Put new labels in the place of older ones."""
        for index, labels in answers.items():
            if labels.shape != self._truth.labels[index].shape:
                message = f"the session gave {labels.shape} pixels for frame {index}, which has {self._truth.labels[index].shape}"
                raise InputError(message)
            self._predicted[index] = labels
            self._scores[index] = self._score(index)

    def means(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """J and F of each object, over the frames."""
        j, f = self._scores.mean(axis=0).T.tolist()
        return tuple(j), tuple(f)

    def lines_on(self, index: int) -> list[Line]:
        """Lines through what is wrong in a frame, which has then been had; possibly none."""
        self._had.append(index)
        return draw_corrections(self._truth.labels[index], self._predicted[index], self._truth.object_ids, index)

    def worst_lines(self) -> tuple[list[int], list[Line]]:
        """The worst frame that any line can be drawn on, with its lines; nothing if there is no such frame."""
        for index in frames_by_need(self._scores.mean(axis=2), self._had):
            if lines := self.lines_on(index):
                return [index], lines
        return [], []

    def _score(self, index: int) -> list[tuple[float, float]]:
        return score_frame(self._truth.labels[index], self._predicted[index], self._truth.object_ids)


def _fitting_lines(path: Path, clip: AnnotatedClip) -> tuple[Line, ...]:
    """The lines of a file, if the clip has their frames and objects; where objects are merged, all their lines are of object 1."""
    lines = read_scribbles(path).lines
    if clip.merged:
        lines = tuple(replace(line, object_id=min(line.object_id, 1)) for line in lines)
    frames = sorted({line.frame_index for line in lines if line.frame_index >= len(clip.annotation_paths)})
    strangers = sorted({line.object_id for line in lines} - {0, *first_masks(clip).object_ids})
    if frames or strangers or not lines:
        wrong = f"frames {frames}" if frames else f"objects {strangers}"
        wrong = f"draws on {wrong}, which clip '{clip.name}' does not have" if lines else "holds no lines"
        message = f"{path} {wrong}; take the scribbles and the clip from the same DAVIS"
        raise InputError(message)
    return lines
