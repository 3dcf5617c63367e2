"""The script that judges makers of masks, on a frame whose masks are known."""

import sys
from collections.abc import Iterable
from pathlib import Path

import measure_interactions
import numpy as np
import pytest
import torch
from PIL import Image

from rotoscope.models import registry
from rotoscope.testing import moving_shapes
from rotoscope.types import Box, Clicks, Frame, Interaction, Masks

HW = (48, 64)


class Half:
    """Knows the truth: a box gives all of it; each click gives the half of the frame that it is in, and takes the pixel of a negative one."""

    def __init__(self, truth: torch.Tensor) -> None:
        self.truth = truth

    def make(self, frame: Frame, interactions: Iterable[Interaction], current: Masks) -> Masks:
        found = torch.zeros_like(self.truth)
        for one in interactions:
            if isinstance(one, Box):
                found |= self.truth
            elif isinstance(one, Clicks):
                for x, _ in one.points[one.positive].tolist():
                    side = torch.arange(HW[1]) >= HW[1] / 2
                    found |= self.truth & (side if x >= HW[1] / 2 else ~side)
        return Masks.from_labels(found.int(), [1])


@pytest.fixture
def truth() -> torch.Tensor:
    mask = torch.zeros(HW, dtype=torch.bool)
    mask[10:30, 12:42] = True  # 20 columns in the left half, 10 in the right
    return mask


def test_clicks_go_to_the_largest_error_until_nothing_is_wrong(truth) -> None:
    judged = measure_interactions.judge(Half(truth), Frame(0, torch.zeros(3, *HW, dtype=torch.uint8)), truth, "clip 1")
    assert judged.box == 1
    assert judged.clicks == pytest.approx((2 / 3, 1, 1, 1, 1))
    assert len(judged.seconds) == 3
    text = measure_interactions.summary([judged])
    assert "1 objects: mean IoU 1.000 from a box; 0.667, 1.000" in text


def test_boxes_are_tight_and_void_counts_for_nothing(truth) -> None:
    assert measure_interactions.box_of(truth).tolist() == [12, 10, 42, 30]
    counts = torch.ones(HW, dtype=torch.bool)
    counts[:, 32:] = False
    left = truth & counts
    assert measure_interactions.overlap(left, truth) == pytest.approx(2 / 3)
    assert measure_interactions.overlap(left, truth, counts) == 1


def test_the_first_frames_of_a_folder_are_judged(tmp_path, monkeypatch, capsys) -> None:
    images, labels = moving_shapes(num_frames=2, hw=HW, num_objects=2)
    for name, pictures in (("JPEGImages", images.permute(0, 2, 3, 1).numpy()), ("Annotations", labels.numpy().astype(np.uint8))):
        (tmp_path / name / "one").mkdir(parents=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / "one" / f"{index:05d}.png")
    monkeypatch.setattr(registry, "load_mask_maker", lambda *_, **settings: Half(labels[0] == settings["long_edge"]))
    monkeypatch.setattr(sys, "argv", ["measure", str(tmp_path), "--threads", "1", "--set", "long_edge=2"])
    measure_interactions.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("one 1")
    assert "box 1.000" in said[1]
    assert said[2].startswith("2 objects")


@pytest.mark.real_data
def test_what_ships_reaches_its_bars_on_the_first_frames_of_real_clips(shared_data: Path) -> None:
    maker = registry.load_mask_maker("s2m-lite", device="cpu")
    frames = measure_interactions.first_frames(shared_data / "davis2016-open")
    judged = [measure_interactions.judge(maker, frame, labels == 1, name) for name, frame, labels in frames]
    assert len(judged) == 10
    assert sum(one.box for one in judged) / 10 >= 0.75
    assert max(sum(one.clicks[number] for one in judged) / 10 for number in range(5)) >= 0.8
