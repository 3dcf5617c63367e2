"""What the folder of a project says without being opened: which clip it is about, and what was done."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch

from rotoscope._files import write_atomically
from rotoscope.errors import InputError
from rotoscope.tracking.events import Event, read_log
from rotoscope.tracking.project import CLIP_NAME, LOG_NAME
from rotoscope.types import Frame


@dataclass(frozen=True, slots=True)
class ProjectStep:
    """A step of a project, as undo takes it back.

    Attributes:
        text: what was done, in words.
        is_undone: whether redo would do it again.
    """

    text: str
    is_undone: bool


class UnseenFrames(Sequence[Frame]):
    """Stands for a clip whose pictures nobody will look at: right in number and size, and black.

    Args:
        num_frames: of the clip.
        hw: of its frames.
    """

    def __init__(self, num_frames: int, hw: tuple[int, int]) -> None:
        self._num_frames = num_frames
        self._image = torch.zeros((), dtype=torch.uint8).expand(3, *hw)

    def __len__(self) -> int:
        return self._num_frames

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...

    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        """A black frame, or several."""
        numbers = range(self._num_frames)[index]
        return Frame(numbers, self._image) if isinstance(numbers, int) else [Frame(number, self._image) for number in numbers]


def is_project(folder: Path) -> bool:
    """Whether a folder holds a project, be it damaged."""
    log = folder / LOG_NAME
    return log.is_file() or log.with_name(f"{log.stem}.copy{log.suffix}").is_file()


def unseen_frames(folder: Path) -> UnseenFrames | None:
    """The clip of a project without its pictures; None if the log does not tell its size, which happens if it is damaged.

    Raises:
        InputError: a newer Rotoscope made the project.
    """
    events, fault = read_log(folder / LOG_NAME)
    if fault is not None or not events:
        return None
    body = events[0].body
    return UnseenFrames(int(body["num_frames"]), (int(body["height"]), int(body["width"])))


def remember_clip(folder: Path, clip: Path) -> None:
    """Note in a project where its clip is, also relative to the project: both may be moved together.

    Raises:
        OutputError: it cannot be written.
    """
    content = {"path": str(clip.resolve()), "relative": os.path.relpath(clip.resolve(), folder.resolve())}
    if _noted(folder) != content:
        write_atomically(folder / CLIP_NAME, (json.dumps(content, indent=1) + "\n").encode())


def noted_clip(folder: Path) -> str | None:
    """Where the clip of a project was when it was used last; None if that is not known."""
    return _noted(folder).get("path")


def remembered_clip(folder: Path) -> Path:
    """Where the clip of a project is.

    Raises:
        InputError: it is not known, or the clip is not there any more.
    """
    noted = _noted(folder)
    if not noted:
        message = f"it is not known which clip the project {folder} is about; say so with --clip CLIP"
        raise InputError(message)
    for path in (Path(noted["path"]), folder.resolve() / noted["relative"]):
        if path.exists():
            return path
    message = f"the clip of the project {folder} was {noted['path']}, which is not there any more; say where it is now with --clip CLIP"
    raise InputError(message)


def steps_of(folder: Path) -> list[ProjectStep]:
    """What was done in a project and can be undone, in order, and then what was undone and can be done again."""
    done: list[list[Event]] = []
    undone: list[list[Event]] = []
    for event in read_log(folder / LOG_NAME)[0]:
        if event.kind == "undo":
            undone.append(done.pop())
        elif event.kind == "redo":
            done.append(undone.pop())
        elif event.kind in _WORDS:
            done.append([event])
            undone.clear()
        elif done:
            done[-1].append(event)
    return [ProjectStep(_said(events), is_undone=False) for events in done] + [ProjectStep(_said(events), is_undone=True) for events in undone[::-1]]


def _noted(folder: Path) -> dict[str, str]:
    """What `remember_clip` wrote; nothing if it is missing or damaged."""
    try:
        content = json.loads((folder / CLIP_NAME).read_text(encoding="utf-8"))
        return {name: str(content[name]) for name in ("path", "relative")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _said(events: Sequence[Event]) -> str:
    """A step in words; what follows its event are results that belong to it."""
    first, reached = events[0], len({event.body["frame"] for event in events if event.kind == "result"})
    return _WORDS[first.kind].format(
        **{name: first.body[name] for name in ("frame", "object_id", "name") if name in first.body},
        objects=" and ".join(f"object {object_id}" for object_id in first.body.get("object_ids", ())),
        how="marked" if first.body.get("interactions") else "painted",
        reached=f"{reached} frame{'' if reached == 1 else 's'}",
    )


_WORDS = {
    "object": "object {object_id} is {name}",
    "remove": "object {object_id} removed",
    "draw": "frame {frame}: {objects} {how}",
    "accept": "frame {frame} accepted",
    "reset_frame": "frame {frame} reset",
    "reset": "all reset",
    "propagate": "masks carried on to {reached}",
}
"""What each step of `rotoscope.tracking.history` is called."""
