"""Which packet of a video file is which frame: the table that makes frame numbers exact from wherever reading starts."""

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import av
from av.container import InputContainer

from rotoscope.video.streams import Report, decode, rate_of, read_packets, video_stream

logger = logging.getLogger(__name__)

_DEFAULT_RATE = 25.0  # what FFmpeg assumes for a stream that states none
_MAX_SHORTFALL_SECONDS = 0.25  # how much sooner than the file states its video may end, beyond two frames
_MAX_SHORTFALL_WITH_SOUND_SECONDS = 1.0  # the sound is often a little longer than the video


class Packet(NamedTuple):
    """What is kept of a packet; its place in decoding order is its ordinal. Times are in units of the stream's time base."""

    pts: int | None
    dts: int | None
    position: int | None
    is_keyframe: bool


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """The frames of a file in display order, and the packets that carry them.

    Attributes:
        packets: all packets that hold data, in decoding order.
        ordinals: for each frame the ordinal of its packet.
        times_seconds: for each frame when it is shown, counted from the first; ascending.
        ranks: the frame index by ordinal; packets that show nothing are not in it.
        keyframes: the frames at which decoding can start, ascending.
        at_position: the ordinal by byte position in the file, by which packets are known again after a seek; empty if positions are no guide.
    """

    packets: Sequence[Packet]
    ordinals: Sequence[int]
    times_seconds: Sequence[float]
    ranks: dict[int, int]
    keyframes: Sequence[int]
    at_position: dict[int, int]

    def entries_before(self, frame_index: int, most: int = 3) -> list[int]:
        """The keyframes from which a frame can be reached, nearest first; 0 where there is none.

        A keyframe serves the frames shown after it. Those decoded after it but shown before refer to frames before it.
        """
        last = bisect_right(self.keyframes, frame_index)
        return list(reversed(self.keyframes[max(0, last - most) : last])) or [0]


def read_index(open_file: Callable[[], InputContainer], report: Report) -> PacketIndex:
    """The index of a file, from its packets alone; the file is decoded once only where its times are no guide to the order of its frames.

    The index of a file without packets is empty.
    """
    with open_file() as container:
        stream = video_stream(container)
        packets, hidden = _read_packets(container, stream, report)
        _report_shortfall(container, stream, packets, report)
        reliable = _times_are_reliable(container, stream, packets)
        unit, rate = stream.time_base or Fraction(1), rate_of(stream) or _DEFAULT_RATE
    if reliable:
        shown = [ordinal for ordinal in range(len(packets)) if ordinal not in hidden]
        ordinals = sorted(shown, key=lambda ordinal: (packets[ordinal].pts, ordinal))
        stamps = [packets[ordinal].pts or 0 for ordinal in ordinals]
    else:
        ordinals = _display_order(open_file)
        stamps = _decoding_times(packets, len(ordinals))
    times = [float((stamp - stamps[0]) * unit) for stamp in stamps] or [index / rate for index in range(len(ordinals))]
    _report_gaps(times, report)
    ranks = {ordinal: rank for rank, ordinal in enumerate(ordinals)}
    keyframes = [rank for rank, ordinal in enumerate(ordinals) if packets[ordinal].is_keyframe]
    return PacketIndex(packets, ordinals, times, ranks, keyframes, _positions(packets))


def _positions(packets: Sequence[Packet]) -> dict[int, int]:
    found = {packet.position: ordinal for ordinal, packet in enumerate(packets) if packet.position is not None and packet.position >= 0}
    return found if len(found) == len(packets) else {}


def _read_packets(container: InputContainer, stream: av.VideoStream, report: Report) -> tuple[list[Packet], set[int]]:
    """All packets, and the ordinals of those whose pictures are not to be shown: cut off by an edit list, or VP8's hidden references."""
    packets, hidden = [], set()
    is_vp8 = stream.codec_context.name in ("vp8", "libvpx")
    for ordinal, packet in enumerate(read_packets(container, stream, report)):
        packets.append(Packet(packet.pts, packet.dts, packet.pos, packet.is_keyframe))
        if packet.is_discard or (is_vp8 and not memoryview(packet)[0] & 0x10):  # show_frame, RFC 6386, section 9.1
            hidden.add(ordinal)
    return packets, hidden


def _times_are_reliable(container: InputContainer, stream: av.VideoStream, packets: Sequence[Packet]) -> bool:
    """Whether sorting by presentation time gives the display order.

    AVI states no presentation times; FFmpeg then numbers the packets in decoding order, which is wrong if the codec reorders them.
    """
    if any(packet.pts is None for packet in packets):
        return False
    stated = [packet.dts for packet in packets if packet.dts is not None]
    if any(later < earlier for earlier, later in pairwise(stated)):
        return False
    ascending = all(earlier < later for earlier, later in pairwise(packet.pts or 0 for packet in packets))
    return not (container.format.name == "avi" and ascending and stream.codec_context.has_b_frames)


def _display_order(open_file: Callable[[], InputContainer]) -> list[int]:
    """The ordinals in the order in which the decoder shows them."""
    order: dict[int, None] = {}
    with open_file() as container:
        stream = video_stream(container)
        logger.info("%s states no usable times; decoding it once to number its frames", container.name)
        for ordinal, packet in enumerate(read_packets(container, stream, _ignore)):
            packet.pts, packet.dts = ordinal, None
            order |= {picture.pts: None for picture in decode(stream, packet, _ignore) if picture.pts is not None}
        order |= {picture.pts: None for picture in decode(stream, None, _ignore) if picture.pts is not None}
    return list(order)


def _decoding_times(packets: Sequence[Packet], count: int) -> list[int]:
    """The first `count` decoding times if they all ascend: frames are shown at those times, a constant delay later. Else none."""
    times = [packet.dts for packet in packets]
    stated = [time for time in times if time is not None]
    ascending = all(earlier < later for earlier, later in pairwise(stated))
    return stated[:count] if ascending and len(stated) == len(times) else []


def _report_shortfall(container: InputContainer, stream: av.VideoStream, packets: Sequence[Packet], report: Report) -> None:
    """Say so if the file states more than it holds."""
    if stream.frames > len(packets):
        report(f"the file states {stream.frames} frames but holds {len(packets)}; it was cut short or is damaged")
        return
    stamps = [packet.pts for packet in packets if packet.pts is not None]
    if not stamps or not container.duration or stream.frames:
        return
    stated, held = container.duration / av.time_base, float((max(stamps) - min(stamps)) * (stream.time_base or 0))
    allowed = _MAX_SHORTFALL_SECONDS if len(container.streams) == 1 else _MAX_SHORTFALL_WITH_SOUND_SECONDS
    if stated > held + allowed + 2 * held / len(stamps):
        report(f"the file states {stated:.2f} s but its video ends at {held:.2f} s; it may have been cut short")


def _report_gaps(times: Sequence[float], report: Report) -> None:
    """Say where frames are missing from a clip of otherwise constant rate."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0.0
    if sum(abs(step - usual) <= 0.002 + 0.1 * usual for step in steps) < 0.95 * len(steps):  # 2 ms: twice Matroska's rounding
        return
    for index, step in enumerate(steps):
        if step > 2.5 * usual:
            report(f"no frames between {times[index]:.2f} s (frame {index}) and {times[index + 1]:.2f} s; the file may be damaged there")


def _ignore(*_: str) -> None:
    """The first reading reported the damage already."""
