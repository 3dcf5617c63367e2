"""Reading ahead: the same items, in a thread that never outlives its use."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import make_clip

from rotoscope.errors import InputError, VideoError
from rotoscope.video.read import prefetch, read_video


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "rotoscope-read-ahead"] == []


class Source:
    """Counts up, and remembers how far it came and in which thread it was closed."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.made = 0
        self.closed_in: str | None = None
        self._fail_at = fail_at

    def items(self) -> Iterator[int]:
        try:
            while True:
                if self.made == self._fail_at:
                    message = "frame 3 is damaged"
                    raise VideoError(message)
                self.made += 1
                yield self.made - 1
        finally:
            self.closed_in = threading.current_thread().name


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_items_come_through_in_order(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth)) == items


def test_no_more_than_the_depth_waits() -> None:
    source = Source()
    with closing(prefetch(source.items(), 3)) as ahead:
        assert next(ahead) == 0
        time.sleep(0.05)
        assert source.made <= 1 + 3 + 1  # taken, waiting, in the making


def test_an_error_comes_at_its_place() -> None:
    ahead = prefetch(Source(fail_at=3).items(), 8)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(VideoError, match="frame 3 is damaged"):
        next(ahead)
    assert list(ahead) == []


def test_a_source_that_cannot_even_start_is_an_error() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(prefetch(5, 2))  # type: ignore[arg-type]


def test_closing_stops_the_thread_and_closes_the_source_in_it() -> None:
    source = Source()
    ahead = prefetch(source.items(), 1)
    next(ahead)
    ahead.close()
    assert source.closed_in == "rotoscope-read-ahead"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_loop_stops_the_thread(error: type[BaseException]) -> None:
    source = Source()

    def consume() -> None:
        with closing(prefetch(source.items(), 2)) as ahead:
            for item in ahead:
                if item == 4:
                    raise error

    with suppress(error):
        consume()
    assert source.closed_in is not None


def test_dropping_the_generator_stops_the_thread() -> None:
    ahead = prefetch(Source().items(), 2)
    next(ahead)
    del ahead
    gc.collect()


def test_a_generator_that_was_never_started_has_no_thread() -> None:
    prefetch(Source().items(), 2).close()
    with pytest.raises(InputError, match="0 items ahead"):
        prefetch([], 0)


def test_a_source_stuck_in_a_read_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rotoscope.video.read._STOP_SECONDS", 0.05)
    released = threading.Event()

    def stuck() -> Iterator[int]:
        yield 0
        released.wait()

    ahead = prefetch(stuck(), 1)
    next(ahead)
    begun = time.monotonic()
    ahead.close()
    assert time.monotonic() - begun < 5
    released.set()
    for thread in threading.enumerate():
        if thread.name == "rotoscope-read-ahead":
            thread.join()


def test_reading_a_video_part_of_the_way_leaves_no_thread(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    with closing(read_video(path)) as frames:
        assert next(frames).index == 0
    assert len(list(read_video(path, max_frames=2))) == 2
    assert [frame.index for frame in read_video(np.zeros((3, 4, 5, 3), np.uint8), max_frames=0)] == []


def test_a_program_may_end_in_the_middle_of_a_video(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4")
    program = f"from rotoscope.video.read import read_video; frames = read_video({str(path)!r}); print(next(frames).index)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
