"""Fixtures of the tests of `rotoscope correct`: a project over the small clip, with a stand-in tracker and maker of masks."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_fixtures import HEIGHT, NUM_FRAMES, WIDTH, SmearTracker, write_mask
from PIL import Image
from session_parts import DiscMaker

from rotoscope.cli.__main__ import main
from rotoscope.models import registry
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.types import Frame, Interaction, Masks

Correct = Callable[..., int]


class NotedDiscs(DiscMaker):
    """It notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[Interaction]]] = []

    def make(self, frame: Frame, interactions: Iterable[Interaction], current: Masks) -> Masks:
        done = list(interactions)
        self.asked.append((frame.index, done))
        return super().make(frame, done, current)


@pytest.fixture
def discs(monkeypatch: pytest.MonkeyPatch) -> NotedDiscs:
    maker = NotedDiscs()
    monkeypatch.setattr(registry, "load_mask_maker", lambda *_, **__: maker)
    return maker


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "work"


def blank_session(project: Path) -> InteractiveSession:
    """The project opened from Python, without its pictures."""
    frames = [Frame(index, torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)) for index in range(NUM_FRAMES)]
    return InteractiveSession(frames, SmearTracker(), project=project)


@pytest.fixture
def correct(smear, discs, project: Path) -> Correct:
    """Runs the command on the project; without an overlay, which takes longest, unless one is asked for."""

    def run(*arguments: object) -> int:
        quick = [] if "--overlay" in arguments else ["--overlay", "none"]
        return main(["correct", str(project), *map(str, arguments), *quick])

    return run


@pytest.fixture
def begun(correct: Correct, clip_folder: Path, capsys) -> Correct:
    """The same, with a project in which object 1 was clicked on in frame 0 and carried on."""
    assert correct("--clip", clip_folder, "--click", "10,12") == 0
    capsys.readouterr()
    return correct


def state_of(correct: Correct, capsys) -> dict:
    assert correct("--list", "--json") == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def texts(state: dict) -> list[str]:
    return [step["text"] for step in state["steps"]]


def labels_in(output: Path, index: int = 0) -> np.ndarray:
    with Image.open(output / "masks" / "clip" / f"{index:05d}.png") as image:
        return np.asarray(image)


def content_of(output: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((output / "masks" / "clip").glob("*.png"))]


def square_file(path: Path, *ids: int) -> Path:
    """A mask of some objects side by side."""
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for place, object_id in enumerate(ids):
        labels[4:12, 2 + 9 * place : 9 + 9 * place] = object_id
    return write_mask(path, labels)


@pytest.fixture
def tracked(smear, clip_folder, first_mask, tmp_path, capsys) -> Path:
    assert main(["track", str(clip_folder), "--mask", f"2={first_mask}", "-o", str(tmp_path / "tracked")]) == 0
    capsys.readouterr()
    return tmp_path / "tracked"
