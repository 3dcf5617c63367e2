"""The DAVIS score of predicted masks: J and F per frame, their mean, recall and decay per object, clip and set.

The protocol is that of the official DAVIS-2017 evaluator for the semi-supervised task, and numbers equal its numbers:

- The first frame (given) and the last are not scored. They have values per frame where there is a prediction for them.
- The objects of a clip are those of its first annotation; ids that turn up later are not scored, and a note says so.
- The score of a set is the mean **over all objects of all clips**, not over clips. With one object per clip (DAVIS-2016) the two are the same.
- J&F is the mean of J and F.

It differs where the official code stops, or where DAVIS has no case:

- Predicted ids that are no object of the clip count as background, and a note says so; the official code stops.
- Pixels annotated 255 (void) are left out of both masks, as in the official unsupervised task. The semi-supervised one counts them as background;
  its annotations hold none.
- Ids need not be contiguous: the official code scores the ids between, which neither side holds, as 1.
- A prediction that holds nothing but 0 and 255 is the object, if the clip has only one.

No torch here: the processes that score clips start quickly.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.davis import VOID, AnnotatedClip, abridged, read_label_map
from rotoscope.errors import InputError
from rotoscope.evaluation.measures import Summary, jaccard_and_boundary_f, summarize

PREDICTION_FOLDERS = ("{clip}", "480p/{clip}", "Annotations/480p/{clip}", "Annotations/{clip}", "{clip}/masks")
"""Where the masks of a clip are looked for: as the official evaluator wants them, as other tools write them, and as `rotoscope track` does."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Series:
    """One measure of one object over a clip.

    Attributes:
        per_frame: a value in 0..1 for every frame; None for a first or last frame without a prediction.
        summary: mean, recall and decay over the scored frames.
    """

    per_frame: tuple[float | None, ...]
    summary: Summary


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """J and F of one object.

    Attributes:
        object_id: its value in the annotations, 1 for the merged object of DAVIS-2016.
        j: the overlap.
        f: the boundary.
        proposal_id: its value in the predictions, where that is another (`evaluation.davis_unsupervised`); None where it is the same, or has none.
    """

    object_id: int
    j: Series
    f: Series
    proposal_id: int | None = None

    @property
    def j_and_f(self) -> float:
        """The mean of mean J and mean F."""
        return (self.j.summary.mean + self.f.summary.mean) / 2


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The scores of a clip, by object.

    Attributes:
        name: the clip.
        frame_names: the names of all frames, in the order of `Series.per_frame`.
        objects: in the order of their ids.
        notes: what was ignored, in words.
    """

    name: str
    frame_names: tuple[str, ...]
    objects: tuple[ObjectScores, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MeanScores:
    """Means over objects: of a clip, or of all clips."""

    j: Summary
    f: Summary

    @property
    def j_and_f(self) -> float:
        """The mean of mean J and mean F."""
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """What a process needs to score one clip: its files, in the order of time; None where a frame that is not scored has no prediction."""

    name: str
    annotation_paths: tuple[Path, ...]
    prediction_paths: tuple[Path | None, ...]
    merged: bool


def mean_scores(objects: Sequence[ObjectScores]) -> MeanScores:
    """The mean of each figure over objects; with the objects of all clips, the score of the set.

    Raises:
        InputError: there are no objects.
    """
    if not objects:
        message = "there are no objects to score"
        raise InputError(message)
    j, f = [scores.j.summary for scores in objects], [scores.f.summary for scores in objects]
    return MeanScores(_mean_summary(j), _mean_summary(f))


def find_predictions(clips: Sequence[AnnotatedClip], predictions: Path) -> list[ClipFiles]:
    """The predicted mask of each annotated frame, by name: `predictions/CLIP/00000.png`, or another of `PREDICTION_FOLDERS`.

    The first and the last frame are not scored and need no prediction.

    Raises:
        InputError: a clip is too short, or predictions are missing; the message names the clips and the frames.
    """
    if not predictions.is_dir():
        message = f"{predictions} is not a folder; give the folder with the predicted masks, one folder of PNG files per clip"
        raise InputError(message)
    found, faults = [], []
    for clip in clips:
        folder = _prediction_folder(predictions, clip.name)
        paths = tuple(_existing(folder / f"{path.stem}.png") for path in clip.annotation_paths)
        missing = [path.stem for path, prediction in zip(clip.annotation_paths[1:-1], paths[1:-1], strict=True) if prediction is None]
        if len(paths) < 3:
            faults.append(f"clip '{clip.name}' has {len(paths)} frames; a clip needs three, because the first and the last are not scored")
        elif missing:
            scored = len(paths) - 2
            faults.append(f"clip '{clip.name}': {len(missing)} of {scored} scored frames have no prediction in {folder} ({abridged(missing)})")
        found.append(ClipFiles(clip.name, clip.annotation_paths, paths, clip.merged))
    if faults:
        raise InputError("; ".join(faults[:3]) + (f"; and {len(faults) - 3} more clips" if len(faults) > 3 else "") + "; choose clips with --clips")
    return found


def score_clips(files: Sequence[ClipFiles], *, workers: int = 1) -> Iterator[ClipScores]:
    """The scores of each clip, in the order given, whatever the number of processes.

    With `workers` above 1, clips are shared out to so many new processes (spawned: a script that calls this needs the usual `__main__` guard).

    Raises:
        InputError: a mask cannot be read, or has another size than its annotation.
    """
    return each_clip(score_clip, files, workers=workers)


def each_clip(work: Callable[[ClipFiles], Result], files: Sequence[ClipFiles], *, workers: int) -> Iterator[Result]:
    """What `work`, a function of a module, makes of each clip, in the order given; in so many processes, as `score_clips` tells."""
    if workers <= 1 or len(files) <= 1:
        yield from map(work, files)
        return
    pool = ProcessPoolExecutor(min(workers, len(files)), multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        by_length = sorted(range(len(files)), key=lambda i: -len(files[i].annotation_paths))  # so that no long clip is left to the end
        futures = {i: pool.submit(work, files[i]) for i in by_length}
        for i in range(len(files)):
            yield futures[i].result()
    finally:
        pool.shutdown(cancel_futures=True)


def score_clip(files: ClipFiles) -> ClipScores:
    """The scores of one clip.

    Raises:
        InputError: a mask cannot be read, or has another size than its annotation.
    """
    object_ids = (1,) if files.merged else _object_ids(read_label_map(files.annotation_paths[0]))
    frames: list[list[tuple[float, float]] | None] = []
    strangers: set[int] = set()
    latecomers: set[int] = set()
    for annotation_path, prediction_path in zip(files.annotation_paths, files.prediction_paths, strict=True):
        if prediction_path is None:
            frames.append(None)
            continue
        given, predicted = read_label_map(annotation_path), read_label_map(prediction_path)
        if given.shape != predicted.shape:
            sizes = f"is {_size(predicted)} but its annotation is {_size(given)}"
            message = f"clip '{files.name}': {prediction_path} {sizes}; predict at the size of the annotations"
            raise InputError(message)
        if files.merged:
            given, predicted = _merge(given), _merge(predicted)
        else:
            predicted = _single_object(predicted, object_ids)
            strangers.update(set(_object_ids(predicted)).difference(object_ids))
            latecomers.update(set(_object_ids(given)).difference(object_ids))
        frames.append(score_frame(given, predicted, object_ids))
    objects = tuple(_object_scores(object_id, [None if values is None else values[i] for values in frames]) for i, object_id in enumerate(object_ids))
    return ClipScores(files.name, tuple(path.stem for path in files.annotation_paths), objects, _notes(files.name, strangers, latecomers))


def score_frame(given: NDArray[Any], predicted: NDArray[Any], object_ids: Sequence[int]) -> list[tuple[float, float]]:
    """J and F of each object, from two maps of object ids of one size. Pixels given as 255 (void) are left out, unless 255 is an object."""
    if VOID not in object_ids and (void := given == VOID).any():
        predicted = np.where(void, 0, predicted)
    return [jaccard_and_boundary_f(predicted == object_id, given == object_id) for object_id in object_ids]


def _mean_summary(summaries: Sequence[Summary]) -> Summary:
    return Summary(fmean(s.mean for s in summaries), fmean(s.recall for s in summaries), fmean(s.decay for s in summaries))


def _prediction_folder(predictions: Path, clip: str) -> Path:
    folders = [predictions / pattern.format(clip=clip) for pattern in PREDICTION_FOLDERS]
    return next((folder for folder in folders if folder.is_dir() and any(folder.glob("*.png"))), folders[0])


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which stops it
    cv2.setNumThreads(1)  # one core per process


def _object_ids(labels: NDArray[Any]) -> tuple[int, ...]:
    values = np.flatnonzero(np.bincount(labels.ravel())) if labels.dtype == np.uint8 else np.unique(labels)
    return tuple(value for value in values.tolist() if value not in (0, VOID))


def _merge(labels: NDArray[Any]) -> NDArray[np.uint8]:
    merged: NDArray[np.uint8] = (labels != 0).view(np.uint8)
    return merged


def _single_object(predicted: NDArray[Any], object_ids: tuple[int, ...]) -> NDArray[Any]:
    """The prediction, with 255 as the object where a clip has one object and the file is a 0/255 mask."""
    if len(object_ids) != 1 or not np.isin(predicted, (0, VOID)).all():
        return predicted
    return np.where(predicted == VOID, object_ids[0], 0)


def _object_scores(object_id: int, frames: list[tuple[float, float] | None]) -> ObjectScores:
    j, f = (tuple(None if values is None else values[i] for values in frames) for i in range(2))
    return ObjectScores(object_id, _series(j), _series(f))


def _series(per_frame: tuple[float | None, ...]) -> Series:
    scored = [value for value in per_frame[1:-1] if value is not None]
    assert len(scored) == max(len(per_frame) - 2, 0), "find_predictions lets no scored frame without a prediction pass"
    return Series(per_frame, summarize(scored))


def _notes(name: str, strangers: set[int], latecomers: set[int]) -> tuple[str, ...]:
    notes = []
    if strangers:
        notes.append(f"clip '{name}': predicted ids {sorted(strangers)} are no objects of the clip; they count as background")
    if latecomers:
        notes.append(f"clip '{name}': annotated ids {sorted(latecomers)} are not in the first frame; they are not scored")
    return tuple(notes)


def _size(labels: NDArray[Any]) -> str:
    return f"{labels.shape[1]}x{labels.shape[0]}"
