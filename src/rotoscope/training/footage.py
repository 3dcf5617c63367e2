"""Frames of clips without masks, for self-supervised training: pairs some frames apart, or a frame with all that a memory would hold of its past."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from rotoscope.datasets.clips import Footage
from rotoscope.errors import InputError, VideoError
from rotoscope.memory import MemorySchedule
from rotoscope.ops.color import lab_to_rgb
from rotoscope.training.damage import DamagedFrames
from rotoscope.training.task import Batch, Draw, SamplePictures
from rotoscope.video.folders import read_picture
from rotoscope.video.read import Clip, open_clip

Picture = NDArray[np.uint8]
"""RGB `[h, w, 3]`."""

_TRIES = 20  # of a sample whose frames cannot be read


@runtime_checkable
class FrameSource(Protocol):
    """What gives a self-supervised training its frames.

    Attributes:
        frames: the clips they are from.
    """

    frames: "FootageFrames"

    def batch(self, draw: Draw) -> Batch:
        """`images` bytes [t, n, 3, size, size], in the order of time, the last one being the target; `gaps` [t - 1], from each to the target."""
        ...


class FootageFrames:
    """The frames of clips at one size; their aspect is not kept.

    Args:
        footage: the clips.
        size: side of the square frames.

    Attributes:
        lengths: the number of frames of each clip.

    Raises:
        VideoError: a video file cannot be opened.
    """

    def __init__(self, footage: Sequence[Footage], *, size: int) -> None:
        self._footage = footage
        self._size = size
        self._videos: dict[int, Clip] = {index: open_clip(one.video) for index, one in enumerate(footage) if one.video is not None}
        counts = [self._videos[index].num_frames if index in self._videos else len(one.frame_paths) for index, one in enumerate(footage)]
        self.lengths = np.asarray([count or 0 for count in counts])
        self._damaged = DamagedFrames(int(self.lengths.sum()))

    @property
    def damaged(self) -> tuple[str, ...]:
        """The frames met so far that cannot be read."""
        return self._damaged.names

    def samples(self, draw: Draw, drawn: Callable[[np.random.Generator], tuple[int, Sequence[int]]]) -> UInt8[Tensor, "t n 3 size size"]:
        """The frames of a draw, each sample's from a generator of its own: `drawn` gives a clip, and numbers of its frames.

        Raises:
            InputError: more than 1 % of all frames turned out to be damaged, or all of a sample's tries met one.
        """
        seeds = torch.randint(2**62, (draw.size,), generator=draw.generator())
        samples = np.stack([self._sample(np.random.default_rng(seed), drawn) for seed in seeds.tolist()], axis=1)
        return torch.from_numpy(samples).permute(0, 1, 4, 2, 3).contiguous()

    def _sample(self, random: np.random.Generator, drawn: Callable[[np.random.Generator], tuple[int, Sequence[int]]]) -> Picture:
        for _ in range(_TRIES):
            clip, indices = drawn(random)
            try:
                return np.stack([self._read(clip, index) for index in indices])
            except VideoError as error:
                last = error
        message = f"{_TRIES} samples drawn one after the other held a frame that cannot be read; the last: {last}"
        raise InputError(message)

    def _read(self, clip: int, index: int) -> Picture:
        try:
            picture = self._decoded(clip, index)
        except VideoError as error:
            self._damaged.add(f"{self._footage[clip].name} frame {index}", error)
            raise
        return np.asarray(cv2.resize(picture, (self._size, self._size), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    def _decoded(self, clip: int, index: int) -> Picture:
        if clip not in self._videos:
            return read_picture(self._footage[clip].frame_paths[index])
        frame = next(self._videos[clip].frames(index, index + 1), None)
        if frame is None:
            message = f"frame {index} of {self._footage[clip].video} cannot be decoded"
            raise VideoError(message)
        return np.ascontiguousarray(frame.image.permute(1, 2, 0).numpy())


class PairSource:
    """A frame and a later one.

    Every clip takes part with an interval drawn for it, and gives as many pairs as fit into it without overlap: so short intervals make more pairs
    than their odds. The official code draws the intervals anew for each epoch and starts at the first frame; here each pair is drawn by itself, from
    the same distribution over clips and intervals, and may start anywhere (MAST's sheet, section 4).

    Args:
        frames: of the clips.
        intervals: how many frames apart.
        odds: of each interval, for a clip.

    Raises:
        InputError: all clips are shorter than the intervals.
    """

    def __init__(self, frames: FootageFrames, *, intervals: Sequence[int] = (2, 5, 8), odds: Sequence[float] = (0.4, 0.4, 0.2)) -> None:
        self.frames = frames
        self._intervals = np.asarray(intervals)
        pairs = -(-frames.lengths[:, None] // self._intervals) // 2
        self._cumulated = (pairs * np.asarray(odds)).ravel().cumsum()
        if not self._cumulated[-1] > 0:
            message = f"no clip is longer than {min(intervals)} frames, so no pair can be drawn; give longer clips"
            raise InputError(message)

    def batch(self, draw: Draw) -> Batch:
        """The pairs of a draw; all count as one frame apart, which is how they are read whatever their interval (official code)."""
        return {"images": self.frames.samples(draw, self.drawn), "gaps": torch.ones(1, dtype=torch.int64)}

    def drawn(self, random: np.random.Generator) -> tuple[int, Sequence[int]]:
        """A clip, and two of its frames."""
        place = int(np.searchsorted(self._cumulated, random.random() * self._cumulated[-1], side="right"))
        clip, gap = place // len(self._intervals), int(self._intervals[place % len(self._intervals)])
        start = int(random.integers(self.frames.lengths[clip] - gap))
        return clip, (start, start + gap)


class MemorySource:
    """A frame, and those before it that a tracker would remember.

    The paper does not say how they are drawn. Here each batch has one distance from the first frame to the target, and any clip and start that
    leave room for it.

    Args:
        frames: of the clips.
        schedule: which steps of a pass serve as references.
        longest: the greatest distance from the first frame to the target.

    Raises:
        InputError: no clip has two frames.
    """

    def __init__(self, frames: FootageFrames, schedule: MemorySchedule, *, longest: int = 40) -> None:
        self.frames = frames
        self._schedule = schedule
        self._longest = min(longest, int(frames.lengths.max(initial=0)) - 1)
        if self._longest < 1:
            message = "no clip has two frames; give longer clips"
            raise InputError(message)
        complete = 1 + max((*schedule.anchors, schedule.num_recent))
        self._shortest = min(complete, self._longest)

    def batch(self, draw: Draw) -> Batch:
        """The samples of a draw; their gaps are the same."""
        random = np.random.default_rng((draw.generator().initial_seed(), 1))  # 1: apart from what the samples draw
        target = int(random.integers(self._shortest, self._longest + 1))
        steps = references_of(self._schedule, target)
        return {
            "images": self.frames.samples(draw, lambda source: self._drawn((*steps, target), source)),
            "gaps": torch.tensor([target - step for step in steps]),
        }

    def _drawn(self, steps: Sequence[int], random: np.random.Generator) -> tuple[int, Sequence[int]]:
        starts = (self.frames.lengths - steps[-1]).clip(0).cumsum()
        place = int(random.integers(starts[-1]))
        clip = int(np.searchsorted(starts, place, side="right"))
        start = int(starts[clip]) - place - 1
        return clip, [start + step for step in steps]


def references_of(schedule: MemorySchedule, target: int) -> list[int]:
    """The steps before a target that serve it when every frame was remembered in turn and only the first was given; ascending."""
    recent = {target - age for age in schedule.recent if age <= target}
    given = {0} if schedule.given_serve else set()
    return sorted(step for step in range(target) if step in given or step in recent or schedule.is_long_term(step))


def repainted(
    images: UInt8[Tensor, "t n 3 h w"], target: Float[Tensor, "n 3 h w"], rebuilt: Float[Tensor, "n 1 h2 w2"], channel: int
) -> SamplePictures:
    """The first sample's frames, and after them the last one with its rebuilt channel; there are no labels.

    Args:
        images: in the order of time, the last one being the target.
        target: its Lab, L in 0..100.
        rebuilt: one channel of that, on a coarser grid.
        channel: which.
    """
    lab = target[0].float().clone()
    lab[channel] = nn.functional.interpolate(rebuilt[:1].float(), lab.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    painted = (lab_to_rgb(lab) * 255).round().to(torch.uint8)
    frames = torch.cat((images[:, 0], painted[None])).cpu()
    labels = torch.zeros((frames.shape[0], *frames.shape[2:]), dtype=torch.int64)
    return SamplePictures(frames, labels, labels)
