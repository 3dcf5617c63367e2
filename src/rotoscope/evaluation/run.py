"""Run a tracker over annotated clips: the first annotation is given, the masks of all frames are written for scoring."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rotoscope.datasets.davis import VOID, AnnotatedClip, read_label_map
from rotoscope.errors import InputError
from rotoscope.evaluation.report import prepare_folder
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Masks, Tracker
from rotoscope.video.read import read_video
from rotoscope.video.write import write_labels


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """A frame whose masks are on disk.

    Attributes:
        clip: the name of the clip.
        frame_index: position in the clip; frame 0 is the given one.
        seconds: from asking for the frame to having its labels: reading, predicting, remembering. Writing the file is not counted.
    """

    clip: str
    frame_index: int
    seconds: float


def track_clips(clips: Sequence[AnnotatedClip], tracker: Tracker, output: Path) -> Iterator[TrackedFrame]:
    """Track each clip from its first annotation, and write `output/CLIP/00000.png` with the object ids for each frame.

    Stop iterating to stop the run; what is written is valid.

    Raises:
        InputError: results for a clip are in `output` already; nothing has been run then.
        OutputError: a mask cannot be written.
        PropagationError: the model fails on a frame.
    """
    taken = [clip.name for clip in clips if (output / clip.name).is_dir() and any((output / clip.name).iterdir())]
    if taken:
        message = f"{output} holds results for {', '.join(taken)} already; choose another folder, or score those with --predictions {output}"
        raise InputError(message)
    for clip in clips:
        prepare_folder(output / clip.name)
    for clip in clips:
        yield from _track_clip(clip, tracker, output / clip.name)


def frames_per_second(frames: Iterable[TrackedFrame]) -> float:
    """How many frames were predicted per second of tracking; the given frames take time but do not count. 0 if there are none."""
    done = list(frames)
    seconds = sum(frame.seconds for frame in done)
    return sum(frame.frame_index > 0 for frame in done) / seconds if seconds > 0 else 0.0


def first_masks(clip: AnnotatedClip) -> Masks:
    """The objects of the first annotation, by the clip's convention; void is background."""
    labels = read_label_map(clip.annotation_paths[0])
    labels = (labels != 0) if clip.merged else np.where(labels == VOID, 0, labels)
    return Masks.from_labels(torch.from_numpy(labels.astype(np.int32)))


def _track_clip(clip: AnnotatedClip, tracker: Tracker, folder: Path) -> Iterator[TrackedFrame]:
    given = {0: first_masks(clip)}
    begun = time.perf_counter()
    with closing(read_video(clip.frame_paths[0].parent)) as frames:
        for frame, masks in propagate(frames, tracker.start(), given):
            labels = masks.labels().cpu().numpy()
            seconds = time.perf_counter() - begun
            write_labels(folder / f"{frame.name}.png", labels)
            yield TrackedFrame(clip.name, frame.index, seconds)
            begun = time.perf_counter()
