"""The main job on real video with the weights that ship: only here are real clips needed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from rotoscope.testing import moving_shapes

import rotoscope
from rotoscope.cli.__main__ import main
from rotoscope.evaluation.measures import jaccard

pytestmark = pytest.mark.real_data


@pytest.fixture
def swan(shared_data: Path) -> tuple[Path, Path]:
    """The frames and the first mask of blackswan."""
    root = shared_data / "davis2016-open"
    return root / "JPEGImages" / "480p" / "blackswan", root / "Annotations" / "480p" / "blackswan"


def truth(folder: Path, index: int) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{index:05d}.png").convert("L")) > 127


def test_a_swan_is_followed_with_the_default_weights(swan, tmp_path: Path) -> None:
    frames, annotations = swan
    arguments = ["track", str(frames), "--mask", str(annotations / "00000.png"), "-o", str(tmp_path), "--max-frames", "8", "--max-memory", "512MB"]
    assert main(arguments) == 0
    for index in (0, 4, 7):
        path = tmp_path / "masks" / "blackswan" / f"{index:05d}.png"
        labels = np.asarray(Image.open(path))
        assert Image.open(path).mode == "P"
        assert labels.shape == (480, 854)
        assert jaccard(labels == 1, truth(annotations, index)) > (0.999 if index == 0 else 0.85)


def test_a_killed_process_resumes_to_the_masks_of_an_uninterrupted_one(swan, tmp_path: Path) -> None:
    frames, annotations = swan
    arguments = ["track", str(frames), "--mask", str(annotations / "00000.png"), "--frames", "0:7", "--overlay", "none"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*arguments, "-o", str(whole)]) == 0
    command = [sys.executable, "-m", "rotoscope.cli", *arguments, "-o", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(killed.rglob("*.png"))) < 3:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert main([*arguments, "-o", str(killed), "--resume"]) == 0
    for path in sorted((whole / "masks" / "blackswan").iterdir()):
        assert path.read_bytes() == (killed / "masks" / "blackswan" / path.name).read_bytes()
    assert json.loads((killed / "summary.json").read_text())["complete"]


def test_five_objects_keep_their_ids(shared_data: Path) -> None:
    root = shared_data / "multi-open"
    first = root / "Annotations" / "longboard" / "00000.png"
    results = list(rotoscope.track(root / "JPEGImages" / "longboard", first, frames=slice(0, 4)))
    expected = np.asarray(Image.open(root / "Annotations" / "longboard" / "00003.png"))
    assert results[-1].object_ids == (1, 2, 3, 4, 5)
    for object_id in results[-1].object_ids:
        found, real = results[-1].labels == object_id, expected == object_id
        others = [(found & (expected == other)).sum() for other in results[-1].object_ids if other != object_id]
        assert (found & real).sum() > max(others)


def test_memory_stays_flat_over_two_thousand_frames() -> None:
    """Frames stream and the model forgets: after a warm-up the process grows by no more than a few frames' worth."""
    torch.set_num_threads(1)
    frames, labels = moving_shapes(num_frames=8, hw=(64, 96), num_objects=1)
    process = psutil.Process()
    sizes = []
    clip = np.concatenate([frames.permute(0, 2, 3, 1).numpy()] * 250)
    for result in rotoscope.track(clip, labels[0], max_memory_bytes=16 * 2**20):
        if result.frame_index in (400, 1999):
            sizes.append(process.memory_info().rss)
    assert sizes[1] - sizes[0] < 16 * 2**20
