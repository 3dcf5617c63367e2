"""YOLACT's detection against the official code's outputs; the tolerances are those of the fixtures' README.

Each comparison has a sensitivity twin: with one deliberate fault it must exceed the same tolerance.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rotoscope.models.yolact.assembly import enlarged, soft_masks
from rotoscope.models.yolact.config import YolactConfig
from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.models.yolact.reading import Instances, read_instances
from rotoscope.ops import boxes as box_ops
from rotoscope.ops.boxes import corners_of, decode
from rotoscope.types import Detections

DATA = Path(__file__).parent / "data" / "yolact"
EXACT = 1e-6  # decoding and suppression
PIXELS = 5  # of masks that may differ, over all
SETTINGS = YolactConfig(tuple(f"class {number}" for number in range(80)))
RUNS = {  # name in the fixture: what differs from the default settings
    "fast": {},
    "fast_k5": {"top_k": 5},
    "fast_nms30": {"overlap_threshold": 0.3},
    "cc": {"suppression": "cross-class", "max_detections": 200},  # officially not cut to 100
    "cc_k40": {"suppression": "cross-class", "max_detections": 200, "top_k": 40},
    "trad": {"suppression": "classic"},
}
FAULTS = {  # what must be noticed in each run
    "fast": {"overlap_threshold": 0.6},
    "fast_k5": {"top_k": 4},
    "fast_nms30": {"overlap_threshold": 0.35},
    "cc": {"max_detections": 100},
    "cc_k40": {"top_k": 41},
    "trad": {"image_size": 50},  # the unit of the pixels that are added to the sides
}


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """One file of the fixtures."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@cache
def made_up() -> RawOutputs:
    """The made-up predictions that the fixtures of decoding and of masks begin with."""
    found = arrays("detect")
    return RawOutputs(
        offsets=found["loc"],
        class_logits=found["conf_logits"],
        coefficients=found["mask"],
        prototypes=found["proto"].permute(2, 0, 1)[None].contiguous(),
        priors=found["priors"],
    )


def worst(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference; infinite where the shapes differ."""
    return float((ours.double() - theirs.double()).abs().max()) if ours.shape == theirs.shape else float("inf")


def unpacked(packed: Tensor, hw: tuple[int, int]) -> Tensor:
    """Masks from bits, mask by mask."""
    bits = np.unpackbits(packed.numpy(), axis=1)[:, : hw[0] * hw[1]]
    return torch.from_numpy(bits).view(-1, *hw).bool()


def error_of(found: Instances, name: str) -> float:
    """The largest difference of boxes and scores; infinite if the classes or their order differ."""
    expected = arrays("detect")
    if not torch.equal(found.class_ids, expected[f"{name}_class"]):
        return float("inf")
    return max(worst(found.boxes, expected[f"{name}_box"]), worst(found.scores, expected[f"{name}_score"]))


def test_decoding() -> None:
    outputs, expected = made_up(), arrays("detect")["decoded"]
    assert worst(decode(outputs.offsets[0], outputs.priors)[::3], expected) < EXACT
    as_corners = torch.cat((outputs.priors[:, :2] - outputs.priors[:, 2:] / 2, outputs.priors[:, 2:]), dim=1)
    assert worst(decode(outputs.offsets[0], as_corners)[::3], expected) > 1e3 * EXACT


def test_other_variances_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box_ops, "VARIANCES", (0.1, 0.1))
    outputs = made_up()
    assert worst(decode(outputs.offsets[0], outputs.priors)[::3], arrays("detect")["decoded"]) > 1e3 * EXACT


@pytest.mark.parametrize("name", RUNS)
def test_suppression(name: str) -> None:
    assert error_of(read_instances(made_up(), 0, replace(SETTINGS, **RUNS[name])), name) < EXACT


@pytest.mark.parametrize("name", FAULTS)
def test_another_suppression_would_be_noticed(name: str) -> None:
    assert error_of(read_instances(made_up(), 0, replace(SETTINGS, **(RUNS[name] | FAULTS[name]))), name) > 1e3 * EXACT


def test_coefficients_belong_to_their_boxes() -> None:
    found = read_instances(made_up(), 0, SETTINGS)
    origin = (decode(made_up().offsets[0], made_up().priors)[None] - found.boxes[:, None]).abs().sum(dim=2).argmin(dim=1)
    assert torch.equal(found.coefficients, made_up().coefficients[0, origin])


def outcomes(boxes: Tensor, class_ids: Tensor, scores: Tensor) -> list[tuple[int, ...]]:
    """Class, box and score in steps of a hundred-thousandth, in an order of their own: for runs whose scores nearly tie."""
    rows = torch.cat((class_ids[:, None], (boxes * 1e5).round(), (scores * 1e5).round()[:, None]), dim=1)
    return sorted(tuple(row) for row in rows.long().tolist())


def test_low_scores_of_a_likely_prior_come_back() -> None:
    found = read_instances(made_up(), 0, replace(SETTINGS, score_threshold=0.9))
    expected = [arrays("detect")[f"fast_conf90_{part}"] for part in ("box", "class", "score")]
    theirs = outcomes(expected[0], expected[1], expected[2])
    assert outcomes(found.boxes, found.class_ids, found.scores) == theirs
    assert float(found.scores.min()) < 0.05
    strict = read_instances(made_up(), 0, replace(SETTINGS, score_threshold=0.9, min_score=0.05))
    assert outcomes(strict.boxes, strict.class_ids, strict.scores) != theirs


@cache
def soft(*, crop: bool = True) -> Tensor:
    found = read_instances(made_up(), 0, SETTINGS)
    return soft_masks(made_up().prototypes[0], found.coefficients, found.boxes, crop=crop)


def test_soft_masks_before_and_after_the_crop() -> None:
    expected = arrays("postprocess")
    assert worst(soft(crop=False)[:8].permute(1, 2, 0), expected["soft_first8"]) < EXACT
    assert worst(soft()[:8].permute(1, 2, 0), expected["soft_crop_first8"]) < EXACT
    assert worst(soft().sum(dim=(1, 2)), expected["soft_crop_sum"]) < 1e-4  # of sums up to 163
    assert worst(soft(crop=False)[:8].permute(1, 2, 0), expected["soft_crop_first8"]) > 0.1


def differing(masks: Tensor) -> int:
    """How many pixels of the masks at full size are not the official ones."""
    width, height = arrays("postprocess")["size_wh"].tolist()
    return int((masks != unpacked(arrays("postprocess")["all_masks_packed"], (height, width))).sum())


def test_masks_at_full_size() -> None:
    masks = enlarged(soft(), (160, 213))
    assert differing(masks) <= PIXELS
    assert worst(masks.sum(dim=(1, 2)), arrays("postprocess")["all_area"]) <= PIXELS


def test_masks_without_the_crop() -> None:
    masks, expected = enlarged(soft(crop=False), (160, 213)), arrays("postprocess")
    assert int((masks[:8] != unpacked(expected["nocrop_first8_packed"], (160, 213))).sum()) <= PIXELS
    assert worst(masks.sum(dim=(1, 2)), expected["nocrop_area"]) <= PIXELS
    assert differing(masks) > 1e6


def test_a_crop_without_its_margin_would_be_noticed() -> None:
    found = read_instances(made_up(), 0, SETTINGS)
    assert differing(enlarged(box_ops.crop_masks(soft(crop=False), found.boxes, padding=0.0), (160, 213))) > 10_000


def test_aligned_corners_would_be_noticed() -> None:
    resized = torch.nn.functional.interpolate(soft()[None], (160, 213), mode="bilinear", align_corners=True)[0]
    assert differing(resized > 0.5) > 1000
