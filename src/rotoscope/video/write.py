"""Results out: label maps as PNG, overlay videos, and a thread that writes while the next frame is being made."""

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rotoscope._files import output_error, write_atomically
from rotoscope.errors import InputError, MaskError, OutputError
from rotoscope.types import MAX_OBJECT_ID
from rotoscope.video.palette import palette_bytes

DEFAULT_FPS = 24.0
"""The rate of an overlay over frames without a clock, such as a folder of images."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    encoder: str
    container: str
    even_size: bool
    options: dict[str, str]
    container_options: dict[str, str]


_ENCODINGS = {
    "vp9": _Encoding(
        "libvpx-vp9",
        "webm",
        even_size=False,
        options={"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "30", "b": "0", "lag-in-frames": "0"},
        container_options={"cluster_time_limit": "1000", "flush_packets": "1"},  # a killed run loses at most a second
    ),
    "h264": _Encoding(
        "libx264",
        "mp4",
        even_size=True,
        options={"preset": "veryfast", "crf": "20", "x264-params": "log-level=error"},
        # playable up to the last keyframe while it is being written, a plain file once closed (FFmpeg 7.1)
        container_options={"movflags": "+hybrid_fragmented", "flush_packets": "1"},
    ),
}
_KEYFRAME_INTERVAL_FRAMES = 50
_TICKS_PER_SECOND = {"vp9": 1000, "h264": 90_000}  # all that Matroska keeps; what MPEG uses
_BT601, _LIMITED_RANGE = 6, 1  # AVCOL_SPC_SMPTE170M and AVCOL_RANGE_MPEG: how FFmpeg turns RGB into YUV


def encode_labels(labels: NDArray[np.integer] | Tensor) -> bytes:
    """A label map as PNG: 8 bits with the DAVIS palette, ids being the indices; 16-bit grayscale if an id is above 255.

    Args:
        labels: an object id, 0 to 65535, for each pixel, `[h, w]`.

    Raises:
        MaskError: another shape or type, or an id out of range.
    """
    ids = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
    if ids.ndim != 2 or ids.dtype.kind not in "iub" or 0 in ids.shape:
        message = f"labels are {ids.dtype} {list(ids.shape)}; give integer object ids [h, w]"
        raise MaskError(message)
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > MAX_OBJECT_ID:
        message = f"labels range from {low} to {high}; a mask file holds ids from 0 to {MAX_OBJECT_ID}"
        raise MaskError(message)
    if high > 255:
        image = Image.fromarray(ids.astype(np.uint16))
    else:
        image = Image.fromarray(ids.astype(np.uint8))
        image.putpalette(palette_bytes())
    file = BytesIO()
    image.save(file, "PNG", compress_level=3)
    return file.getvalue()


def write_labels(path: str | Path, labels: NDArray[np.integer] | Tensor, *, durable: bool = False) -> None:
    """Write a label map as PNG, whole or not at all; see `encode_labels`.

    Args:
        path: the file; its folder exists.
        labels: an object id, 0 to 65535, for each pixel, `[h, w]`.
        durable: wait until the file is on the disk.

    Raises:
        MaskError: the labels are no label map.
        OutputError: the file cannot be written.
    """
    write_atomically(Path(path), encode_labels(labels), durable=durable)


def prepare_folder(path: str | Path) -> Path:
    """The folder, made if need be, and writable.

    Raises:
        OutputError: it is a file, or cannot be made or written to.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file, not a folder; choose another output folder with -o"
        raise OutputError(message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}-{threading.get_ident()}"
        probe.touch()
        probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        message = f"{folder} lies below a file, not a folder; choose another output folder with -o"
        raise OutputError(message) from error
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


class OverlayVideo:
    """A video file that grows by a picture at a time. It is NAME.partial.SUFFIX, and playable, until `close` gives it its name.

    H.264 needs even sizes: an odd picture gets its last column or row twice. Nothing is made on the disk before the first picture.

    Args:
        path: the finished file.
        hw: the size of the pictures.
        fps: the rate where pictures come without a time; None for `DEFAULT_FPS`.
        codec: "vp9" (in WebM) or "h264" (in MP4).

    Raises:
        InputError: another codec.
        OutputError: the FFmpeg at hand cannot encode it.
    """

    def __init__(self, path: str | Path, hw: tuple[int, int], fps: float | None = None, codec: str = "vp9") -> None:
        if codec not in _ENCODINGS:
            message = f"no overlay codec is called {codec}; choose from {', '.join(_ENCODINGS)}"
            raise InputError(message)
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}")
        self._hw = hw
        self._fps = fps or DEFAULT_FPS
        self._encoding = _ENCODINGS[codec]
        self._ticks_per_second = _TICKS_PER_SECOND[codec]
        self._first_seconds: float | None = None
        self._last_tick = -1
        self._failed = False
        self._container: Any = None
        self._stream: Any = None
        try:
            av.Codec(self._encoding.encoder, "w")
        except av.codec.codec.UnknownCodecError as error:
            message = f"the FFmpeg of this PyAV cannot encode {codec}; choose another codec with --overlay"
            raise OutputError(message) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write(self, picture: NDArray[np.uint8], time_seconds: float | None = None) -> None:
        """Append a picture.

        Args:
            picture: RGB, `[h, w, 3]`.
            time_seconds: when it is shown; the first picture is shown at once, and each at least a tick after the one before.
                None for one frame's time after the one before.

        Raises:
            InputError: the picture has another size.
            OutputError: it cannot be written; what was written before stays playable.
        """
        if picture.shape != (*self._hw, 3):
            message = f"the picture is {list(picture.shape)} but the video {[*self._hw, 3]}; write pictures of one size"
            raise InputError(message)
        if self._encoding.even_size:
            height, width = self._hw
            picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = self._next_tick(time_seconds)
        frame.time_base = Fraction(1, self._ticks_per_second)
        try:
            if self._container is None:
                self._open()
            self._container.mux(self._stream.encode(frame))
        except OSError as error:
            self._failed = True
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Finish the file and give it its name; without a picture there is no file. Closing twice does nothing.

        Raises:
            OutputError: the end cannot be written; NAME.partial.SUFFIX holds what is playable. Not if `write` has failed before: that was said.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            try:
                container.mux(self._stream.encode(None))
            finally:
                container.close()
            self.partial.replace(self.path)
        except OSError as error:
            if not self._failed:
                raise output_error(self.path, error) from error

    def _next_tick(self, time_seconds: float | None) -> int:
        if time_seconds is None:
            step = round(self._ticks_per_second / self._fps) if self._last_tick >= 0 else 1
            tick = self._last_tick + step
        else:
            if self._first_seconds is None:
                self._first_seconds = time_seconds
            tick = round((time_seconds - self._first_seconds) * self._ticks_per_second)
        self._last_tick = max(tick, self._last_tick + 1)
        return self._last_tick

    def _open(self) -> None:
        encoding = self._encoding
        self._container = av.open(f"file:{self.partial}", "w", format=encoding.container, options=encoding.container_options)
        threads = min(8, os.cpu_count() or 1)
        self._stream = self._container.add_stream(encoding.encoder, rate=Fraction(self._fps).limit_denominator(1001), options=encoding.options)
        height, width = self._hw
        self._stream.height, self._stream.width = (height + height % 2, width + width % 2) if encoding.even_size else (height, width)
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = Fraction(1, self._ticks_per_second)
        context.gop_size = _KEYFRAME_INTERVAL_FRAMES
        context.thread_count = threads
        context.colorspace, context.color_range = _BT601, _LIMITED_RANGE


_Job = Callable[[], object]


class ThreadedWriter:
    """A thread that does write jobs in the order in which they are submitted.

    The first job that fails stops the work: the jobs after it are dropped, and its error is raised by every `submit` and `flush` from then on, or by
    `close` if nobody has seen it yet.

    Args:
        depth: how many jobs may wait; `submit` blocks beyond that.
    """

    def __init__(self, depth: int = 16) -> None:
        if depth < 1:
            message = f"a queue of {depth} jobs holds nothing; give 1 or more"
            raise InputError(message)
        self._jobs: queue.Queue[_Job | None] = queue.Queue(depth)
        self._failure: Exception | None = None
        self._raised = False
        self._thread = threading.Thread(target=self._work, name="rotoscope-write", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, job: _Job) -> None:
        """Have a job done after those before it.

        Raises:
            OutputError: a job could not write; another error if that is what it raised.
        """
        self._raise_failure()
        assert self._thread.is_alive(), "the writer is closed; a job given to it now would never be done"
        self._jobs.put(job)

    def flush(self) -> None:
        """Wait until all jobs are done.

        Raises:
            OutputError: see `submit`.
        """
        self._jobs.join()
        self._raise_failure()

    def close(self) -> None:
        """Wait until all jobs are done, and end the thread. Closing twice does nothing.

        Raises:
            OutputError: see `submit`; only if it was not raised before.
        """
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        if not self._raised:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._raised = True
            raise self._failure

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._failure is None:
                    job()
            except OSError as error:
                self._failure = error if isinstance(error, OutputError) else output_error(Path(error.filename or "the output"), error)
            except Exception as error:  # it is raised again in the other thread
                self._failure = error
            finally:
                self._jobs.task_done()
        self._jobs.task_done()  # the end itself: a flush after closing must not wait for it
