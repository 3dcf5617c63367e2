"""The output folder of a run: its layout, its lock, and what is needed to go on after a crash.

OUT/masks/CLIP/00000.png ...   indexed PNGs with the DAVIS palette, one folder per clip
OUT/overlay.webm               the video with the masks drawn over it
OUT/summary.json               what was done: frames, frames per second, area and confidence of each object in each frame
OUT/.rotoscope/                the lock, the plan, the records so far, and what the model remembered at the last save
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rotoscope._files import write_atomically
from rotoscope.errors import InputError, OutputError
from rotoscope.jobs.locked import Existing, LockedFolder, RecordLines
from rotoscope.jobs.track import TrackResult
from rotoscope.types import Frame, Masks
from rotoscope.video.masks import read_stored_labels
from rotoscope.video.write import prepare_folder


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What the summary says of one frame; `objects` is by id: `area_pixels`, and `confidence` in 0..1."""

    frame_index: int
    time_seconds: float | None
    file: str
    given: bool
    objects: dict[int, dict[str, float]]

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The record whose `asdict` went through JSON."""
        return cls(**{**fields, "objects": {int(object_id): measures for object_id, measures in fields["objects"].items()}})


def record_of(result: TrackResult, file: str) -> FrameRecord:
    """What the summary says of a result whose labels are in a file."""
    counts = np.bincount(result.labels.ravel(), minlength=1 + max(result.object_ids, default=0))
    objects = {object_id: {"area_pixels": int(counts[object_id]), "confidence": round(score, 4)} for object_id, score in result.scores.items()}
    return FrameRecord(result.frame_index, result.time_seconds, file, result.given, objects)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        pass_number: which of the planned passes is running.
        next_frame: the frame that comes next in it; None at its start.
        seconds: time spent so far, over all the processes that worked on the run.
        finished: whether nothing is left to do.
    """

    pass_number: int = 0
    next_frame: int | None = None
    seconds: float = 0.0
    finished: bool = False


class RunFolder:
    """The output folder of one run, locked while it is open.

    Args:
        root: the folder; it is made if need be.
        clip_name: names the folder of the masks.
        plan: what is being done, as JSON values; a resumed run must have the same.
        existing: what to do when the folder holds a run.

    Raises:
        OutputError: the folder is a file or not writable, another run holds its lock, it holds a run and `existing` is "refuse", or it holds
            masks that no run made and `existing` is not "overwrite".
        InputError: the run to resume was started with other settings; the message lists the differences.
    """

    def __init__(self, root: Path, clip_name: str, plan: Mapping[str, Any], *, existing: Existing) -> None:
        self.root = root
        self.masks = root / "masks" / clip_name
        self.summary = root / "summary.json"
        self._folder = LockedFolder(root)
        self._records = RecordLines(self._folder.private / "records.jsonl")
        self._state = self._folder.private / "state.safetensors"
        try:
            if not self._folder.resumes(plan, existing):
                self._folder.begin(plan, stale=(self._state, self._records.path, self.summary, *self._removable(existing)))
            prepare_folder(self.masks)
        except BaseException:
            self._folder.release()
            raise

    def _removable(self, existing: Existing) -> list[Path]:
        """The masks that are there, which a new run takes the place of."""
        there = sorted(self.masks.glob("*.png"))
        if there and existing != "overwrite":
            message = f"{self.masks} holds masks of another origin, such as {there[0].name}; remove them with --overwrite, or choose another folder"
            raise OutputError(message)
        return there

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.release()

    def append(self, record: FrameRecord) -> None:
        """Add a record to those on disk; a later record of the same frame replaces an earlier one.

        Raises:
            OutputError: it cannot be written.
        """
        self._records.append(asdict(record))

    def records(self) -> dict[int, FrameRecord]:
        """All records by frame index, ascending. A line that a crash cut short is left out."""
        records = (FrameRecord.from_json(fields) for fields in self._records)
        return {record.frame_index: record for record in sorted(records, key=lambda record: record.frame_index)}

    def save(self, progress: Progress, memory: Mapping[str, Tensor]) -> None:
        """Keep how far the run is and what the model remembers, so that `restore` can go on from here.

        Raises:
            OutputError: it cannot be written; the previous save is unchanged.
        """
        content = safetensors.torch.save({key: tensor.contiguous() for key, tensor in memory.items()}, {"progress": json.dumps(asdict(progress))})
        write_atomically(self._state, content, durable=True)

    def restore(self) -> tuple[Progress, dict[str, Tensor]]:
        """What `save` kept last; the start of the run if nothing was saved.

        Raises:
            OutputError: the saved state is damaged.
        """
        if not self._state.is_file():
            return Progress(), {}
        try:
            with safetensors.safe_open(self._state, framework="pt") as file:
                memory = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict: it cannot be iterated
                progress = Progress(**json.loads(file.metadata()["progress"]))
        except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            message = f"the saved state {self._state} is damaged ({error}); start again with --overwrite"
            raise OutputError(message) from error
        return progress, memory

    def mask_path(self, frame: Frame) -> Path:
        """Where the mask of a frame goes: named like the source file, or by its index."""
        return self.masks / f"{frame.name or f'{frame.index:05d}'}.png"

    def overlay_path(self, codec: str) -> Path:
        """Where the overlay video goes."""
        return self.root / ("overlay.mp4" if codec == "h264" else "overlay.webm")


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a run left in its folder.

    Attributes:
        video: as it was named when the run was started.
        hw: height and width of its frames.
        records: by frame, ascending.
        masks: the folder of the files that the records name.
    """

    video: str
    hw: tuple[int, int]
    records: tuple[FrameRecord, ...]
    masks: Path

    def masks_of(self, record: FrameRecord) -> Masks:
        """The masks of a frame, over the objects known there.

        Raises:
            MaskError: the file is missing or damaged.
        """
        labels = torch.from_numpy(read_stored_labels(self.masks / record.file))
        present = [object_id for object_id in torch.unique(labels).tolist() if object_id != 0]
        return Masks.from_labels(labels, sorted({*record.objects, *present}))


def read_finished(root: Path) -> FinishedRun:
    """What is in the folder of a run that came to its end.

    Raises:
        InputError: there is no run, it did not come to its end, or files of it are missing.
    """
    path = root / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        records = tuple(FrameRecord.from_json(record) for record in summary["frames"])
        video, hw = str(summary["video"]), (int(summary["height"]), int(summary["width"]))
        is_complete = bool(summary["complete"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no summary: {error!r}"
        message = f"{root} holds no finished run ({path.name}: {reason}); give the folder that `rotoscope track` wrote with -o"
        raise InputError(message) from error
    if not is_complete or not records:
        message = f"the run in {root} did not come to its end; go on with it first, by `rotoscope track` with --resume"
        raise InputError(message)
    folders = [folder for folder in sorted((root / "masks").glob("*")) if all((folder / record.file).is_file() for record in records)]
    if not folders:
        message = f"{root / 'masks'} lacks masks that {path.name} names; give a folder as `rotoscope track` wrote it"
        raise InputError(message)
    named = [folder for folder in folders if folder.name == Path(video).stem]
    return FinishedRun(video, hw, records, (named or folders)[0])
