"""What a person may ask of a project, as values: read and checked before anything is done, then done one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch

from rotoscope.datasets.davis_scribbles import Line, read_scribbles, to_scribbles
from rotoscope.errors import InputError
from rotoscope.jobs.project.folder import steps_of
from rotoscope.tracking.edits import Strokes, brush_pixels, check_places, checked_region
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.types import Box, Clicks, Painted, Scribble, check_object_ids
from rotoscope.video.masks import read_label_folder, read_labels
from rotoscope.video.read import Clip

RegionBox = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Clicks, boxes and lines on one frame, done as one step; `region` is local control."""

    strokes: tuple[Clicks | Box | Scribble, ...]
    region: RegionBox | None = None

    @property
    def frame_index(self) -> int:
        """The frame of them all."""
        return self.strokes[0].frame_index


@dataclass(frozen=True, slots=True)
class LineFile:
    """Lines from a file of DAVIS interactive; those through the background run off the objects that are on their frame."""

    path: Path
    region: RegionBox | None = None


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A painted mask, or a folder of them named like the frames of the clip.

    Attributes:
        path: the file or folder.
        frame_index: the frame of a file.
        object_id: whose mask it is if it holds one object; None, and several objects, keep the ids of the file.
        region: nothing outside it changes.
    """

    path: Path
    frame_index: int
    object_id: int | None = None
    region: RegionBox | None = None


@dataclass(frozen=True, slots=True)
class Brushed:
    """A round brush, or with `erases` a rubber, along a line through points (x, y)."""

    frame_index: int
    object_id: int
    path: tuple[tuple[float, float], ...]
    radius_pixels: float
    erases: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """An object is not in sight on a frame."""

    frame_index: int
    object_id: int


@dataclass(frozen=True, slots=True)
class Rewind:
    """So many steps undone, or done again."""

    kind: Literal["undo", "redo"]
    count: int = 1


@dataclass(frozen=True, slots=True)
class Rename:
    """An object gets another name."""

    object_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Remove:
    """An object is taken out of all frames."""

    object_id: int


Drawn = Marked | LineFile | MaskFile | Brushed | Absent
"""What is done to a frame."""
Correction = Drawn | Rewind | Rename | Remove


def needs_maker(correction: Correction) -> bool:
    """Whether a model must make masks of it."""
    return isinstance(correction, Marked | LineFile)


def prepared(corrections: Sequence[Correction], clip: Clip | None, *, resize: bool = False) -> tuple[list[Correction], list[str]]:
    """The corrections in their order, neighbouring marks on a frame joined into one step, folders taken apart; and notes about their files.

    Args:
        corrections: in their order.
        clip: that they are about; None if none of them is about a frame.
        resize: accept masks of another size.

    Raises:
        InputError: a frame, place or file that does not fit the clip, or cannot be read.
        MaskError: a mask that does not.
    """
    if clip is None:
        return list(corrections), []
    ready = [single for correction in _joined(corrections) for single in _taken_apart(correction, clip)]
    notes = [note for correction in ready for note in _checked(correction, clip, resize=resize)]
    return ready, notes


def apply(session: InteractiveSession, correction: Correction, project: Path, hw: tuple[int, int]) -> Iterator[int | None]:
    """Do it, step by step: the frames that were drawn on, or None for what is not about one.

    Raises:
        InputError: it does not fit what is there: an object that was removed, only negative marks where it has no pixels, nothing to undo.
        OutputError: it cannot be stored; nothing was done.
    """
    match correction:
        case Rewind():
            _rewind(session, correction, project)
            yield None
        case Rename():
            session.rename_object(correction.object_id, correction.name)
            yield None
        case Remove():
            session.remove_object(correction.object_id)
            yield None
        case LineFile():
            for marked in _lines_on_frames(session, correction, hw):
                session.interact(*marked.strokes, region=marked.region)
                yield marked.frame_index
        case _:
            _draw(session, correction, hw)
            yield correction.frame_index


def _draw(session: InteractiveSession, correction: Marked | MaskFile | Brushed | Absent, hw: tuple[int, int]) -> None:
    match correction:
        case Marked():
            session.interact(*correction.strokes, region=correction.region)
        case MaskFile():
            session.interact(*_painted(correction, hw), region=correction.region)
        case Absent():
            _check_object(session, correction.object_id)
            session.add_mask(correction.frame_index, correction.object_id, torch.zeros(hw, dtype=torch.bool))
        case Brushed(erases=True):
            session.erase(correction.frame_index, correction.path, object_id=correction.object_id, radius_pixels=correction.radius_pixels)
        case Brushed():
            session.add_brush(correction.frame_index, correction.object_id, correction.path, radius_pixels=correction.radius_pixels)


def _check_object(session: InteractiveSession, object_id: int) -> None:
    known = [info.object_id for info in session.objects]
    if object_id not in known:
        message = f"object {object_id} does not exist; there are {known}"
        raise InputError(message)


def _rewind(session: InteractiveSession, rewind: Rewind, project: Path) -> None:
    """All the steps, or none if there are fewer."""
    there = sum(step.is_undone == (rewind.kind == "redo") for step in steps_of(project))
    if rewind.count > there:
        message = f"{rewind.count} steps cannot be taken with --{rewind.kind}: there are {there}; see them with --list"
        raise InputError(message)
    for _ in range(rewind.count):
        session.undo() if rewind.kind == "undo" else session.redo()


def _joined(corrections: Sequence[Correction]) -> Iterator[Correction]:
    """Marks that follow each other on one frame, with one region, become one step."""

    def place(correction: Correction) -> object:
        return (correction.frame_index, correction.region) if isinstance(correction, Marked) else id(correction)

    for _, group in groupby(corrections, place):
        first, *others = group
        if isinstance(first, Marked):
            strokes = [stroke for other in others if isinstance(other, Marked) for stroke in other.strokes]
            yield replace(first, strokes=(*first.strokes, *strokes))
        else:
            yield from (first, *others)


def _taken_apart(correction: Correction, clip: Clip) -> Iterator[Correction]:
    if isinstance(correction, MaskFile) and correction.path.is_dir():
        for index, path in sorted(read_label_folder(correction.path, clip.frame_names).items()):
            yield replace(correction, path=path, frame_index=index)
    else:
        yield correction


def _checked(correction: Correction, clip: Clip, *, resize: bool) -> tuple[str, ...]:
    """Refuse what no state of the project could make right; notes about a mask."""
    if isinstance(correction, Rewind | Rename | Remove):
        return ()
    frames = [line.frame_index for line in _lines(correction)] if isinstance(correction, LineFile) else [correction.frame_index]
    for frame_index in frames:
        _check_frame(frame_index, clip)
    return _check_drawn(correction, clip.hw, resize=resize)


def _check_drawn(drawn: Drawn, hw: tuple[int, int], *, resize: bool) -> tuple[str, ...]:
    region = checked_region(drawn.region, hw) if isinstance(drawn, Marked | LineFile | MaskFile) and drawn.region is not None else None
    if isinstance(drawn, MaskFile | Brushed | Absent) and drawn.object_id is not None:
        check_object_ids([drawn.object_id])
    match drawn:
        case Marked():
            check_places(Strokes(drawn.strokes, region), hw)
        case MaskFile():
            return read_labels(drawn.path, hw=hw, resize=resize).notes
        case Brushed():
            brush_pixels(torch.tensor(drawn.path), drawn.radius_pixels, hw)
    return ()


def _check_frame(frame_index: int, clip: Clip) -> None:
    if clip.num_frames is not None and frame_index >= clip.num_frames:
        message = f"frame {frame_index} was marked, but {clip.name} has frames 0 to {clip.num_frames - 1}"
        raise InputError(message)


def _lines(file: LineFile) -> tuple[Line, ...]:
    lines = read_scribbles(file.path).lines
    if not lines:
        message = f"{file.path} holds no lines; draw at least one"
        raise InputError(message)
    return lines


def _lines_on_frames(session: InteractiveSession, file: LineFile, hw: tuple[int, int]) -> Iterator[Marked]:
    """The lines of a file, by frame; those through the background are about the objects seen or drawn there."""
    for index, group in groupby(sorted(_lines(file), key=lambda line: line.frame_index), lambda line: line.frame_index):
        lines = list(group)
        seen = torch.unique(session.masks(index).labels()).tolist()
        about = sorted({*seen, *(line.object_id for line in lines)} - {0})
        if not about:
            message = f"{file.path} draws on frame {index} through the background alone, and no object is there; draw through an object too"
            raise InputError(message)
        yield Marked(tuple(to_scribbles(lines, about, hw)), file.region)


def _painted(file: MaskFile, hw: tuple[int, int]) -> list[Painted]:
    labels = read_labels(file.path, hw=hw, resize=True).labels
    ids = [int(object_id) for object_id in torch.unique(labels).tolist() if object_id != 0]
    renamed = file.object_id is not None and len(ids) == 1
    return [Painted(file.frame_index, file.object_id if renamed and file.object_id else object_id, labels == object_id) for object_id in ids]
