"""Video files as clips: frames by exact number, from anywhere, in both directions, in bounded memory."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import av
import av.error
from av.container import InputContainer

from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame
from rotoscope.video.index import PacketIndex, read_index
from rotoscope.video.streams import (
    VideoPacket,
    Warnings,
    check_size,
    decode,
    frame_of,
    open_container,
    orientation_of,
    rate_of,
    read_packets,
    to_rgb,
    video_stream,
)

MAX_CHUNK_FRAMES = 32
"""The most frames a backward walk holds at once; each chunk costs a seek, and a decode from the keyframe before it."""
MAX_CHUNK_BYTES = 256 * 2**20
"""Large frames make smaller chunks, so that walking backwards through 8K video fits a laptop."""

_SMALLEST_CHUNK_FRAMES = 4
_MAX_LATENESS_FRAMES = 4  # a decoder of H.264 with the usual reference pyramid gives no picture later than this


def frame_range(start: int, stop: int | None, num_frames: int) -> range:
    """The frame numbers from `start` up to but without `stop` that a clip has; possibly none.

    Raises:
        InputError: a number is negative.
    """
    if start < 0 or (stop is not None and stop < 0):
        message = f"frames are counted from 0; {start}:{'' if stop is None else stop} is out of range"
        raise InputError(message)
    end = num_frames if stop is None else min(stop, num_frames)
    return range(start, max(start, end))


class FileClip:
    """The frames of a video file.

    Opening it reads all packets once, without decoding, to number the frames exactly. Frames that cannot be decoded leave a gap in the numbers.

    Args:
        path: the file.

    Attributes:
        name: the file's name without its suffix.
        hw: height and width of the frames as shown, rotation applied.
        num_frames: how many frames the file holds, those that cannot be decoded included.
        fps: the average rate; None if the file does not say.
        warnings: damage met so far, one line each.

    Raises:
        VideoError: the file is missing, unreadable, no video, or none of its frames can be decoded.
    """

    is_live = False
    frame_names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.warnings = Warnings()
        self._missing: set[int] = set()
        _check_file(path)
        self._index: PacketIndex = read_index(self._open, self._warn)
        self.num_frames: int = len(self._index.ordinals)
        with _Source(self._open, self._index, self._warn) as source:
            self.fps = rate_of(source.stream)
            first = next((picture for _, picture in source.decoded(0, 0, self.num_frames)), None)
        if first is None:
            message = f"{path} holds no frame that can be decoded; it is empty or damaged from the start, export it again"
            raise VideoError(message)
        self._orientation = orientation_of(first)
        self._stored_hw = (first.height, first.width)
        self.hw: tuple[int, int] = (first.width, first.height) if self._orientation[0] else self._stored_hw

    def frames(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Generator[Frame]:
        """The frames from `start` up to but without `stop`, descending with `reverse`. Walks are independent of each other.

        Raises:
            InputError: a number is negative.
            VideoError: the frame size changes.
        """
        wanted = frame_range(start, stop, self.num_frames)
        return self._backwards(wanted) if reverse else self._forwards(wanted)

    def _forwards(self, wanted: range) -> Generator[Frame]:
        if wanted:
            with _Source(self._open, self._index, self._warn) as source:
                for index, picture in self._pictures(source, wanted):
                    yield self._frame(index, picture)

    def _backwards(self, wanted: range) -> Generator[Frame]:
        if wanted:
            with _Source(self._open, self._index, self._warn) as source:
                for chunk in self._chunks(wanted):
                    pictures = list(self._pictures(source, chunk))
                    while pictures:
                        yield self._frame(*pictures.pop())

    def _chunks(self, wanted: range) -> Iterator[range]:
        """Pieces of a range, last first; they begin at a keyframe where one is near."""
        height, width = self.hw
        most = min(MAX_CHUNK_FRAMES, max(_SMALLEST_CHUNK_FRAMES, MAX_CHUNK_BYTES // (3 * height * width)))
        stop = wanted.stop
        while stop > wanted.start:
            low = max(wanted.start, stop - most)
            start = next((keyframe for keyframe in self._index.entries_before(stop - 1, most)[::-1] if keyframe >= low), low)
            yield range(start, stop)
            stop = start

    def _pictures(self, source: "_Source", wanted: range) -> Iterator[tuple[int, av.VideoFrame]]:
        """The pictures of a range, ascending; warns of those that are missing or damaged."""
        expected = wanted.start
        for index, picture in _from_nearest_keyframe(source, self._index, wanted):
            self._warn_of_missing(expected, index)
            if picture.is_corrupt:
                self._warn(f"frame {index} ({self._index.times_seconds[index]:.2f} s) is damaged; parts of it may be wrong")
            check_size(str(self.path), index, (picture.height, picture.width), self._stored_hw)
            yield index, picture
            expected = index + 1
        self._warn_of_missing(expected, wanted.stop)

    def _warn_of_missing(self, start: int, stop: int) -> None:
        missing = [index for index in range(start, stop) if index not in self._missing]
        if missing:
            self._missing.update(missing)
            which = f"frame {missing[0]}" if len(missing) == 1 else f"frames {missing[0]} to {missing[-1]}"
            self._warn(f"{which} (at {self._index.times_seconds[missing[0]]:.2f} s) cannot be decoded and will be left out")

    def _frame(self, index: int, picture: av.VideoFrame) -> Frame:
        return frame_of(index, to_rgb(picture, self._orientation), self._index.times_seconds[index])

    def _open(self) -> InputContainer:
        return open_container(f"file:{self.path}", str(self.path))  # the prefix keeps a colon in the name from being read as a protocol

    def _warn(self, line: str) -> None:
        self.warnings.add(f"{self.path.name}: {line}")


class _Source:
    """An open file in which packets are found by their ordinal."""

    def __init__(self, open_file: Callable[[], InputContainer], index: PacketIndex, warn: Callable[[str], None]) -> None:
        self._open_file = open_file
        self._index = index
        self._warn = warn
        self._open()

    def __enter__(self) -> "_Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def decoded(self, entry: int, start: int, stop: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Pictures from `start` up to but without `stop`, ascending, decoding from the keyframe `entry` on.

        After damage a decoder may give pictures late, so a few wait where one before them is missing.
        """
        waiting: dict[int, av.VideoFrame] = {}
        expected = start
        for picture in self._decode_from(self._index.ordinals[entry] if entry else 0):
            index = self._index.ranks.get(_number(picture.pts), -1)  # the time of a packet was replaced by its ordinal
            if expected <= index < stop:
                waiting[index] = picture
            while expected in waiting or len(waiting) > _MAX_LATENESS_FRAMES:
                expected = min(waiting) + 1
                yield expected - 1, waiting.pop(expected - 1)
            if expected == stop or index > stop + _MAX_LATENESS_FRAMES:
                break
        yield from sorted(waiting.items())

    def _decode_from(self, ordinal: int) -> Iterator[av.VideoFrame]:
        for number, packet in self._packets_from(ordinal):
            packet.pts, packet.dts = number, None
            yield from decode(self.stream, packet, _nothing)  # what is missing is noticed by its number
        yield from decode(self.stream, None, _nothing)

    def _packets_from(self, ordinal: int) -> Iterator[tuple[int, VideoPacket]]:
        """The packets from an ordinal on, with theirs: after a seek if the place can be told, else by reading from the start."""
        for stamp in (self._index.packets[ordinal].pts, self._index.packets[ordinal].dts) if ordinal else ():
            found = self._seek(stamp) if stamp is not None else None
            if found is not None and found[0] <= ordinal:
                yield from self._count(ordinal, *found)
                return
        self._container.close()
        self._open()
        yield from self._count(ordinal, 0, read_packets(self._container, self.stream, self._warn))

    def _seek(self, stamp: int) -> tuple[int, Iterator[VideoPacket]] | None:
        """The packets after a seek to a time, and the ordinal of the first; None if the file cannot seek or the place is not known again."""
        try:
            self._container.seek(stamp, stream=self.stream)
        except av.error.FFmpegError:
            return None
        packets = read_packets(self._container, self.stream, self._warn)
        first = next(packets, None)
        if first is None or (number := self._index.at_position.get(_number(first.pos))) is None:
            return None
        return number, _put_back(first, packets)

    def _count(self, ordinal: int, number: int, packets: Iterator[VideoPacket]) -> Iterator[tuple[int, VideoPacket]]:
        for packet in packets:
            number = self._index.at_position.get(_number(packet.pos), number)
            if number >= ordinal:
                yield number, packet
            number += 1

    def _open(self) -> None:
        self._container = self._open_file()
        self.stream = video_stream(self._container)


def _from_nearest_keyframe(source: _Source, index: PacketIndex, wanted: range) -> Iterator[tuple[int, av.VideoFrame]]:
    """The pictures of a range, decoded from the nearest keyframe that gives the first of them.

    With gradual refresh the first frames after a keyframe come out only if decoding started one earlier.
    """
    pictures: Iterator[tuple[int, av.VideoFrame]] = iter(())
    first = None
    for entry in index.entries_before(wanted.start):
        pictures = source.decoded(entry, wanted.start, wanted.stop)
        first = next(pictures, None)
        if first is not None and first[0] == wanted.start:
            break
    if first is not None:
        yield first
        yield from pictures


def _put_back(first: VideoPacket, rest: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
    yield first
    yield from rest


def _number(stamp: int | None) -> int:
    """The number itself, or one that nothing has."""
    return -1 if stamp is None else stamp


def _check_file(path: Path) -> None:
    if not path.exists():
        message = f"there is no file or folder {path}; check the name"
        raise VideoError(message)
    if path.stat().st_size == 0:
        message = f"{path} is empty (0 bytes); copy or download it again"
        raise VideoError(message)


def _nothing() -> None:
    """A packet that cannot be decoded shows as a missing frame."""
