"""Video files: exact frame numbers and times, whatever the container, codec, rate, size and orientation."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from av.container import InputContainer
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import HW, add_sound, cut_short, make_clip, make_sound, number_of, numbered_picture, overwrite

from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame
from rotoscope.video import files
from rotoscope.video.read import Clip, open_clip, read_video

UNEVEN_TIMES = np.cumsum([0.0] + [0.04 if number % 3 else 0.13 for number in range(39)]).tolist()

MAKERS: dict[str, Callable[[Path], Path]] = {
    "mp4": lambda folder: make_clip(folder / "clip.mp4"),
    "mov": lambda folder: make_clip(folder / "clip.mov"),
    "mkv": lambda folder: make_clip(folder / "clip.mkv"),
    "webm": lambda folder: make_clip(folder / "clip.webm", "libvpx-vp9", b_frames=0),
    "webm, vp8": lambda folder: make_clip(folder / "clip.webm", "libvpx", b_frames=0, options={"auto-alt-ref": "1", "lag-in-frames": "16"}),
    "avi": lambda folder: make_clip(folder / "clip.avi", "mpeg4"),
    "avi, h264 without times": lambda folder: make_clip(folder / "clip.avi"),
    "raw h264": lambda folder: make_clip(folder / "clip.h264"),
    "transport stream": lambda folder: make_clip(folder / "clip.ts"),
    "uneven mp4": lambda folder: make_clip(folder / "clip.mp4", times=UNEVEN_TIMES),
    "uneven webm": lambda folder: make_clip(folder / "clip.webm", "libvpx-vp9", b_frames=0, times=UNEVEN_TIMES),
    "open gop": lambda folder: make_clip(folder / "clip.mkv", options={"x264-params": "open-gop=1:keyint=10"}),
    "gradual refresh": lambda folder: make_clip(folder / "clip.mkv", b_frames=0, options={"x264-params": "intra-refresh=1:keyint=12"}),
    "one keyframe": lambda folder: make_clip(folder / "clip.mp4", keyframe_interval=250),
    "with sound": lambda folder: add_sound(make_clip(folder / "silent.mp4"), folder / "clip.mp4"),
    "fragmented mp4": lambda folder: make_clip(folder / "clip.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
}


@pytest.fixture(scope="module", params=MAKERS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return open_clip(MAKERS[request.param](tmp_path_factory.mktemp("clips")))


@pytest.fixture(scope="module")
def frames(clip: Clip) -> list[Frame]:
    return list(clip.frames())


def same(frames: list[Frame], others: list[Frame]) -> bool:
    facts = [(frame.index, frame.time_seconds) for frame in frames] == [(frame.index, frame.time_seconds) for frame in others]
    return facts and all(torch.equal(frame.image, other.image) for frame, other in zip(frames, others, strict=True))


def test_frames_come_in_display_order_with_their_numbers(clip: Clip, frames: list[Frame]) -> None:
    assert clip.num_frames == 40
    assert clip.hw == HW
    assert [frame.index for frame in frames] == list(range(40))
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert clip.warnings == []


def test_frames_read_backwards_are_the_same(clip: Clip, frames: list[Frame]) -> None:
    assert same(list(clip.frames(reverse=True))[::-1], frames)


@given(start=st.integers(0, 41), length=st.integers(0, 41), reverse=st.booleans())
@settings(deadline=None, max_examples=5)
def test_frames_read_from_anywhere_are_the_same(clip: Clip, frames: list[Frame], start: int, length: int, reverse: bool) -> None:
    part = list(clip.frames(start, start + length, reverse=reverse))
    assert same(part[::-1] if reverse else part, frames[start : start + length])


def test_times_are_those_of_presentation(tmp_path: Path) -> None:
    for name, codec in (("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mkv", "libx264")):
        uneven = open_clip(make_clip(tmp_path / name, codec, times=[3 + time for time in UNEVEN_TIMES]))
        assert [frame.time_seconds for frame in uneven.frames()] == pytest.approx(UNEVEN_TIMES, abs=2e-3)
    for name, codec in (("b.avi", "libx264"), ("b.h264", "libx264"), ("b.ts", "libx264")):
        even = open_clip(make_clip(tmp_path / name, codec))
        assert [frame.time_seconds for frame in even.frames()] == pytest.approx([number / 25 for number in range(40)], abs=1e-6)
        assert even.fps == pytest.approx(25)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_applied(tmp_path: Path, degrees: float, turns: int) -> None:
    plain = next(open_clip(make_clip(tmp_path / "plain.mp4", num_frames=3)).frames())
    turned = open_clip(make_clip(tmp_path / "turned.mp4", num_frames=3, rotation=degrees))
    frame = next(turned.frames(1, reverse=False))
    assert turned.hw == frame.hw == (HW if turns == 2 else HW[::-1])
    expected = torch.rot90(plain.image, turns, dims=(1, 2))  # the rotation is counter-clockwise, as that of rot90
    assert next(turned.frames()).image.float().sub(expected.float()).abs().mean() < 2


def test_mirrored_and_upended_video_is_put_right(tmp_path: Path) -> None:
    plain = next(open_clip(make_clip(tmp_path / "plain.mp4", num_frames=2)).frames()).image
    for matrix, axes in (((-1, 0, 0, 1), (2,)), ((1, 0, 0, -1), (1,))):
        path = make_clip(tmp_path / "clip.mp4", num_frames=2)
        place = path.read_bytes().index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
        a, b, c, d = (value * 65536 for value in matrix)
        overwrite(path, place, np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=">i4").tobytes())
        assert torch.equal(next(open_clip(path).frames()).image, plain.flip(axes))


@pytest.mark.parametrize(
    ("codec", "name", "pixel_format"), [("libvpx-vp9", "a.webm", "yuv420p"), ("ffv1", "a.mkv", "yuv444p"), ("mpeg4", "a.avi", "yuv420p")]
)
def test_odd_sizes_are_kept(tmp_path: Path, codec: str, name: str, pixel_format: str) -> None:
    clip = open_clip(make_clip(tmp_path / name, codec, num_frames=5, hw=(47, 63), b_frames=0, pixel_format=pixel_format))
    assert clip.hw == (47, 63)
    assert [number_of(frame) for frame in clip.frames()] == list(range(5))


def one_colour(path: Path, pixel_format: str, planes: tuple[int, ...], *, space: int, colour_range: int) -> list[int]:
    """The RGB that is read from a lossless picture of one colour, given as 8-bit plane values."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *HW, pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = space, colour_range
        frame = av.VideoFrame(HW[1], HW[0], pixel_format)
        frame.colorspace, frame.color_range = space, colour_range
        for plane, value in zip(frame.planes, planes, strict=True):
            content = np.full(plane.buffer_size // 2, 4 * value, np.uint16) if "10" in pixel_format else np.full(plane.buffer_size, value, np.uint8)
            plane.update(content.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return next(open_clip(path).frames()).image[:, 20, 20].tolist()


BT709, UNSTATED, BT601, LIMITED, FULL = 1, 2, 5, 1, 2


@pytest.mark.parametrize(
    ("pixel_format", "planes", "space", "colour_range", "expected"),
    [
        # R = 1.164 (Y - 16) + 1.596 (V - 128) and so on; BT.709 has 1.793, 0.213, 0.533, 2.112
        ("yuv444p", (81, 90, 240), BT601, LIMITED, [254, 0, 0]),
        ("yuv444p", (81, 90, 240), UNSTATED, LIMITED, [254, 0, 0]),
        ("yuv444p", (81, 90, 240), BT709, LIMITED, [255, 24, 0]),
        ("yuv444p", (81, 90, 240), BT709, FULL, [255, 36, 10]),
        ("yuv420p10le", (81, 90, 240), BT709, LIMITED, [255, 24, 0]),
        ("gray", (81,), UNSTATED, FULL, [81, 81, 81]),
        ("gray", (81,), UNSTATED, LIMITED, [76, 76, 76]),
    ],
)
def test_colours_follow_the_stated_matrix_and_range(
    tmp_path: Path, pixel_format: str, planes: tuple[int, ...], space: int, colour_range: int, expected: list[int]
) -> None:
    got = one_colour(tmp_path / "a.mkv", pixel_format, planes, space=space, colour_range=colour_range)
    assert got == pytest.approx(expected, abs=1)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *HW, "bgra"
        frame = av.VideoFrame.from_ndarray(np.full((*HW, 4), [10, 20, 30, 40], np.uint8), format="bgra")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert next(open_clip(path).frames()).image[:, 0, 0].tolist() == [30, 20, 10]


def test_frames_cut_off_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "whole.mkv")
    path = tmp_path / "cut.mp4"
    with av.open(str(source)) as given_container, av.open(str(path), "w") as container:
        stream = given_container.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in given_container.demux(stream):
            if packet.size:
                packet.pts = packet.pts - 200  # the first five frames lie before the start
                packet.dts = None if packet.dts is None else packet.dts - 200
                packet.stream = copy
                container.mux(packet)
    clip = open_clip(path)
    numbers = [number_of(frame) for frame in clip.frames()]
    assert clip.num_frames == len(numbers)
    assert numbers == list(range(numbers[0], 40))
    assert numbers[0] > 0
    assert [number_of(frame) for frame in clip.frames(reverse=True)] == numbers[::-1]


def test_recordings_joined_end_to_end_are_read_one_after_the_other(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "part.ts", num_frames=20).read_bytes()  # its times begin anew in the second half
    path = tmp_path / "joined.ts"
    path.write_bytes(part + part)
    clip = open_clip(path)
    frames = list(clip.frames())
    assert [number_of(frame) for frame in frames] == [*range(20), *range(20)]
    assert [frame.time_seconds for frame in frames] == sorted(frame.time_seconds or 0 for frame in frames)
    assert [number_of(frame) for frame in clip.frames(25, 30, reverse=True)] == [9, 8, 7, 6, 5]


def test_a_file_that_refuses_to_seek_is_read_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn:
        """An opened file whose every seek fails, or leads to the end."""

        def __init__(self, container: InputContainer, *, fails: bool) -> None:
            self._container, self._fails = container, fails

        def __getattr__(self, name: str) -> object:
            return getattr(self._container, name)

        def seek(self, *_: object, stream: av.VideoStream, **__: object) -> None:
            if self._fails:
                raise av.error.PermissionError(1, "Operation not permitted")
            for _packet in self._container.demux(stream):
                pass

    clip = open_clip(make_clip(tmp_path / "clip.mp4"))
    for fails in (True, False):
        monkeypatch.setattr(clip, "_open", lambda fails=fails: Stubborn(files.open_container(str(clip.path), "clip"), fails=fails))  # type: ignore[attr-defined]
        assert [number_of(frame) for frame in clip.frames(30, 34)] == [30, 31, 32, 33]


def test_a_backward_walk_holds_few_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = open_clip(make_clip(tmp_path / "clip.mp4", num_frames=100, keyframe_interval=250))
    chunks = [len(chunk) for chunk in clip._chunks(range(100))]  # type: ignore[attr-defined]
    assert max(chunks) <= files.MAX_CHUNK_FRAMES
    assert sum(chunks) == 100
    monkeypatch.setattr(files, "MAX_CHUNK_BYTES", 6 * 3 * HW[0] * HW[1])
    assert max(len(chunk) for chunk in clip._chunks(range(100))) == 6  # type: ignore[attr-defined]
    assert [number_of(frame) for frame in clip.frames(reverse=True)] == list(range(100))[::-1]


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    hw = (240, 320)
    clip = open_clip(make_clip(tmp_path / "long.mp4", num_frames=250, hw=hw, options={"preset": "ultrafast"}))
    process = psutil.Process(os.getpid())
    for _ in clip.frames(0, 60):
        pass
    before = process.memory_info().rss
    peak = max(process.memory_info().rss for _ in clip.frames())
    assert peak - before < 20 * 2**20  # all frames take 55 MB
    peak = max(process.memory_info().rss for _ in clip.frames(reverse=True))
    assert peak - before < 30 * 2**20


def test_two_walks_over_a_clip_do_not_disturb_each_other(tmp_path: Path) -> None:
    clip = open_clip(make_clip(tmp_path / "clip.mp4"))
    pairs = zip(clip.frames(), clip.frames(reverse=True), strict=True)
    assert [(number_of(one), number_of(other)) for one, other in pairs] == [(number, 39 - number) for number in range(40)]


def test_a_range_beyond_the_end_gives_what_there_is_and_a_negative_one_is_refused(tmp_path: Path) -> None:
    clip = open_clip(make_clip(tmp_path / "clip.mp4", num_frames=5))
    assert [frame.index for frame in clip.frames(3, 99)] == [3, 4]
    assert list(clip.frames(9)) == list(clip.frames(4, 2)) == list(clip.frames(7, 9, reverse=True)) == []
    with pytest.raises(InputError, match="counted from 0"):
        clip.frames(-1)


def test_read_video_takes_part_of_a_clip(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", num_frames=10)
    assert [number_of(frame) for frame in read_video(path, start=2, stop=8, max_frames=3)] == [2, 3, 4]
    assert [number_of(frame) for frame in read_video(str(path), stop=8, max_frames=3, reverse=True)] == [7, 6, 5]
    with pytest.raises(InputError, match="too few"):
        read_video(path, max_frames=-1)


def test_a_change_of_size_within_a_clip_is_an_error(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{hw[0]}.h264", num_frames=5, hw=hw, b_frames=0) for hw in (HW, (64, 96))]
    path = tmp_path / "joined.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoError, match=r"joined\.h264: frame 5 is 96x64 but the clip began with 64x48; cut it"):
        list(open_clip(path).frames())


def test_files_that_are_no_video_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.mp4"
    text.write_text("these are words, not pictures\n" * 20)
    empty.touch()
    cut = make_clip(tmp_path / "cut.mp4")  # its table of contents is at the end
    cut_short(cut, 0.8)
    for path, wrong in (
        (text, "is not a video"),
        (empty, r"is empty \(0 bytes\)"),
        (cut, "damaged, or cut short"),
        (make_sound(tmp_path / "sound.m4a"), r"has no video stream \(only audio\)"),
        (tmp_path / "missing.mp4", "there is no file or folder"),
    ):
        with pytest.raises(VideoError, match=wrong) as caught:
            open_clip(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_cover_of_a_song_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = *HW, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_picture(1), format="rgb24")))
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with pytest.raises(VideoError, match="no video stream"):
        open_clip(path)


@pytest.mark.parametrize("source", [None, 3.5, True, b"clip.mp4"])
def test_what_is_no_source_is_refused(source: object) -> None:
    with pytest.raises(VideoError, match="is no video; give a file"):
        open_clip(source)  # type: ignore[arg-type]


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "clip.mp4", num_frames=2)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(VideoError, match=r"clip\.mp4 may not be read; check its permissions"):
        open_clip(path)


def test_a_name_with_a_colon_or_a_percent_sign_is_a_name(tmp_path: Path) -> None:
    for name in ("http:clip.mp4", "clip%03d.mp4"):
        assert open_clip(make_clip(tmp_path / "plain.mp4", num_frames=2).rename(tmp_path / name)).num_frames == 2
