"""YOLACT's detection against the official code's outputs; the tolerances are those of the fixtures' README.

Each comparison has a sensitivity twin: with one deliberate fault it must exceed the same tolerance.
"""

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rotoscope.models.checkpoints import Checkpoint
from rotoscope.models.yolact import VARIANTS, YolactDetector, build, detections_of
from rotoscope.models.yolact.assembly import enlarged, soft_masks
from rotoscope.models.yolact.config import YolactConfig
from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.models.yolact.pictures import network_size, prepared
from rotoscope.models.yolact.reading import Instances, read_instances
from rotoscope.ops import boxes as box_ops
from rotoscope.ops.boxes import decode
from rotoscope.testing import official_weights
from rotoscope.types import Detections, Frame

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


def same_pixels(ours: Tensor, theirs: Tensor) -> bool:
    """Whether exact corners and the official ones, cut to whole pixels, are the same; where ours is next to a whole number either may be."""
    return bool(((ours.long() == theirs) | ((ours.round() == theirs) & ((ours - ours.round()).abs() < 1e-4))).all())


def test_whole_detections() -> None:
    found, expected = detections_of(made_up(), 0, (160, 213), SETTINGS), arrays("postprocess")
    assert torch.equal(found.class_ids, expected["all_class"])
    assert worst(found.scores, expected["all_score"]) < EXACT
    assert same_pixels(found.boxes, expected["all_box"])
    assert differing(found.masks) <= PIXELS
    assert not same_pixels(detections_of(made_up(), 0, (161, 213), SETTINGS).boxes, expected["all_box"])


@pytest.mark.parametrize(("least", "agrees"), [(0.85, True), (0.84, False)])
def test_a_threshold_for_scores(least: float, agrees: bool) -> None:
    found, expected = detections_of(made_up(), 0, (160, 213), replace(SETTINGS, min_score=least)), arrays("postprocess")
    count = len(expected["thr85_class"])
    assert (len(found.scores) == count) == agrees
    assert torch.equal(found.class_ids[:count], expected["thr85_class"])
    assert worst(found.scores[:count], expected["thr85_score"]) < EXACT
    assert same_pixels(found.boxes[:count], expected["thr85_box"])
    assert worst(found.masks[:count].sum(dim=(1, 2)), expected["thr85_area"]) <= PIXELS


def test_reading_twice_gives_the_same() -> None:
    first, second = (detections_of(made_up(), 0, (160, 213), SETTINGS) for _ in range(2))
    assert torch.equal(first.boxes, second.boxes)
    assert torch.equal(first.masks, second.masks)


def picture_error(model: str, path: str, fault: Tensor | None = None) -> float:
    """Of a prepared picture, against what the official code made on one of its two ways; `fault` is put in its place."""
    image = arrays("prepared_pictures")["image_bgr"].permute(2, 0, 1).flip(0)
    config = replace(SETTINGS, backbone=model, image_size=138)
    ours = prepared([Frame(0, image if fault is None else fault)], (138, 138), config, torch.device("cpu"))[0]
    if path == "fast":
        return worst(ours[:, ::2, ::2][:, ::3, ::3], arrays("prepared_pictures")[f"{model}_fast_rgb_chw"])
    return worst(ours.permute(1, 2, 0)[::2, ::2][::3, ::3], arrays("prepared_pictures")[f"{model}_base_rgb_hwc"])


@pytest.mark.parametrize("path", ["fast", "base"])
@pytest.mark.parametrize("model", ["resnet50", "darknet53"])
def test_prepared_pictures(model: str, path: str) -> None:
    assert picture_error(model, path) < 2e-5  # the official ways differ by 8e-6
    swapped = arrays("prepared_pictures")["image_bgr"].permute(2, 0, 1)
    assert picture_error(model, path, swapped) > 0.1


def test_sizes_that_keep_the_aspect_ratio() -> None:
    for width, height, wide, high in arrays("prepared_pictures")["preserve_ar_sizes"].tolist():
        assert network_size((height, width), replace(SETTINGS, keep_aspect_ratio=True)) == (high, wide)
        assert network_size((height, width), SETTINGS) == (550, 550)


@cache
def clip_detector() -> YolactDetector:
    """The official network of the clip: synthetic weights, some of them scaled or replaced so that things are found."""
    tensors = official_weights(DATA / "keys.json", "yolact_resnet50")
    tensors["prediction_layers.0.conf_layer.weight"] = tensors["prediction_layers.0.conf_layer.weight"] * 4
    tensors["proto_net.10.weight"] = tensors["proto_net.10.weight"] * 8
    tensors["proto_net.10.bias"] = arrays("clip_e2e")["override_proto_net_10_bias"]
    scales = tuple((float(scale),) for scale in arrays("clip_e2e")["pred_scales"].tolist())
    return build(replace(VARIANTS["yolact-resnet50"], image_size=138, scales=scales), Checkpoint(tensors, "synthetic"), "cpu")


@cache
def clip_frames() -> list[Frame]:
    return [Frame(index, image.permute(2, 0, 1).flip(0).contiguous()) for index, image in enumerate(arrays("clip_e2e")["frames_bgr"])]


def clip_errors(found: Detections, index: int) -> tuple[float, float, int]:
    """Of boxes (relative), of scores, and how many mask pixels differ; infinite where the order of classes differs."""
    expected = {key.removeprefix(f"f{index}_"): value for key, value in arrays("clip_e2e").items()}
    if len(found.scores) != int(expected["count"]) or not torch.equal(found.class_ids[:30], expected["class"]):
        return float("inf"), float("inf"), 10**9
    unit = torch.tensor([133.0, 100.0, 133.0, 100.0])
    masks = unpacked(expected["masks_packed"], (100, 133))
    boxes = worst(found.boxes[:30] / unit, expected["rel_box"].clamp(0, 1))
    return boxes, worst(found.scores[:30], expected["score"]), int((found.masks[: len(masks)] != masks).sum())


def test_a_clip_from_frames_to_masks() -> None:
    found = clip_detector().detect_batch(clip_frames())
    errors = [clip_errors(detections, index) for index, detections in enumerate(found)]
    assert max(boxes for boxes, _, _ in errors) < 1e-4
    assert max(scores for _, scores, _ in errors) < 1e-4
    assert sum(pixels for _, _, pixels in errors) <= PIXELS


def test_blue_and_red_in_the_other_order_would_be_noticed() -> None:
    swapped = Frame(0, clip_frames()[0].image.flip(0))
    boxes, scores, _ = clip_errors(clip_detector().detect(swapped), 0)
    assert max(boxes, scores) > 1e-2


@cache
def plus_detector() -> YolactDetector:
    tensors = official_weights(DATA / "keys.json", "yolact_plus_resnet50")
    return build(VARIANTS["yolact-plus-resnet50"], Checkpoint(tensors, "synthetic"), "cpu")


@cache
def plus_outputs() -> RawOutputs:
    """What the official YOLACT++ on ResNet-50 says of a picture of noise."""
    image = torch.from_numpy(np.random.RandomState(22).standard_normal((1, 3, 256, 256)).astype(np.float32))
    with torch.no_grad():
        return plus_detector().network(image)


def plus_detections() -> Detections:
    """The same, read for a picture of 200 x 180 pixels."""
    return detections_of(plus_outputs(), 0, (180, 200), plus_detector().config, plus_detector().network.mask_iou)


def test_masks_are_judged() -> None:
    found, expected = plus_detections(), arrays("plus_detections")
    pairing = matching(found, expected)
    assert worst(found.scores, expected["p50_pp_boxscore"]) < 1e-5
    assert same_pixels(found.boxes[pairing], expected["p50_pp_box"])
    assert found.mask_scores is not None
    assert worst(found.mask_scores[pairing], expected["p50_pp_maskscore"]) < 1e-5
    masks = unpacked(expected["p50_pp_masks_packed"], (180, 200))
    assert int((found.masks[pairing][: len(masks)] != masks).sum()) <= PIXELS


def matching(found: Detections, expected: dict[str, Tensor]) -> Tensor:
    """Which of ours each official detection is: scores nearly tie, so the order may differ."""
    unit = torch.tensor([200.0, 180.0, 200.0, 180.0])
    apart = (found.boxes[None] / unit - expected["p50_det_box"].clamp(0, 1)[:, None]).abs().amax(dim=2)
    apart = apart + (found.class_ids[None] != expected["p50_det_class"][:, None])
    pairing = apart.argmin(dim=1)
    assert float(apart.amin(dim=1).max()) < 1e-4
    assert len(pairing.unique()) == len(found.boxes)
    return pairing


def test_judging_as_another_class_would_be_noticed() -> None:
    judge = copy.deepcopy(plus_detector().network.mask_iou)
    assert judge is not None
    judge.classify.weight.copy_(judge.classify.weight.roll(1, 0))
    judge.classify.bias.copy_(judge.classify.bias.roll(1, 0))
    found, expected = plus_detections(), arrays("plus_detections")
    wrong = detections_of(plus_outputs(), 0, (180, 200), plus_detector().config, judge)
    assert wrong.mask_scores is not None
    assert worst(wrong.mask_scores[matching(found, expected)], expected["p50_pp_maskscore"]) > 1e-4
