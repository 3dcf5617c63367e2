"""Damaged video files: what can be decoded is given, under its right number, and what is lost is said."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from made_clips import cut_short, make_clip, number_of, overwrite, packet_places

from rotoscope.errors import VideoError
from rotoscope.video.read import open_clip
from rotoscope.video.streams import MAX_WARNINGS, Warnings, read_packets


def noisy(path: Path, **options: object) -> Path:
    return make_clip(path, num_frames=60, noise=20, **options)  # type: ignore[arg-type]


def test_decoding_goes_on_after_damaged_packets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = noisy(tmp_path / "clip.mp4", b_frames=0)
    position, size = packet_places(path)[20]
    overwrite(path, position, bytes(size))
    clip = open_clip(path)
    with caplog.at_level(logging.WARNING):
        frames = list(clip.frames())
    assert clip.num_frames == 60
    assert [frame.index for frame in frames] == [index for index in range(60) if index != 20]
    after = [frame for frame in frames if frame.index > 24]  # from the next keyframe on the pictures are right again
    assert [number_of(frame) for frame in after] == [frame.index for frame in after]
    assert clip.warnings == ["clip.mp4: frame 20 (at 0.80 s) cannot be decoded and will be left out"]
    assert clip.warnings[0] in caplog.text


def test_the_numbers_of_a_damaged_file_are_the_same_from_anywhere(tmp_path: Path) -> None:
    path = noisy(tmp_path / "clip.mp4")
    position, _ = packet_places(path)[20]
    overwrite(path, position, bytes(sum(size for _, size in packet_places(path)[20:23])))
    clip = open_clip(path)
    forwards = [frame.index for frame in clip.frames()]
    said = list(clip.warnings)
    assert len(forwards) == 57
    assert [frame.index for frame in clip.frames(reverse=True)] == forwards[::-1]
    for start in (17, 20, 23, 30):
        assert [frame.index for frame in clip.frames(start)] == [index for index in forwards if index >= start]
    assert clip.warnings == said  # once is enough


def test_a_damaged_picture_is_given_with_a_warning(tmp_path: Path) -> None:
    path = noisy(tmp_path / "clip.mp4")
    position, size = packet_places(path)[20]
    overwrite(path, position + 40, bytes(size - 40))
    clip = open_clip(path)
    assert [frame.index for frame in clip.frames()] == list(range(60))
    assert any("is damaged; parts of it may be wrong" in warning for warning in clip.warnings)


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "clip.ts", "clip.webm"])
def test_noise_in_the_middle_of_any_container_is_survived(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = noisy(tmp_path / name, codec=codec)
    length = path.stat().st_size
    overwrite(path, length // 2, np.random.default_rng(0).integers(0, 256, 2500).astype(np.uint8).tobytes())
    clip = open_clip(path)
    frames = list(clip.frames())
    assert 40 <= len(frames) <= 60
    assert [number_of(frame) for frame in frames[:20]] == list(range(20))
    assert number_of(frames[-1]) == 59
    if not name.endswith("avi"):  # AVI has no times: what is lost shortens it
        assert frames[-1].time_seconds == pytest.approx(59 / 25, abs=0.01)
    assert clip.warnings


@pytest.mark.parametrize(
    ("name", "options"),
    [("clip.mp4", {"movflags": "faststart"}), ("clip.mp4", {"movflags": "frag_keyframe+empty_moov"}), ("clip.mkv", {}), ("clip.avi", {})],
)
def test_what_is_left_of_a_file_cut_short_is_read_with_a_warning(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = noisy(tmp_path / name, container_options=options, b_frames=0)
    cut_short(path, 0.6)
    clip = open_clip(path)
    frames = list(clip.frames())
    assert 20 <= len(frames) < 45
    assert [number_of(frame) for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert any("cut short" in warning or "cannot be decoded" in warning for warning in clip.warnings)


def test_a_file_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    path = noisy(tmp_path / "clip.mp4")
    places = packet_places(path)
    start, end = places[0][0], places[-1][0] + places[-1][1]
    overwrite(path, start, bytes(end - start))
    with pytest.raises(VideoError, match=r"clip\.mp4 holds no frame that can be decoded"):
        open_clip(path)


def test_a_clip_with_still_stretches_is_not_called_damaged(tmp_path: Path) -> None:
    times = np.cumsum([0.0] + [0.04 if number % 4 else 0.5 for number in range(39)]).tolist()
    assert open_clip(make_clip(tmp_path / "clip.mp4", times=times)).warnings == []


class Failing:
    """A container whose reading fails a number of times before each packet."""

    def __init__(self, error: Exception, times: int) -> None:
        self._error, self._times, self._failures = error, times, 0

    def demux(self, _: object) -> Iterator[SimpleNamespace]:
        for _packet in range(3):
            if self._failures < self._times:
                self._failures += 1
                raise self._error
            self._failures = 0
            yield SimpleNamespace(size=1)
        self._times = 0


@pytest.mark.parametrize(
    ("error", "times", "packets", "said"),
    [
        (av.error.InvalidDataError(1, "damaged"), 0, 3, []),
        (av.error.InvalidDataError(1, "damaged"), 99, 0, ["reading stopped early: nothing but damaged data follows"]),
        (av.error.TimeoutError(110, "Connection timed out"), 1, 0, ["reading stopped early: Connection timed out"]),
    ],
)
def test_reading_goes_on_after_damage_but_not_without_end(error: Exception, times: int, packets: int, said: list[str]) -> None:
    reports: list[str] = []
    assert len(list(read_packets(Failing(error, times), None, reports.append))) == packets  # type: ignore[arg-type]
    assert reports == said


def test_warnings_are_said_once_and_not_without_end() -> None:
    warnings = Warnings()
    warnings.add("frame 1 is damaged")
    warnings.add("frame 1 is damaged")
    assert warnings == ["frame 1 is damaged"]
    for number in range(2 * MAX_WARNINGS):
        warnings.add(f"frame {number} is damaged")
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "further damage is not listed"
