"""A project on disk: its lock, its log, its masks, and the present state that follows from them.

PROJECT/lock                  held while a process works on the project
PROJECT/events.sqlite         what was done, in order; with a copy from when the project was opened last
PROJECT/masks/ab/ab12....masks  soft masks, see `rotoscope.tracking.soft_masks`
PROJECT/clip.json             where the clip is, if the command line works on the project: see `rotoscope.jobs.project.folder`
"""

import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import filelock

from rotoscope._files import output_error
from rotoscope.errors import InputError, OutputError
from rotoscope.tracking.events import EventLog
from rotoscope.tracking.history import History, State
from rotoscope.tracking.soft_masks import SoftMaskStore
from rotoscope.types import Masks

LOG_NAME = "events.sqlite"
CLIP_NAME = "clip.json"
_OWN_NAMES = ("lock", "masks", "events.copy.sqlite", CLIP_NAME)
"""What may be there when the log is not: after a crash at the start, or if it was lost."""


class Project:
    """The state of a session, kept on disk at every step and found again after a crash.

    Args:
        folder: of the project; made if need be. None for a temporary one that is gone when the session ends.
        num_frames: of the clip.
        hw: of its frames.
        max_mask_bytes: how much memory masks may take.

    Attributes:
        warnings: what was damaged and how it was recovered, one line each.
        store: the masks.
        lock: to be held by whoever reads the state in order to change it.

    Raises:
        OutputError: the folder cannot be written, holds other files, or another process works on the project.
        InputError: the project is of another clip, or was made by a newer Rotoscope.
    """

    def __init__(self, folder: Path | None, num_frames: int, hw: tuple[int, int], *, max_mask_bytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rotoscope-")) if folder is None else folder
        self.lock = threading.RLock()
        with ExitStack() as undone:
            if folder is None:
                undone.callback(shutil.rmtree, self.folder, ignore_errors=True)
            undone.callback(_locked(self.folder).release)
            self._log = EventLog(self.folder / LOG_NAME, durable=folder is not None)
            undone.callback(self._log.close)
            self.store = SoftMaskStore(self.folder / "masks", max_bytes=max_mask_bytes, durable=folder is not None)
            self._history = self._replayed()
            self.warnings = list(self._log.warnings)
            self._check_clip(num_frames, hw)
            self._check_masks()
            self._close = weakref.finalize(self, undone.pop_all().close)

    @property
    def state(self) -> State:
        """The present state; not to be changed."""
        return self._history.present

    @property
    def undoable(self) -> State | None:
        """What undo leads to; None if there is nothing to undo."""
        return self._history.undoable

    @property
    def redoable(self) -> State | None:
        """What redo leads to; None if nothing was undone, or something was done since."""
        return self._history.redoable

    @property
    def rewinds(self) -> int:
        """How often undo and redo were used."""
        return self._history.rewinds

    @property
    def steps(self) -> int:
        """How many steps were taken, undone ones included."""
        return self._history.steps

    def record(self, kind: str, body: Mapping[str, Any]) -> None:
        """Do something: when this returns it is stored, and is part of the present state.

        Raises:
            OutputError: it cannot be written; nothing was done.
        """
        with self.lock:
            self._history.apply(self._log.append(kind, body))

    def rewind(self, kind: str) -> list[int]:
        """Undo or redo one step, and give the frames whose masks changed, or may have.

        Raises:
            InputError: there is no such step, or its masks are damaged.
            OutputError: it cannot be written; nothing was done.
        """
        target = self.undoable if kind == "undo" else self.redoable
        if target is None:
            message = f"there is nothing to {kind}"
            raise InputError(message)
        before = self.state
        fresh = set(target.masks.values()) - set(before.masks.values())
        damaged = [key for key in fresh if not self.store.is_sound(key)]
        if damaged:
            message = f"cannot {kind}: {len(damaged)} of the masks it leads to are damaged or missing, for instance {self.store.path_of(damaged[0])}"
            raise InputError(message)
        self.record(kind, {})
        frames = {*before.masks, *target.masks}
        came_or_went = (before.objects.keys() ^ target.objects.keys()) & (before.removed | target.removed)
        return sorted(frame for frame in frames if came_or_went or before.masks.get(frame) != target.masks.get(frame))

    def masks(self, frame_index: int) -> Masks | None:
        """The masks of a frame over the objects that are still there; None if it has none."""
        return self.masks_of(self.state.masks.get(frame_index))

    def masks_of(self, key: str | None) -> Masks | None:
        """The masks of a key over the objects that are still there; None for none."""
        if key is None:
            return None
        masks = self.store.get(key)
        there = tuple(object_id for object_id in masks.object_ids if object_id in self.state.objects)
        return masks if there == masks.object_ids else masks.select(there)

    def close(self) -> None:
        """Close the files and let go of the project; a temporary one is removed."""
        self._close()

    def _replayed(self) -> History:
        history = History()
        for event in self._log.events:
            try:
                history.apply(event)
            except InputError as error:
                self._log.cut_after(event.number - 1, str(error))
                break
        return history

    def _check_clip(self, num_frames: int, hw: tuple[int, int]) -> None:
        clip = {"num_frames": num_frames, "height": hw[0], "width": hw[1]}
        if not self._log.events:
            self.record("clip", clip)
        elif (stated := dict(self._log.events[0].body)) != clip:
            message = (
                f"{self.folder} is a project about {stated.get('num_frames')} frames of {stated.get('width')}x{stated.get('height')}, "
                f"but the clip has {num_frames} of {hw[1]}x{hw[0]}; open it with its own clip"
            )
            raise InputError(message)

    def _check_masks(self) -> None:
        """Note masks that are damaged, so that their frames count as having none."""
        state = self.state
        keys = {*state.masks.values(), *state.settled.values(), *_bases(state)}
        damaged = sorted(key for key in keys if not self.store.is_sound(key))
        if damaged:
            frames = sorted(frame for frame, key in state.masks.items() if key in damaged)
            self.warnings.append(f"the masks of frames {frames} were damaged or missing; these frames have none now: propagate, or draw, again")
            self.record("lost", {"keys": damaged})


def _bases(state: State) -> Iterable[str]:
    return [draft.base for draft in state.drafts.values() if draft.base is not None]


def _locked(folder: Path) -> filelock.BaseFileLock:
    """The lock of a project folder, held.

    Raises:
        OutputError: another process holds it, or the folder cannot be used.
    """
    lock = filelock.FileLock(folder / "lock", timeout=0, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strangers = not (folder / LOG_NAME).exists() and any(path.name not in _OWN_NAMES for path in folder.iterdir())
        if not strangers:
            lock.acquire()
    except filelock.Timeout as error:
        message = f"another process works on the project {folder}; close it there first"
        raise OutputError(message) from error
    except OSError as error:
        raise output_error(folder, error) from error
    if strangers:
        message = f"{folder} holds other files and no project; give an empty or a fresh folder"
        raise OutputError(message)
    return lock
