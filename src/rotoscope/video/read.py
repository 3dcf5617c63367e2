"""Frames in: the one door to video files, folders of images, arrays, cameras and streams, and reading ahead in a thread."""

import atexit
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame
from rotoscope.video.files import FileClip
from rotoscope.video.folders import IMAGE_SUFFIXES, ArrayClip, FolderClip, open_folder
from rotoscope.video.streams import LiveClip, is_live_source

Item = TypeVar("Item")
VideoSource = str | Path | int | NDArray[np.uint8] | Tensor
"""A file, folder, stream URL, camera number, or RGB frames as uint8 `[t, h, w, 3]` or `[t, 3, h, w]`."""

READ_AHEAD_FRAMES = 8
"""How many frames wait decoded: enough to hide the decoder's jitter, 50 MB at 1080p."""

_STOP_SECONDS = 5.0  # how long to wait for a thread that is inside a blocking read; it ends by itself after that


@runtime_checkable
class Clip(Protocol):
    """Frames by number, from wherever they come."""

    @property
    def name(self) -> str:
        """A name fit for a folder: that of the file or folder, without suffix."""
        ...

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of every frame, as shown."""
        ...

    @property
    def num_frames(self) -> int | None:
        """How many frames there are, those that turn out to be damaged included; None for a live source."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames per second on average; None where the source has no clock."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether frames come as they arrive: only forwards, only once, and without a known end."""
        ...

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The name of each frame, for folders of images; empty otherwise."""
        ...

    @property
    def warnings(self) -> list[str]:
        """Damage met and survived so far, one line each."""
        ...

    def frames(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Generator[Frame]:
        """The frames from `start` up to but without `stop`, descending with `reverse`.

        `Frame.index` is the position in the clip whatever the direction; frames that cannot be decoded are left out and leave their number free.
        `Frame.image` is a permuted view of RGB bytes `[h, w, 3]`. A range beyond the end gives what there is.
        """
        ...


def open_clip(source: VideoSource) -> Clip:
    """The clip behind a source, checked: it exists, can be read, and has at least one frame.

    Raises:
        VideoError: it cannot be read; the message names it and says what to do.
    """
    if isinstance(source, bool) or not isinstance(source, str | Path | int | np.ndarray | Tensor):
        message = f"{source!r} is no video; give a file, folder, URL, camera number, or uint8 frames [t, h, w, 3]"
        raise VideoError(message)
    if isinstance(source, np.ndarray | Tensor):
        return ArrayClip(source)
    if isinstance(source, int) or is_live_source(str(source)):
        return LiveClip(source if isinstance(source, int) else str(source))
    path = Path(source)
    if path.is_dir():
        return open_folder(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FolderClip([path], path.stem)
    return FileClip(path)


def read_video(
    source: VideoSource, *, start: int = 0, stop: int | None = None, max_frames: int | None = None, reverse: bool = False
) -> Generator[Frame]:
    """The frames of a video, decoded ahead in a thread; close the generator, or drop it, to stop.

    The source is opened, and checked, by the call itself.

    Args:
        source: see `VideoSource`.
        start: the first frame number.
        stop: where to stop, without this frame; by default the end.
        max_frames: give at most so many frames.
        reverse: give them in descending order.

    Raises:
        VideoError: the source cannot be read.
        InputError: a number is negative, or a live source is asked for backwards.

    Example:
        >>> import numpy as np, rotoscope
        >>> [frame.index for frame in rotoscope.read_video(np.zeros((5, 48, 64, 3), np.uint8), start=1, max_frames=3)]
        [1, 2, 3]
    """
    if max_frames is not None and max_frames < 0:
        message = f"{max_frames} frames are too few; give 0 or more"
        raise InputError(message)
    frames = open_clip(source).frames(start, stop, reverse=reverse)
    return prefetch(frames if max_frames is None else _at_most(frames, max_frames), READ_AHEAD_FRAMES)


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item]:
    """The same items, made ahead in a thread: at most `depth` wait, one more is in the making.

    What the source raises is raised here, at its place. Closing the generator stops the thread, and closes the source in it; so does dropping the
    generator, an exception in the loop over it, and the end of the program. The thread starts with the first item asked for.

    Raises:
        InputError: the depth is less than 1.
    """
    if depth < 1:
        message = f"reading {depth} items ahead is not possible; give 1 or more"
        raise InputError(message)
    return _prefetch(items, depth)


def _prefetch(items: Iterable[Item], depth: int) -> Generator[Item]:
    ahead = _Ahead(items, depth)
    try:
        yield from ahead.arriving()
    finally:
        ahead.stop()


class _End:
    """The last thing in the queue: why there is no more."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Ahead(Generic[Item]):
    """A thread that fills a bounded queue, and can be stopped at any time."""

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[Item | _End] = queue.Queue(depth)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="rotoscope-read-ahead", daemon=True)
        atexit.register(self.stop)  # a daemon thread still decoding while the interpreter goes down would crash it
        self._thread.start()

    def arriving(self) -> Iterator[Item]:
        while not isinstance(item := self._queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def stop(self) -> None:
        self._stopping.set()
        while not self._queue.empty():  # makes room for the one put that may be waiting
            self._queue.get_nowait()
        if self._thread is not threading.current_thread():  # the garbage collector may run this anywhere
            self._thread.join(_STOP_SECONDS)
        atexit.unregister(self.stop)

    def _fill(self) -> None:
        error: BaseException | None = None
        try:
            self._pass_on(iter(self._items))
        except BaseException as raised:  # it is raised again in the other thread
            error = raised
        if not self._stopping.is_set():
            self._queue.put(_End(error))

    def _pass_on(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                self._queue.put(item)
                if self._stopping.is_set():
                    return
        finally:
            if isinstance(items, Generator):
                items.close()


def _at_most(frames: Generator[Frame], count: int) -> Generator[Frame]:
    with closing(frames):
        yield from islice(frames, count)
