"""The main job as a generator: a video and a few given masks in, masks for every frame out."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rotoscope.errors import MaskError
from rotoscope.jobs.plan import Direction, Pass, plan_passes
from rotoscope.models import registry
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Frame, Masks, Tracker
from rotoscope.video.masks import read_labels
from rotoscope.video.read import READ_AHEAD_FRAMES, Clip, open_clip, prefetch

MaskSource = str | Path | NDArray[Any] | Tensor | Masks
"""A mask: a file, a map of object ids `[h, w]` (numpy or torch), or `Masks`."""


@dataclass(frozen=True, slots=True)
class TrackResult:
    """What is known of one frame.

    Attributes:
        frame_index: position in the clip, from 0.
        time_seconds: presentation time; None for folders of images.
        labels: the object id of each pixel, 0 for the background, int32 `[h, w]` at the frame's size.
        object_ids: the objects known so far; those out of sight have no pixels.
        scores: for each object the confidence in 0..1, 0 where it has no pixels.
        given: whether a mask was given for this frame.
        masks: the probabilities behind the labels.
        frame: the picture.
    """

    frame_index: int
    time_seconds: float | None
    labels: NDArray[np.int32]
    object_ids: tuple[int, ...]
    scores: dict[int, float]
    given: bool
    masks: Masks
    frame: Frame


class GivenMasks(Mapping[int, Masks]):
    """Masks given by frame index, read when they are asked for, so that many given frames need little memory.

    Every source is read once at the start, so that a bad one is reported before any work is done.

    Args:
        sources: the masks by frame index.
        hw: the size of the frames.
        resize: accept masks of another size, and resize them.

    Raises:
        MaskError: a mask cannot be read, is empty, or has another size than the frames.
    """

    def __init__(self, sources: Mapping[int, MaskSource], hw: tuple[int, int], *, resize: bool = False) -> None:
        self._sources = dict(sources)
        self._hw = hw
        self._resize = resize
        self.notes: list[str] = []
        for frame_index in self._sources:
            masks, notes = self._read(frame_index)
            if not masks.object_ids:
                message = f"the mask given for frame {frame_index} is empty; it must hold at least one object"
                raise MaskError(message)
            self.notes += notes

    def __getitem__(self, frame_index: int) -> Masks:
        return self._read(frame_index)[0]

    def __iter__(self) -> Iterator[int]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def _read(self, frame_index: int) -> tuple[Masks, tuple[str, ...]]:
        source = self._sources[frame_index]
        if isinstance(source, Masks):
            return self._sized(source, frame_index), ()
        if isinstance(source, str | Path):
            loaded = read_labels(source, hw=self._hw, resize=self._resize)
            return Masks.from_labels(loaded.labels), loaded.notes
        return self._sized(Masks.from_labels(_label_tensor(source, frame_index)), frame_index), ()

    def _sized(self, masks: Masks, frame_index: int) -> Masks:
        if masks.hw == self._hw:
            return masks
        if not self._resize:
            message = (
                f"the mask for frame {frame_index} is {masks.hw[1]}x{masks.hw[0]} but the video is {self._hw[1]}x{self._hw[0]}; "
                "resize it, or ask for that with resize_masks (--resize-mask)"
            )
            raise MaskError(message)
        probs = torch.nn.functional.interpolate(masks.probs[None], size=self._hw, mode="nearest")[0]
        return Masks(probs, masks.object_ids)


def track(
    video: str | Path | int | NDArray[np.uint8] | Tensor,
    masks: MaskSource | Mapping[int, MaskSource],
    *,
    model: str | Tracker = "default",
    direction: Direction = "both",
    max_memory_bytes: int | None = None,
    frames: slice = slice(None),
    resize_masks: bool = False,
) -> Iterator[TrackResult]:
    """Follow objects through a clip.

    Everything is checked before the first frame is asked for. Frames stream: memory does not grow with the clip. Stop whenever you like.

    Args:
        video: a file, folder of images, stream or camera number, or frames as uint8 `[t, h, w, 3]`.
        masks: the mask of the first frame, or masks by frame index.
        model: a name from `list_models`, or what `load` gave.
        direction: "both" also covers the frames before the first given mask; see `rotoscope.jobs.plan.plan_passes`.
        max_memory_bytes: the budget for remembered frames; None for the model's own schedule without limit.
        frames: the frames to cover, as `slice(start, stop)`; by default all.
        resize_masks: accept masks of another size than the frames.

    Yields:
        A result per frame: first the frames before the first given mask, backwards, then the others, forwards.

    Raises:
        InputError: the video or a mask cannot be used; the message says why.
        CheckpointError: the model's weights are missing.

    Example:
        >>> import numpy as np, rotoscope
        >>> frames = np.zeros((3, 48, 64, 3), dtype=np.uint8)
        >>> frames[:, 10:30, 20:40] = 200
        >>> first = np.zeros((48, 64), dtype=np.uint8)
        >>> first[10:30, 20:40] = 1
        >>> [result.frame_index for result in rotoscope.track(frames, first)]
        [0, 1, 2]
    """
    clip = open_clip(video)
    sources = masks if isinstance(masks, Mapping) else {0: masks}
    passes = plan_passes(sources, clip.num_frames, direction=direction, within=frames)
    given = GivenMasks(sources, clip.hw, resize=resize_masks)
    tracker = registry.load(model) if isinstance(model, str) else model
    return _run_passes(clip, passes, given, tracker, max_memory_bytes)


def _run_passes(clip: Clip, passes: list[Pass], given: GivenMasks, tracker: Tracker, max_memory_bytes: int | None) -> Iterator[TrackResult]:
    for one_pass in passes:
        propagator = tracker.start(max_memory_bytes=max_memory_bytes)
        for frame, masks in propagate(frames_of(clip, one_pass), propagator, given):
            if one_pass.reverse and len(passes) > 1 and frame.index in given:
                continue  # the forward pass starts at this very frame
            yield result_of(frame, masks, given=frame.index in given)


def frames_of(clip: Clip, one_pass: Pass) -> Generator[Frame]:
    """The frames of a pass, decoded ahead in a thread."""
    return prefetch(clip.frames(one_pass.start, one_pass.stop, reverse=one_pass.reverse), READ_AHEAD_FRAMES)


def result_of(frame: Frame, masks: Masks, *, given: bool) -> TrackResult:
    """The result for a frame, from its masks."""
    scores = dict(zip(masks.object_ids, masks.confidence(), strict=True))
    labels = masks.labels().cpu().numpy()
    return TrackResult(frame.index, frame.time_seconds, labels, masks.object_ids, scores, given=given, masks=masks, frame=frame)


def _label_tensor(source: NDArray[Any] | Tensor, frame_index: int) -> Tensor:
    labels = torch.as_tensor(np.ascontiguousarray(source) if isinstance(source, np.ndarray) else source)
    if labels.dtype == torch.bool:
        labels = labels.to(torch.uint8)
    if labels.ndim == 2 and labels.dtype == torch.uint8 and set(torch.unique(labels).tolist()) <= {0, 255}:
        labels = labels // 255  # black and white, as mask files have it
    if labels.ndim != 2 or labels.is_floating_point() or labels.is_complex():
        shape = "x".join(str(size) for size in labels.shape)
        message = f"the mask for frame {frame_index} is {labels.dtype} {shape}; give a map of integer object ids [h, w]"
        raise MaskError(message)
    return labels.to(torch.int32)
