"""Fixtures of the job and command tests: a clip on disk, a mask for it, and a tracker whose result depends on its history."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rotoscope.models import registry
from rotoscope.types import Frame, Masks

NUM_FRAMES, HEIGHT, WIDTH = 12, 24, 32


class Smear:
    """Predicts the mean of the last two remembered masks, moved by one pixel: soft, and dependent on its history."""

    def __init__(self) -> None:
        self.memory: list[Masks] = []

    def predict(self, frame: Frame) -> Masks:
        last = self.memory[-1]
        mean = sum(masks.select(last.object_ids).probs for masks in self.memory[-2:]) / len(self.memory[-2:])
        return Masks(torch.roll(mean, 1, dims=2), last.object_ids)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        self.memory = [*self.memory[-1:], masks]

    def state(self) -> dict[str, Tensor]:
        tensors = {f"probs.{i}": masks.probs for i, masks in enumerate(self.memory)}
        return tensors | {f"ids.{i}": torch.tensor(masks.object_ids) for i, masks in enumerate(self.memory)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        count = len(state) // 2
        self.memory = [Masks(state[f"probs.{i}"], tuple(state[f"ids.{i}"].tolist())) for i in range(count)]


class SmearTracker:
    def start(self, *, max_memory_bytes: int | None = None, features: object = None) -> Smear:
        return Smear()


@pytest.fixture
def smear(monkeypatch: pytest.MonkeyPatch) -> SmearTracker:
    """The stand-in tracker, under the name of the default model."""
    tracker = SmearTracker()
    monkeypatch.setattr(registry, "load", lambda *args, **kwargs: tracker)
    return tracker


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    """Twelve small images."""
    folder = tmp_path / "clip"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index in range(NUM_FRAMES):
        Image.fromarray(noise.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / f"{index:05d}.png")
    return folder


def write_mask(path: Path, labels: np.ndarray) -> Path:
    Image.fromarray(labels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def first_mask(tmp_path: Path) -> Path:
    """Objects 1 and 4, for any frame."""
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    labels[4:12, 3:9] = 1
    labels[12:20, 14:20] = 4
    return write_mask(tmp_path / "first.png", labels)
