"""The script that judges makers of masks, on a frame whose masks are known."""

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from rotoscope.models import registry
from rotoscope.testing import moving_shapes
from rotoscope.types import Box, Clicks, Frame, Interaction, Masks

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "measure_interactions.py"
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


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_interactions", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure_interactions"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def truth() -> torch.Tensor:
    mask = torch.zeros(HW, dtype=torch.bool)
    mask[10:30, 12:42] = True  # 20 columns in the left half, 10 in the right
    return mask


def test_clicks_go_to_the_largest_error_until_nothing_is_wrong(script, truth) -> None:
    judged = script.judge(Half(truth), Frame(0, torch.zeros(3, *HW, dtype=torch.uint8)), truth, "clip 1")
    assert judged.box == 1
    assert judged.clicks == pytest.approx((2 / 3, 1, 1, 1, 1))
    assert len(judged.seconds) == 3
    text = script.summary([judged])
    assert "1 objects: mean IoU 1.000 from a box; 0.667, 1.000" in text


def test_boxes_are_tight_and_void_counts_for_nothing(script, truth) -> None:
    assert script.box_of(truth).tolist() == [12, 10, 42, 30]
    counts = torch.ones(HW, dtype=torch.bool)
    counts[:, 32:] = False
    left = truth & counts
    assert script.overlap(left, truth) == pytest.approx(2 / 3)
    assert script.overlap(left, truth, counts) == 1


def test_the_first_frames_of_a_folder_are_judged(script, tmp_path, monkeypatch, capsys) -> None:
    images, labels = moving_shapes(num_frames=2, hw=HW, num_objects=2)
    for name, pictures in (("JPEGImages", images.permute(0, 2, 3, 1).numpy()), ("Annotations", labels.numpy().astype(np.uint8))):
        (tmp_path / name / "one").mkdir(parents=True)
        for index, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / "one" / f"{index:05d}.png")
    monkeypatch.setattr(registry, "load_mask_maker", lambda *_, **settings: Half(labels[0] == settings["long_edge"]))
    monkeypatch.setattr(sys, "argv", ["measure", str(tmp_path), "--threads", "1", "--set", "long_edge=2"])
    script.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("one 1")
    assert "box 1.000" in said[1]
    assert said[2].startswith("2 objects")
