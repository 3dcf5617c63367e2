"""Frames of a clip by number, in any order: for work that jumps about in a clip."""

from collections import OrderedDict
from collections.abc import Generator, Sequence
from typing import overload

from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame
from rotoscope.video.read import Clip

KEPT_BYTES = 64 * 2**20
"""How much decoded frames may take: 52 frames at 480p, 10 at 1080p."""


class NumberedFrames(Sequence[Frame]):
    """A clip as a sequence of frames.

    Walks forwards and backwards decode each frame once; jumps cost a seek. The last frames used are kept. A frame that cannot be decoded has the
    picture of the nearest one before it, or after it at the start, as players show it.

    Args:
        clip: of a file, a folder or an array; not a live one.
        kept_bytes: how much decoded frames may take; one is kept in any case.

    Raises:
        InputError: the clip is live.
    """

    def __init__(self, clip: Clip, *, kept_bytes: int = KEPT_BYTES) -> None:
        if clip.is_live or clip.num_frames is None:
            message = f"{clip.name} is a live source, whose frames come only once; record it first"
            raise InputError(message)
        self._clip = clip
        self._num_frames = clip.num_frames
        self._capacity = max(1, kept_bytes // max(3 * clip.hw[0] * clip.hw[1], 1))
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._walk: Generator[Frame] | None = None
        self._last = -1
        self._step = 1

    def __len__(self) -> int:
        return self._num_frames

    @overload
    def __getitem__(self, index: int) -> Frame: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...

    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        """The frame of a number, counted from the end if negative.

        Raises:
            IndexError: there is no such frame.
            VideoError: no frame of the clip can be decoded.
        """
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self._num_frames))]
        number = index + self._num_frames if index < 0 else index
        if not 0 <= number < self._num_frames:
            message = f"frame {index} does not exist; the clip has frames 0 to {self._num_frames - 1}"
            raise IndexError(message)
        if number not in self._kept:
            self._keep(self._decoded(number))
        self._kept.move_to_end(number)
        return self._kept[number]

    def _decoded(self, number: int) -> Frame:
        walked = self._walked(number)
        if walked is not None:
            return walked
        nearest = next(self._clip.frames(0, number, reverse=True), None) or next(self._clip.frames(number), None)
        if nearest is None:
            message = f"no frame of {self._clip.name} can be decoded; it is damaged"
            raise VideoError(message)
        return Frame(number, nearest.image, nearest.time_seconds, nearest.name)

    def _walked(self, number: int) -> Frame | None:
        """The frame by going on with the walk that is under way, or by a fresh one; None if it cannot be decoded."""
        if self._walk is None or number != self._last + self._step:
            self._step = -1 if number == self._last - 1 else 1
            if self._walk is not None:
                self._walk.close()
            self._walk = self._clip.frames(0, number + 1, reverse=True) if self._step < 0 else self._clip.frames(number)
        self._last = number
        found = next(self._walk, None)
        if found is not None and found.index == number:
            return found
        self._walk = None
        if found is not None:
            self._keep(found)  # it is beyond the gap, where the walk will come next
        return None

    def _keep(self, frame: Frame) -> None:
        self._kept[frame.index] = frame
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
