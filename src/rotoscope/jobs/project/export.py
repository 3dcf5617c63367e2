"""The masks of a project written out as `rotoscope track` writes its own: labels, an overlay video, and a summary."""

import json
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rotoscope._files import write_atomically
from rotoscope._version import __version__
from rotoscope.errors import InputError, OutputError
from rotoscope.jobs.folder import FrameRecord, RunFolder, record_of
from rotoscope.jobs.locked import Existing, plan_path
from rotoscope.jobs.track import result_of
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.types import Frame
from rotoscope.video.draw import overlay
from rotoscope.video.read import READ_AHEAD_FRAMES, Clip, prefetch
from rotoscope.video.write import OverlayVideo, ThreadedWriter, prepare_folder, write_labels


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """Where results go.

    Attributes:
        folder: for masks/, the overlay and summary.json.
        overlay: the codec of the overlay video, or "none".
        overwrite: replace a run that is there, though it is not an earlier one of the same project.
    """

    folder: Path
    overlay: Literal["vp9", "h264", "none"] = "vp9"
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class OpenProject:
    """A project that is being worked on, with its clip.

    Attributes:
        folder: of the project.
        session: the work.
        frames: of the clip, by number.
        clip: itself.
        video: where it is.
    """

    folder: Path
    session: InteractiveSession
    frames: Sequence[Frame]
    clip: Clip
    video: str


def check_output(request: OutputRequest, project: Path, clip_name: str) -> None:
    """Refuse a folder that results cannot go to, before any work is done. Nothing is made.

    Raises:
        InputError: it is the project's own.
        OutputError: it is a file, cannot be written, or holds something else's results.
    """
    folder = request.folder
    if project.resolve() in (folder.resolve(), *folder.resolve().parents):
        message = f"{folder} is in the project itself; write the results to a folder of their own"
        raise InputError(message)
    if folder.exists():
        prepare_folder(folder)
    if not _may_replace(request, project) and (plan_path(folder).is_file() or any((folder / "masks" / clip_name).glob("*.png"))):
        message = f"{folder} holds other results; use --overwrite to replace them, or another folder with -o"
        raise OutputError(message)


def write_results(project: OpenProject, request: OutputRequest) -> Generator[FrameRecord]:
    """Write the labels of all frames that have masks, and draw all frames; a record for each with masks.

    Stopped on the way, the files so far are whole, and the summary lists them and says that it is not complete.

    Raises:
        InputError: no frame has masks.
        OutputError: the folder cannot be written; what was written before is valid.
    """
    masked = masked_frames(project.session)
    if not masked:
        message = f"the project {project.folder} has no masks yet that could be written; mark an object with --click x,y, --box or --mask"
        raise InputError(message)
    numbers = masked if request.overlay == "none" else range(len(project.frames))
    plan = {"rotoscope": __version__, "project": str(project.folder.resolve()), "overlay": request.overlay}
    existing: Existing = "overwrite" if _may_replace(request, project.folder) else "refuse"
    with RunFolder(request.folder, project.clip.name, plan, existing=existing) as folder, closing(_Export(project, request, folder)) as export:
        for frame in prefetch((project.frames[number] for number in numbers), READ_AHEAD_FRAMES):
            record = export.write(frame)
            if record is not None:
                yield record
        export.is_whole = True


def masked_frames(session: InteractiveSession) -> list[int]:
    """The frames that were given or reached, ascending."""
    return [number for number in range(session.num_frames) if session.has_masks(number)]


class _Export:
    """One writing of results.

    Attributes:
        is_whole: whether all frames were reached.
    """

    def __init__(self, project: OpenProject, request: OutputRequest, folder: RunFolder) -> None:
        self.is_whole = False
        self._project = project
        self._folder = folder
        self._given = set(project.session.given_frames)
        self._records: list[FrameRecord] = []
        for codec in ("vp9", "h264"):
            folder.overlay_path(codec).unlink(missing_ok=True)  # of the masks before these
        path = folder.overlay_path(request.overlay)
        self._video = None if request.overlay == "none" else OverlayVideo(path, project.clip.hw, project.clip.fps, request.overlay)
        self._writer = ThreadedWriter()

    def write(self, frame: Frame) -> FrameRecord | None:
        """Write a frame; its record if it has masks."""
        result = result_of(frame, self._project.session.masks(frame.index), given=frame.index in self._given)
        if self._video is not None:
            self._writer.submit(partial(_draw_on, self._video, frame, result.labels))
        if not self._project.session.has_masks(frame.index):
            return None
        path = self._folder.mask_path(frame)
        record = record_of(result, path.name)
        self._writer.submit(partial(write_labels, path, result.labels))
        self._writer.submit(partial(self._records.append, record))
        return record

    def close(self) -> None:
        """Finish the files, and write the summary of what is there.

        Raises:
            OutputError: some of it could not be written.
        """
        with ExitStack() as stack:  # each step runs even if one before it failed
            stack.callback(self._write_summary)
            if self._video is not None:
                stack.callback(self._video.close)
            stack.callback(self._writer.close)

    def _write_summary(self) -> None:
        session, clip = self._project.session, self._project.clip
        is_complete = self.is_whole and not session.pending_frames and len(self._records) == session.num_frames
        summary = {
            "rotoscope": __version__,
            "video": self._project.video,
            "project": str(self._project.folder),
            "complete": is_complete,
            "num_frames": len(self._records),
            "height": clip.hw[0],
            "width": clip.hw[1],
            "object_ids": [info.object_id for info in session.objects],
            "objects": [asdict(info) for info in session.objects],
            "warnings": [*session.warnings, *clip.warnings],
            "frames": [asdict(record) for record in self._records],
        }
        write_atomically(self._folder.summary, (json.dumps(summary, indent=1) + "\n").encode())


def _draw_on(video: OverlayVideo, frame: Frame, labels: NDArray[np.int32]) -> None:
    video.write(overlay(frame.image, labels), frame.time_seconds)


def _may_replace(request: OutputRequest, project: Path) -> bool:
    """Whether what is in the folder may go: that was asked for, or it is an earlier writing of the same project."""
    try:
        written = json.loads(plan_path(request.folder).read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError, TypeError):
        return request.overwrite
    return request.overwrite or bool(written == str(project.resolve()))
