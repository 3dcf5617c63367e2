"""Objects in pictures as a generator: images or videos in, the objects of each picture out."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rotoscope.errors import InputError, VideoError
from rotoscope.jobs.detect_inputs import READ_AHEAD_PICTURES, NamedPicture, Unreadable, open_inputs
from rotoscope.models import registry
from rotoscope.tracking.class_names import class_names_of, name_of
from rotoscope.types import Detections, Detector, Frame
from rotoscope.video.read import open_clip, prefetch
from rotoscope.video.streams import is_live_source

DEFAULT_SCORE = 0.15
"""Below it, detections are rather wrong than right (the call in the official README of YOLACT)."""
DEFAULT_TOP_K = 15
"""Detections of a picture that are kept (the same)."""

Item = TypeVar("Item")


@runtime_checkable
class BatchDetector(Protocol):
    """A detector that can look at several frames at once."""

    def detect_batch(self, frames: Sequence[Frame]) -> list[Detections]:
        """The objects of each frame, best first."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the detections are kept.

    Attributes:
        score: the least; where a detector judges its masks, the mask's score counts.
        top_k: how many of a picture, at most; the best.
        class_ids: the classes that are kept, as indices into the detector's list; None for all.

    Raises:
        InputError: a number is out of range.
    """

    score: float = DEFAULT_SCORE
    top_k: int = DEFAULT_TOP_K
    class_ids: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            message = f"the least score is {self.score}; give a number from 0 (keep all) to 1"
            raise InputError(message)
        if self.top_k < 1:
            message = f"the best {self.top_k} detections are none; give 1 or more"
            raise InputError(message)


@dataclass(frozen=True, slots=True)
class DetectResult:
    """What was found in one picture.

    Attributes:
        frame: the picture; its index is the position in the video, or in the folder.
        detections: best first, possibly none; see `Detections`.
        class_names: of each detection.
    """

    frame: Frame
    detections: Detections
    class_names: tuple[str, ...]


def detect(
    source: str | Path | int | NDArray[np.uint8] | Tensor,
    *,
    model: str | Detector = registry.DEFAULT_DETECTOR,
    score: float = DEFAULT_SCORE,
    top_k: int = DEFAULT_TOP_K,
    classes: Iterable[str] | None = None,
    batch: int = 1,
) -> Iterator[DetectResult]:
    """Find the objects of an image, of each image of a folder, or of each frame of a video.

    The source and the model are checked before the first picture is asked for. Pictures stream. Boxes and masks refer to the upright picture.

    Args:
        source: an image, a folder of images (of any sizes), a video, a stream or camera number, or frames as uint8 `[t, h, w, 3]`.
        model: a name from `list_models("detect")`, or what `load_detector` gave.
        score: the least score of a detection.
        top_k: how many detections of a picture are kept, at most.
        classes: the names of the classes that are kept; by default all.
        batch: how many pictures the model looks at together.

    Raises:
        InputError: the source cannot be read, an image of it cannot be (when it is reached), or there is no such class; the message says why.
        CheckpointError: the model's weights are missing.

    Example:
        >>> import torch, numpy as np, rotoscope
        >>> class Nothing:
        ...     def detect(self, frame):
        ...         return rotoscope.Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0, *frame.hw) > 0)
        >>> [len(result.class_names) for result in rotoscope.detect(np.zeros((3, 48, 64, 3), np.uint8), model=Nothing())]
        [0, 0, 0]
    """
    frames = _frames_of(source)
    detector = registry.load_detector(model) if isinstance(model, str) else model
    names = class_names_of(detector)
    choice = Choice(score, top_k, class_ids(names, classes))
    _check_batch(batch)
    return _results(frames, detector, names, choice, batch)


def _results(frames: Iterator[Frame], detector: Detector, names: Sequence[str], choice: Choice, batch: int) -> Iterator[DetectResult]:
    for some in in_batches(frames, batch):
        for frame, found in zip(some, find(detector, some), strict=True):
            kept = choose(found, choice)
            yield DetectResult(frame, kept, tuple(name_of(names, class_id) for class_id in kept.class_ids.tolist()))


def find(detector: Detector, frames: Sequence[Frame]) -> list[Detections]:
    """The objects of each frame, from one look at all of them where the detector can."""
    if isinstance(detector, BatchDetector) and len(frames) > 1:
        return detector.detect_batch(frames)
    return [detector.detect(frame) for frame in frames]


def choose(found: Detections, choice: Choice) -> Detections:
    """The detections that are kept, on the CPU, best first; by the scores of their masks where there are some."""
    scores = ranking_scores(found)
    keep = scores >= choice.score
    if choice.class_ids is not None:
        keep &= torch.isin(found.class_ids, torch.tensor(sorted(choice.class_ids), device=found.class_ids.device))
    kept = keep.nonzero()[:, 0]
    best = kept[scores[kept].argsort(descending=True, stable=True)][: choice.top_k]
    judged = None if found.mask_scores is None else found.mask_scores[best].cpu()
    return Detections(found.boxes[best].cpu(), found.scores[best].cpu(), found.class_ids[best].cpu(), found.masks[best].cpu(), judged)


def ranking_scores(found: Detections) -> Tensor:
    """The score of each detection as a whole: that of its mask where the detector judges masks, otherwise that of its class."""
    return found.scores if found.mask_scores is None else found.mask_scores


def class_ids(names: Sequence[str], wanted: Iterable[str] | None) -> frozenset[int] | None:
    """The indices of the classes that are wanted, whatever the case of the letters; None if all are.

    Raises:
        InputError: there is no such class, or none is wanted.
    """
    if wanted is None:
        return None
    index_of = {name.casefold(): index for index, name in enumerate(names)}
    asked = [name.strip() for name in wanted if name.strip()]
    unknown = [name for name in asked if name.casefold() not in index_of]
    if unknown or not asked:
        message = f"the model has no class '{', '.join(unknown)}'; its classes are {', '.join(names) or 'without names'}"
        raise InputError(message)
    return frozenset(index_of[name.casefold()] for name in asked)


def in_batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`; the last may be shorter."""
    while some := list(islice(items, size)):
        yield some


def _check_batch(batch: int) -> None:
    if batch < 1:
        message = f"a batch of {batch} pictures is empty; give 1 or more"
        raise InputError(message)


def _frames_of(source: str | Path | int | NDArray[np.uint8] | Tensor) -> Iterator[Frame]:
    if isinstance(source, str | Path) and not is_live_source(str(source)):
        return _readable(open_inputs([source]).pictures())
    return prefetch(open_clip(source).frames(), READ_AHEAD_PICTURES)


def _readable(pictures: Generator[NamedPicture | Unreadable]) -> Iterator[Frame]:
    with closing(pictures):
        for picture in pictures:
            if isinstance(picture, Unreadable):
                raise VideoError(picture.reason)
            yield picture.frame
