"""Fixtures of the detection tests: a detector that finds red and green things, and pictures of them."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rotoscope.models import registry
from rotoscope.types import Detections, Frame

HEIGHT, WIDTH = 48, 64
RED, GREEN = (230, 20, 20), (20, 230, 20)


class ColourDetector:
    """Whatever is red is a person (0.9), whatever is green a hot dog (0.6); all of one colour is one object."""

    class_names = ("person", "hot dog")

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}
        self.batches: list[int] = []

    def detect(self, frame: Frame) -> Detections:
        self.batches.append(1)
        return self._found(frame)

    def detect_batch(self, frames: Sequence[Frame]) -> list[Detections]:
        self.batches.append(len(frames))
        return [self._found(frame) for frame in frames]

    def _found(self, frame: Frame) -> Detections:
        red, green, _ = frame.image.int()
        masks = (red - green > 100, green - red > 100)
        class_ids = [class_id for class_id, mask in enumerate(masks) if mask.any()]
        boxes = [_box(masks[class_id]) for class_id in class_ids]
        return Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor([(0.9, 0.6)[class_id] for class_id in class_ids]),
            torch.tensor(class_ids, dtype=torch.int64),
            torch.stack([masks[class_id] for class_id in class_ids]) if class_ids else torch.zeros(0, *frame.hw, dtype=torch.bool),
        )


def _box(mask: torch.Tensor) -> list[float]:
    rows, columns = mask.nonzero().T.tolist()
    return [min(columns), min(rows), max(columns) + 1, max(rows) + 1]


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> ColourDetector:
    """The stand-in detector, under whatever name; it keeps the settings that it was loaded with."""
    detector = ColourDetector()

    def load(name: str, **arguments: object) -> ColourDetector:
        detector.settings = arguments
        return detector

    monkeypatch.setattr(registry, "load_detector", load)
    return detector


def picture(red: int | None = 4, green: int | None = None) -> NDArray[np.uint8]:
    """Gray, with a red square of 16 pixels at column `red`, row 8, and a green one at column `green`, row 28."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    if red is not None:
        pixels[8:24, red : red + 16] = RED
    if green is not None:
        pixels[28:44, green : green + 16] = GREEN
    return pixels


def put_picture(path: Path, red: int | None = 4, green: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(red, green)).save(path)
    return path


def put_video(path: Path, num_frames: int = 12) -> Path:
    """A red square that moves by 3 pixels a frame; from frame 6 on a green one beside it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv444p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(3 * number, 20 if number >= 6 else None), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images of which the second has two objects and the third none, and a file that is no image."""
    folder = tmp_path / "photos"
    put_picture(folder / "img1.png")
    put_picture(folder / "img2.png", 30, 8)
    put_picture(folder / "img10.png", None)
    (folder / "notes.txt").write_text("no image")
    return folder
