"""Live sources: pipes, URLs and cameras."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from made_clips import HW, make_clip, number_of, overwrite, packet_places

from rotoscope.errors import InputError, VideoError
from rotoscope.video.read import Clip, open_clip, read_video
from rotoscope.video.streams import is_live_source


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server over the test's folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
        thread.join()


def test_a_stream_gives_frames_as_they_arrive(server: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.ts", num_frames=20)
    clip = open_clip(f"{server}/clip.ts")
    assert isinstance(clip, Clip)
    assert (clip.is_live, clip.num_frames, clip.hw) == (True, None, HW)
    assert clip.name.endswith("clip.ts")
    assert "/" not in clip.name
    frames = list(clip.frames(stop=12))
    assert [(frame.index, number_of(frame)) for frame in frames] == [(number, number) for number in range(12)]
    assert [frame.time_seconds for frame in frames] == pytest.approx([number / 25 for number in range(12)])
    assert [number_of(frame) for frame in clip.frames(17)] == [17, 18, 19]  # connects again
    assert list(clip.frames(stop=0)) == []


def test_a_stream_ends_when_the_sender_stops(server: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.ts", num_frames=20)
    assert [number_of(frame) for frame in read_video(f"{server}/clip.ts")] == list(range(20))
    assert len(list(read_video(f"{server}/clip.ts", start=3, max_frames=5))) == 5


def test_a_stream_runs_forwards_only(server: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.ts", num_frames=5)
    clip = open_clip(f"{server}/clip.ts")
    with pytest.raises(InputError, match="is live: frames come forwards from 0, not backwards"):
        clip.frames(reverse=True)
    with pytest.raises(InputError, match="not from -1"):
        clip.frames(-1)


def test_a_pipe_is_a_live_source(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = make_clip(tmp_path / "clip.ts", num_frames=10).read_bytes()
    sender = threading.Thread(target=pipe.write_bytes, args=(content,))
    sender.start()
    assert [number_of(frame) for frame in read_video(pipe)] == list(range(10))
    sender.join()


def test_damage_in_a_stream_is_survived_with_a_warning(server: str, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", num_frames=60, noise=20, container_options={"movflags": "faststart"})
    position, size = packet_places(path)[20]
    overwrite(path, position, bytes(size))
    clip = open_clip(f"{server}/clip.mp4")
    assert len(list(clip.frames())) == 59
    assert any("damaged" in warning for warning in clip.warnings)


def test_a_stream_turned_on_its_side_is_upright(server: str, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", num_frames=3, rotation=90)
    clip = open_clip(f"{server}/clip.mp4")
    assert clip.hw == next(clip.frames()).hw == HW[::-1]


def test_sources_that_do_not_answer_say_so(server: str, tmp_path: Path) -> None:
    for source, wrong in (
        (f"{server}/missing.mp4", "cannot be opened"),
        ("http://127.0.0.1:9/clip.mp4", "Connection refused"),
        ("rtsp://user:secret@127.0.0.1:9/x", "Connection refused"),
        ("nonsense://x", "cannot be opened"),
        (250, "camera 250 does not exist"),
        ("/dev/video250", "/dev/video250 does not exist"),
    ):
        with pytest.raises(VideoError, match=wrong) as caught:
            open_clip(source)
        assert "secret" not in str(caught.value)
    (tmp_path / "words.mp4").write_text("no video at all " * 50)
    with pytest.raises(VideoError, match="is not a video"):
        open_clip(f"{server}/words.mp4")


def test_a_stream_that_times_out_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object, timeout: float, **__: object) -> None:
        raise av.error.ExitError(1, f"no answer in {timeout} s")

    monkeypatch.setattr(av, "open", wait)
    with pytest.raises(VideoError, match="rtsp://camera/x did not answer within 10 seconds"):
        open_clip("rtsp://camera/x")


def test_a_stream_without_a_picture_says_so(server: str, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", noise=20, container_options={"movflags": "faststart"})
    places = packet_places(path)
    overwrite(path, places[0][0], bytes(path.stat().st_size - places[0][0]))
    with pytest.raises(VideoError, match="gave no picture"):
        open_clip(f"{server}/clip.mp4")


def test_devices_and_addresses_are_told_from_files(tmp_path: Path) -> None:
    assert is_live_source("udp://239.0.0.1:1234")
    assert is_live_source("/dev/video0")
    assert not is_live_source(str(tmp_path))
    assert not is_live_source("clip.mp4")
