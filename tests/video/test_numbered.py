from collections.abc import Generator, Sequence

import numpy as np
import pytest
import torch

from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame
from rotoscope.video.numbered import NumberedFrames
from rotoscope.video.read import open_clip


class Counting:
    """A clip that counts walks and decoded frames; some frames cannot be decoded."""

    name, hw, fps, is_live, frame_names, warnings = "clip", (2, 3), None, False, (), []

    def __init__(self, num_frames: int = 10, broken: Sequence[int] = ()) -> None:
        self.num_frames: int | None = num_frames
        self.broken = broken
        self.walks = 0
        self.decoded: list[int] = []

    def frames(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Generator[Frame]:
        wanted = range(start, min(self.num_frames if stop is None else stop, self.num_frames))
        return self._walk(wanted[::-1] if reverse else wanted)

    def _walk(self, wanted: range) -> Generator[Frame]:
        self.walks += 1
        for index in wanted:
            if index not in self.broken:
                self.decoded.append(index)
                yield Frame(index, torch.full((3, 2, 3), index, dtype=torch.uint8))


def test_frames_come_by_number_from_any_clip() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(9, 2).repeat(3, 3)
    frames = NumberedFrames(open_clip(pictures))
    assert len(frames) == 5
    for number in (3, 1, 4, -1, 0):
        assert frames[number].index == number % 5
        assert int(frames[number].image[0, 0, 0]) == number % 5
    assert [frame.index for frame in frames[1:4]] == [1, 2, 3]
    assert [frame.index for frame in frames] == list(range(5))
    with pytest.raises(IndexError, match="frames 0 to 4"):
        frames[5]


def test_a_walk_in_either_direction_decodes_each_frame_once() -> None:
    clip = Counting()
    frames = NumberedFrames(clip, kept_bytes=0)
    for number in (*range(3, 10), *range(8, -1, -1)):
        assert frames[number].index == number
        assert frames[number].index == number  # kept
    assert clip.decoded == [*range(3, 10), *range(8, -1, -1)]
    assert clip.walks == 2


def test_frames_are_kept_within_the_budget() -> None:
    clip = Counting()
    frames = NumberedFrames(clip, kept_bytes=3 * 18)
    for number in (0, 1, 2, 0, 1, 2):
        frames[number]
    assert clip.decoded == [0, 1, 2]
    frames[3], frames[0]
    assert clip.decoded == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("order", [range(10), range(9, -1, -1), (5, 0, 9, 4, 3, 8)])
def test_a_frame_that_cannot_be_decoded_has_its_neighbours_picture(order: Sequence[int]) -> None:
    frames = NumberedFrames(Counting(broken=(0, 4, 5, 9)))
    shown = {0: 1, 4: 3, 5: 3, 9: 8}
    for number in order:
        assert frames[number].index == number
        assert int(frames[number].image[0, 0, 0]) == shown.get(number, number)


def test_live_and_wholly_damaged_clips_are_refused() -> None:
    with pytest.raises(VideoError, match="damaged"):
        NumberedFrames(Counting(2, broken=(0, 1)))[0]
    live = Counting()
    live.is_live = True
    with pytest.raises(InputError, match="record it first"):
        NumberedFrames(live)
