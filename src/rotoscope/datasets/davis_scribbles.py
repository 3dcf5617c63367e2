"""Scribbles of the DAVIS interactive challenge: JSON files of lines, in shares of the frame's width and height, and their pixels.

Format (davischallenge.org, version 1): `sequence` names the clip; `scribbles` has a list of lines for each frame, each with `path` (points x, y in
0..1), `object_id` (0: background) and times in milliseconds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rotoscope._files import write_atomically
from rotoscope.errors import InputError
from rotoscope.types import Scribble


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        frame_index: where it was drawn.
        object_id: what it runs through; 0 is the background.
        path: points (x, y) in shares of the width and height, 0..1.
        seconds: how long it took to draw, where the file says so.
    """

    frame_index: int
    object_id: int
    path: tuple[tuple[float, float], ...]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DavisScribbles:
    """What one annotator drew on one clip.

    Attributes:
        sequence: name of the clip.
        lines: in the order of the frames, and of the file within a frame.
    """

    sequence: str
    lines: tuple[Line, ...]

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that lines run through, ascending."""
        return tuple(sorted({line.object_id for line in self.lines if line.object_id}))


def read_scribbles(path: str | Path) -> DavisScribbles:
    """The scribbles of a file.

    Raises:
        InputError: no such file, not JSON, or not of this format; the message says where.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        message = f"{path} is not a readable scribble file: {error}"
        raise InputError(message) from error
    if not isinstance(content, dict) or not isinstance(content.get("scribbles"), list):
        message = f"{path} has no list 'scribbles'; expected the JSON of the DAVIS interactive challenge"
        raise InputError(message)
    lines = [_line(path, index, entry) for index, drawn in enumerate(content["scribbles"]) for entry in _list(path, index, drawn)]
    return DavisScribbles(str(content.get("sequence", "")), tuple(lines))


def write_scribbles(path: Path, scribbles: DavisScribbles, num_frames: int) -> None:
    """Write a file that `read_scribbles` gives back, and that official tools read; each line starts at 0 ms.

    Raises:
        InputError: a line is on a frame beyond the clip.
        OutputError: the file cannot be written.
    """
    frames: list[list[dict[str, Any]]] = [[] for _ in range(num_frames)]
    for line in scribbles.lines:
        if not 0 <= line.frame_index < num_frames:
            message = f"a line is drawn on frame {line.frame_index}; the clip has frames 0 to {num_frames - 1}"
            raise InputError(message)
        entry = {"path": [list(point) for point in line.path], "object_id": line.object_id, "start_time": 0, "end_time": round(1000 * line.seconds)}
        frames[line.frame_index].append(entry)
    write_atomically(path, json.dumps({"scribbles": frames, "sequence": scribbles.sequence}).encode("utf-8"))


def to_scribbles(lines: Sequence[Line], object_ids: Sequence[int], hw: tuple[int, int], *, width_pixels: float = 3.0) -> list[Scribble]:
    """Lines as interactions in pixels of a frame, in their order; a line through the background runs off every object.

    Shares are taken of the width and height less one, and cut to whole pixels, as the official robot does.
    """
    scale = torch.tensor((hw[1] - 1, hw[0] - 1), dtype=torch.float64)
    scribbles = []
    for line in lines:
        path = (torch.tensor(line.path, dtype=torch.float64) * scale).floor().float()
        is_on = line.object_id != 0
        for object_id in (line.object_id,) if is_on else object_ids:
            scribbles.append(Scribble(line.frame_index, object_id, path, is_on, width_pixels))
    return scribbles


def _list(path: str | Path, frame_index: int, drawn: Any) -> list[Any]:
    if not isinstance(drawn, list):
        message = f"{path}: frame {frame_index} holds {type(drawn).__name__} instead of a list of lines"
        raise InputError(message)
    return drawn


def _line(path: str | Path, frame_index: int, entry: Any) -> Line:
    try:
        points = tuple((float(x), float(y)) for x, y in entry["path"])
        object_id = int(entry["object_id"])
        seconds = max(float(entry.get("end_time", 0)) - float(entry.get("start_time", 0)), 0) / 1000
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"{path}: a line of frame {frame_index} is not of the DAVIS form (path, object_id): {error!r}"
        raise InputError(message) from error
    if not points or not all(0 <= value <= 1 for point in points for value in point):
        message = f"{path}: a line of frame {frame_index} is empty, or has points outside 0..1"
        raise InputError(message)
    if object_id < 0:
        message = f"{path}: a line of frame {frame_index} is of object {object_id}; objects are counted from 1, and 0 is the background"
        raise InputError(message)
    return Line(frame_index, object_id, points, seconds)
