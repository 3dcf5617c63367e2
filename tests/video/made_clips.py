"""Tiny clips whose frames can be told apart by their pixels, through any codec."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from rotoscope.types import Frame

HW = (48, 64)


def numbered_picture(number: int, hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    """RGB with an 8-bit number as two rows of four dark or light blocks."""
    picture = np.zeros((*hw, 3), dtype=np.uint8)
    for bit in range(8):
        picture[_block(bit, hw, margin=0)] = 220 if number >> bit & 1 else 30
    return picture


def number_of(frame: Frame) -> int:
    """The number that was drawn into a frame."""
    picture = frame.image.permute(1, 2, 0).numpy()
    return sum(int(picture[_block(bit, frame.hw, margin=3)].mean() > 125) << bit for bit in range(8))


def make_clip(
    path: Path,
    codec: str = "libx264",
    *,
    num_frames: int = 40,
    hw: tuple[int, int] = HW,
    pixel_format: str = "yuv420p",
    keyframe_interval: int = 12,
    b_frames: int = 2,
    times: Sequence[float] | None = None,
    noise: float = 0.0,
    rotation: float = 0.0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A clip of numbered pictures at 25 frames per second, or at the times given; noise makes packets large enough to damage."""
    rng = np.random.default_rng(0)
    unit = Fraction(1, 1000)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *hw, pixel_format
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = keyframe_interval, b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = unit
        for number in range(num_frames):
            picture = numbered_picture(number, hw) + rng.uniform(-noise, noise, (*hw, 3))
            frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_sound(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_sound(path: Path, target: Path) -> Path:
    """The same pictures with as much sound beside them."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        sound = container.add_stream("aac", rate=44100)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                container.mux(packet)
        for number in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1764), dtype=np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = 44100, 1764 * number, Fraction(1, 44100)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return target


def packet_places(path: Path) -> list[tuple[int, int]]:
    """The byte position and size of each video packet, in decoding order."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size and packet.pos is not None]


def overwrite(path: Path, start: int, content: bytes) -> None:
    """Replace some bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[start : start + len(content)] = content
    path.write_bytes(bytes(whole))


def cut_short(path: Path, share: float) -> None:
    """Keep the first part of a file alone."""
    whole = path.read_bytes()
    path.write_bytes(whole[: round(share * len(whole))])


def _block(bit: int, hw: tuple[int, int], *, margin: int) -> tuple[slice, slice]:
    row, column = divmod(bit, 4)
    height, width = hw[0] // 2, hw[1] // 4
    return (
        slice(row * height + margin, (row + 1) * height - margin),
        slice(column * width + margin, (column + 1) * width - margin),
    )
