"""Video streams through FFmpeg: opening them, their packets, their pictures as RGB, and live sources (cameras, stream URLs, pipes)."""

import logging
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import av
import av.error
import numpy as np
import torch
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard
from numpy.typing import NDArray

from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame

logger = logging.getLogger(__name__)

VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"
"""An encoded picture, as it lies in the file."""

Report = Callable[[str], None]
"""Takes one line about damage that was met and survived."""

Orientation: TypeAlias = tuple[bool, bool, bool]
"""How to show a stored picture upright: transpose, then flip left to right, then flip top to bottom."""

UPRIGHT: Orientation = (False, False, False)
MAX_WARNINGS = 50
"""A file of noise would otherwise fill the memory with warnings."""

_STREAM_TIMEOUT_SECONDS = 10.0
_MAX_DAMAGE_IN_A_ROW = 8  # reads that fail one after the other before the source counts as ended
_LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG: black is 16, white 235


class Warnings(list[str]):
    """What was noticed while reading: each line once, logged when it is added, at most `MAX_WARNINGS` lines."""

    def add(self, line: str) -> None:
        """Keep and log a line, unless it is known or there are too many."""
        if line in self or len(self) > MAX_WARNINGS:
            return
        if len(self) == MAX_WARNINGS:
            line = "further damage is not listed"
        logger.warning("%s", line)
        self.append(line)


def open_container(address: str, name: str, **options: Any) -> InputContainer:
    """An opened source with at least one video stream.

    Args:
        address: what FFmpeg opens.
        name: what messages call it.
        options: for `av.open`.

    Raises:
        VideoError: it cannot be opened, or has no video stream.
    """
    try:
        container: InputContainer = av.open(address, "r", **options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(_why_not_opened(name, error)) from error
    if not _pictures_of(container):
        kinds = sorted({stream.type for stream in container.streams})
        container.close()
        held = f"only {' and '.join(kinds)}" if kinds else "nothing"
        message = f"{name} has no video stream ({held}); give a file with moving pictures"
        raise VideoError(message)
    return container


def video_stream(container: InputContainer) -> av.VideoStream:
    """The video stream to read; the other streams are skipped unread.

    Threads share a picture but never decode several at once: that would hold live pictures back, and lose good ones beside damaged ones.
    """
    chosen: av.VideoStream = _pictures_of(container)[0]
    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all
    chosen.thread_type = "SLICE"
    chosen.codec_context.thread_count = min(4, os.cpu_count() or 1)  # more gain little
    return chosen


def read_packets(container: InputContainer, stream: av.VideoStream, report: Report) -> Iterator[VideoPacket]:
    """The packets of a stream that hold data, going on after damaged places; reports what stopped the reading, if not the end."""
    failures = 0
    while failures < _MAX_DAMAGE_IN_A_ROW:
        try:
            for packet in container.demux(stream):
                if packet.size:
                    failures = 0
                    yield packet
        except av.error.InvalidDataError:
            failures += 1
        except av.error.FFmpegError as error:
            report(f"reading stopped early: {error.strerror or error}")
            return
        else:
            return
    report("reading stopped early: nothing but damaged data follows")


def decode(stream: av.VideoStream, packet: "VideoPacket | None", damaged: Callable[[], None]) -> list[av.VideoFrame]:
    """The pictures a packet completes (None: those still held back); none, and a call of `damaged`, if it cannot be decoded."""
    try:
        return stream.codec_context.decode(packet)
    except av.error.FFmpegError:
        damaged()
        return []


def orientation_of(picture: av.VideoFrame) -> Orientation:
    """How a decoded picture must be turned, from its display matrix; angles between the right ones count as none.

    The matrix maps a stored pixel (x, y) to (a x + c y, b x + d y), in 16.16 fixed point, row by row (a b u, c d v, ...).
    """
    try:
        all_side_data = list(cast("Iterator[SideData]", iter(picture.side_data)))
    except ValueError:  # a kind that PyAV has no name for (EXIF data, in PyAV 16) spoils the whole list
        return UPRIGHT
    for side_data in all_side_data:
        if side_data.type == SideDataType.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(side_data)[:20], dtype=np.int32).tolist()
            if not (a or d) and b and c:
                return True, c < 0, b < 0
            if not (b or c) and a and d:
                return False, a < 0, d < 0
    return UPRIGHT


def to_rgb(picture: av.VideoFrame, orientation: Orientation) -> NDArray[np.uint8]:
    """A decoded picture as contiguous RGB `[h, w, 3]`, upright.

    The colour matrix and range are those the stream states; unstated, they are BT.601 and limited, as FFmpeg takes them. Alpha is dropped.
    """
    rgb = cast("NDArray[np.uint8]", picture.to_ndarray(format="rgb24"))
    if picture.format.name.startswith("gray") and picture.color_range == _LIMITED_RANGE:  # FFmpeg takes all gray for full range
        rgb = np.clip((rgb.astype(np.float32) - 16) * (255 / 219) + 0.5, 0, 255).astype(np.uint8)
    transpose, mirror, upend = orientation
    if transpose:
        rgb = rgb.transpose(1, 0, 2)
    return np.ascontiguousarray(rgb[:: -1 if upend else 1, :: -1 if mirror else 1])


def frame_of(index: int, rgb: NDArray[np.uint8], time_seconds: float | None, name: str = "") -> Frame:
    """A `Frame` over RGB bytes `[h, w, 3]`: its image is a permuted view of them, not a copy."""
    return Frame(index, torch.from_numpy(rgb).permute(2, 0, 1), time_seconds, name)


def check_size(name: str, index: int, got: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raise if the frame size changes within a clip.

    Raises:
        VideoError: it does.
    """
    if got != expected:
        message = f"{name}: frame {index} is {got[1]}x{got[0]} but the clip began with {expected[1]}x{expected[0]}; cut it where the size changes"
        raise VideoError(message)


def rate_of(stream: av.VideoStream) -> float | None:
    """Frames per second on average; None where the source does not say."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


class LiveClip:
    """Frames of a camera, stream URL or pipe as they arrive: forwards only, of unknown number.

    The source is opened at once. The first walk over `frames` goes on from there; a later one connects again, and counts from 0 again.

    Args:
        source: a camera number, a device such as /dev/video0, a URL, or a pipe.

    Raises:
        VideoError: it cannot be opened, or gives no picture.
    """

    is_live = True
    num_frames = None
    frame_names: tuple[str, ...] = ()

    def __init__(self, source: str | int) -> None:
        self._address, self._options = _camera(source) if isinstance(source, int) else _stream(source)
        self._label = f"camera {source}" if isinstance(source, int) else re.sub(r"(?<=://)[^/@]*@", "", source)  # no passwords in messages
        self.name = re.sub(r"[^\w.]+", "-", self._label.split("://")[-1]).strip("-.") or "stream"
        self.warnings = Warnings()
        self.fps: float | None = None
        self._connection: _Connection | None = self._connect()
        first = self._connection.first
        self._orientation = orientation_of(first)
        height, width = first.height, first.width
        self.hw: tuple[int, int] = (width, height) if self._orientation[0] else (height, width)

    def frames(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Generator[Frame]:
        """The frames as they arrive, without the first `start`; until `stop` if given, else until the source ends.

        Raises:
            InputError: `reverse` is asked for, or `start` is negative.
            VideoError: the frame size changes.
        """
        if reverse or start < 0:
            message = f"{self._label} is live: frames come forwards from 0, not {'backwards' if reverse else f'from {start}'}"
            raise InputError(message)
        return self._walk(start, stop)

    def _walk(self, start: int, stop: int | None) -> Generator[Frame]:
        container, pictures, picture = self._connection or self._connect()
        self._connection = None
        began, index = picture.time, 0
        with container:
            while stop is None or index < stop:
                if index >= start:
                    rgb = to_rgb(picture, self._orientation)
                    check_size(self._label, index, rgb.shape[:2], self.hw)
                    yield frame_of(index, rgb, None if picture.time is None or began is None else picture.time - began)
                index += 1
                following = next(pictures, None) if stop is None or index < stop else None
                if following is None:
                    return
                picture = following

    def _connect(self) -> "_Connection":
        container = open_container(self._address, self._label, **self._options)
        stream = video_stream(container)
        self.fps = rate_of(stream)
        pictures = self._pictures(container, stream)
        first = next(pictures, None)
        if first is None:
            container.close()
            message = f"{self._label} opened but gave no picture; check that it is sending"
            raise VideoError(message)
        return _Connection(container, pictures, first)

    def _pictures(self, container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        for packet in read_packets(container, stream, lambda line: self.warnings.add(f"{self._label}: {line}")):
            yield from decode(stream, packet, self._note_damage)
        yield from decode(stream, None, self._note_damage)

    def _note_damage(self) -> None:
        self.warnings.add(f"{self._label}: some of the data that arrived is damaged; its frames are left out")


class _Connection(NamedTuple):
    """An open source, the pictures to come, and the one that has come."""

    container: InputContainer
    pictures: Iterator[av.VideoFrame]
    first: av.VideoFrame


def is_live_source(source: str) -> bool:
    """Whether a source is a URL, a device or a pipe, rather than a file or folder."""
    path = Path(source)
    return "://" in source or path.is_char_device() or path.is_fifo() or source.startswith("/dev/video")


def _camera(number: int) -> tuple[str, dict[str, Any]]:
    layouts = {"darwin": ("avfoundation", f"{number}"), "win32": ("vfwcap", f"{number}")}
    layout, address = layouts.get(sys.platform, ("v4l2", f"/dev/video{number}"))
    return address, {"format": layout}


def _stream(address: str) -> tuple[str, dict[str, Any]]:
    if address.startswith("/dev/video"):
        return address, {"format": "v4l2"}
    if "://" in address:
        return address, {"timeout": _STREAM_TIMEOUT_SECONDS}
    return f"file:{address}", {}


def _pictures_of(container: InputContainer) -> list[av.VideoStream]:
    """The video streams that are not the cover picture of a song."""
    return [stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic]


def _why_not_opened(name: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} does not exist; check the name"
    if isinstance(error, PermissionError):
        return f"{name} may not be read; check its permissions"
    if isinstance(error, av.error.InvalidDataError | EOFError):
        return f"{name} is not a video that FFmpeg can read: another kind of file, damaged, or cut short; give an mp4, webm, mov, avi or mkv file"
    if isinstance(error, av.error.ExitError | TimeoutError):
        return f"{name} did not answer within {_STREAM_TIMEOUT_SECONDS:.0f} seconds; check the address"
    return f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}; check the address"
