"""The main job as users run it, with the weights that ship."""

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
from PIL import Image

import rotoscope
from rotoscope.cli.__main__ import main
from rotoscope.evaluation.measures import jaccard
from rotoscope.testing import moving_shapes


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.real_data
def test_a_swan_is_followed_with_the_default_weights(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "davis2016-open"
    frames, annotations = root / "JPEGImages" / "480p" / "blackswan", root / "Annotations" / "480p" / "blackswan"
    arguments = ["track", str(frames), "--mask", str(annotations / "00000.png"), "-o", str(tmp_path), "--max-frames", "6", "--max-memory", "512MB"]
    assert main(arguments) == 0
    for index in (0, 3, 5):
        path = tmp_path / "masks" / "blackswan" / f"{index:05d}.png"
        with Image.open(path) as image:
            assert image.mode == "P"
        labels = read(path)
        assert labels.shape == (480, 854)
        truth = read(annotations / f"{index:05d}.png") > 127
        assert jaccard(labels == 1, truth) > (0.999 if index == 0 else 0.85)


def test_a_killed_process_resumes_to_the_masks_of_an_uninterrupted_one(tmp_path: Path) -> None:
    images, labels = moving_shapes(num_frames=30, hw=(96, 128), num_objects=2)
    clip = tmp_path / "clip"
    clip.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(clip / f"{index:05d}.png")
    rotoscope.write_labels(tmp_path / "first.png", labels[0])
    arguments = ["track", str(clip), "--mask", str(tmp_path / "first.png")]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main([*arguments, "-o", str(whole)]) == 0
    command = [sys.executable, "-m", "rotoscope.cli", *arguments, "-o", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and len(list(killed.rglob("0*.png"))) < 5:
        time.sleep(0.005)
    assert process.poll() is None, "the process ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "summary.json").exists()
    assert main([*arguments, "-o", str(killed), "--resume"]) == 0
    for path in sorted((whole / "masks" / "clip").iterdir()):
        assert path.read_bytes() == (killed / "masks" / "clip" / path.name).read_bytes()
    assert json.loads((killed / "summary.json").read_text())["complete"]


@pytest.mark.real_data
def test_five_objects_keep_their_ids(shared_data: Path) -> None:
    root = shared_data / "multi-open"
    first = root / "Annotations" / "longboard" / "00000.png"
    results = list(rotoscope.track(root / "JPEGImages" / "longboard", first, frames=slice(0, 8)))
    expected = read(root / "Annotations" / "longboard" / "00007.png")
    assert results[-1].object_ids == (1, 2, 3, 4, 5)
    for object_id in results[-1].object_ids:
        found, real = results[-1].labels == object_id, expected == object_id
        others = [(found & (expected == other)).sum() for other in results[-1].object_ids if other != object_id]
        assert (found & real).sum() > max(others)


def test_memory_stays_flat_over_two_thousand_frames() -> None:
    """Frames stream and the model forgets: after a warm-up the process grows by no more than a few frames' worth."""
    frames, labels = moving_shapes(num_frames=8, hw=(16, 24), num_objects=1)
    process = psutil.Process()
    sizes = []
    clip = np.concatenate([frames.permute(0, 2, 3, 1).numpy()] * 250)
    for result in rotoscope.track(clip, labels[0], max_memory_bytes=16 * 2**20):
        if result.frame_index in (400, 1999):
            sizes.append(process.memory_info().rss)
    assert sizes[1] - sizes[0] < 16 * 2**20
