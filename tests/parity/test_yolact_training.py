"""YOLACT's losses, matching and augmentation against the official code's; the tolerances are those of the fixtures' README.

`losses.npz` leaves out what is drawn at random: `batch` draws it again, bit for bit. Each comparison has a sensitivity twin: with one deliberate
fault it must exceed the same tolerance.
"""

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.models.yolact import OFFICIAL_NAMES, MaskIouNetwork, RawOutputs
from rotoscope.ops.boxes import encode
from rotoscope.testing import filled
from rotoscope.training.detection.matching import match_priors
from rotoscope.training.detection.multibox import detection_losses
from rotoscope.training.detection.settings import LossSettings
from rotoscope.training.detection.ssd_augment import Picture, SsdSettings, augmented
from rotoscope.training.detection.truth import Truth

DATA = Path(__file__).parent / "data" / "yolact"
LOSS, GRADIENT, IMAGE = 1e-5, 1e-5, 2e-3  # relative; relative to the largest; of normalised pixels
PRIORS = 1329
OFFICIAL = LossSettings(least_union=0.1, least_box_area=0.0)  # where ours differs on purpose
VARIANTS = {
    "base": {},
    "no_crowd_neutral": {"crowd_share": 1.0},
    "neg_thresh_0.5": {"negative_overlap": 0.5},
    "ohem_use_most_confident": {"mining": "confidence"},
    "ohem_ratio_1": {"negatives_per_positive": 1.0},
    "focal_softmax": {"class_loss": "softmax-focal"},
    "focal_sigmoid": {"class_loss": "sigmoid-focal"},
    "focal_objectness": {"class_loss": "objectness-focal"},
    "objectness": {"class_loss": "objectness"},
    "focal_softmax_neg_thresh_0.5": {"class_loss": "softmax-focal", "negative_overlap": 0.5},
    "class_balanced": {"is_class_balanced": True},
    "class_existence": {"existence_weight": 1.0},
    "mask_no_crop": {"crop": "none"},
    "mask_crop_pred_box": {"crop": "predicted"},
    "mask_no_roi_norm": {"is_area_normalised": False},
    "mask_soft_gt": {"is_mask_binary": False},
    "mask_sqrt_area": {"is_root_normalised": True, "is_area_normalised": False},
    "mask_reweight": {"balance_weight": 1.0},
    "mask_double": {"whole_mask_weight": 1.0},
    "coeff_diversity": {"diversity_weight": 1.0},
    "proto_l1": {"prototype_loss": "sparse"},
    "proto_disj": {"prototype_loss": "disjoint"},
    "plus_maskiou_proto69": {},
    "plus_maskiou_proto69_no_discard": {"least_judged_area": 0.0},
}
SAME_SCALARS = {"base", "neg_thresh_0.5"}  # the changed threshold moves no mined prior (README, sensitivity)


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """One file of the fixtures."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@cache
def drawn() -> dict[str, Tensor]:
    """The random inputs of the losses."""
    random, other = np.random.RandomState(41), np.random.RandomState(42)
    offsets = 0.8 * random.standard_normal((2, PRIORS, 4))
    logits = random.standard_normal((2, PRIORS, 81)).astype(np.float32)
    logits[..., 0] += np.float32(2.5)
    coefficients = np.tanh(random.standard_normal((2, PRIORS, 32)))
    semantic, classes = other.standard_normal((2, 80, 18, 18)), other.standard_normal((2, 80))
    made = {"loc": offsets, "conf": logits, "mask": coefficients, "segm": semantic, "classes": classes}
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in made.items()}


@cache
def truths() -> list[Truth]:
    """The objects of the two images; the last of the first one is a crowd."""
    found = arrays("losses")
    result = []
    for image in range(2):
        target, packed = found[f"target{image}"].float(), found[f"masks{image}_packed"].numpy()
        masks = torch.from_numpy(np.unpackbits(packed, axis=1)[:, : 138 * 138].reshape(-1, 138, 138)).float()
        count = len(target) - int(found["num_crowds"][image])
        result.append(Truth(target[:count, :4], target[:count, 4].long(), masks[:count], target[count:, :4]))
    return result


def crowd_as_object() -> list[Truth]:
    """The same where the crowd is an object of the last class: so the official loss E takes it, whose label is -1."""
    first, second = truths()
    class_ids, masks = torch.cat((first.class_ids, torch.tensor([79]))), torch.cat((first.masks, first.masks[:1]))
    return [Truth(torch.cat((first.boxes, first.crowd_boxes)), class_ids, masks, first.crowd_boxes[:0]), second]


def batch(*, side: int = 36) -> dict[str, Tensor]:
    """What the gradients are of; `side`: of the prototypes, which are resized to it."""
    leaves = {name: drawn()[name].clone() for name in ("loc", "conf", "mask", "segm")}
    leaves["proto"] = arrays("losses")["proto"].clone()
    if side != 36:
        resized = F.interpolate(leaves["proto"].permute(0, 3, 1, 2), (side, side), mode="bilinear", align_corners=False)
        leaves["proto"] = resized.permute(0, 2, 3, 1)
    return {name: leaf.requires_grad_() for name, leaf in leaves.items()}


def outputs_of(leaves: dict[str, Tensor]) -> RawOutputs:
    """The batch as the network gives it."""
    prototypes = leaves["proto"].permute(0, 3, 1, 2)
    return RawOutputs(leaves["loc"], leaves["conf"], leaves["mask"], prototypes, arrays("losses")["priors"], leaves["segm"])


@cache
def judge() -> MaskIouNetwork:
    """The official judge of masks with its synthetic weights."""
    keys = json.loads((DATA / "keys.json").read_text())["models"]["yolact_plus_resnet50"]
    own = {key: filled(key, tuple(entry["shape"]), entry["dtype"]) for key, entry in keys.items() if key.startswith("maskiou_net.")}
    renamed = rename(Checkpoint(own, "keys.json"), OFFICIAL_NAMES)
    network = MaskIouNetwork(80)
    load_strictly(network, replace(renamed, tensors={key.removeprefix("mask_iou."): value for key, value in renamed.tensors.items()}))
    return network.eval()


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, over the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@cache
def scalars(name: str, changed: str = "") -> dict[str, float]:
    """The losses of a variant; `changed`: with the settings of another one."""
    is_plus = name.startswith("plus_")
    settings = replace(OFFICIAL, **VARIANTS[changed or name])
    classes = drawn()["classes"] if settings.existence_weight else None
    outputs = outputs_of(batch(side=69 if is_plus else 36))
    with torch.no_grad():
        losses = detection_losses(outputs, truths(), settings, judge=judge() if is_plus else None, existence=classes)
        if settings.existence_weight:
            losses["E"] = detection_losses(outputs, crowd_as_object(), settings, existence=classes)["E"]
    return {letter: float(loss) for letter, loss in losses.items()}


def expected(name: str) -> dict[str, float]:
    """The official scalars of a variant."""
    return json.loads((DATA / "loss_variants.json").read_text())[name]


def worst(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The largest relative difference; infinite if there are others."""
    return max(abs(ours[name] / theirs[name] - 1) for name in theirs) if ours.keys() == theirs.keys() else float("inf")


def test_every_official_variant_is_compared():
    assert set(json.loads((DATA / "loss_variants.json").read_text())) == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_of_the_losses_is_official(name):
    assert worst(scalars(name), expected(name)) <= LOSS


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - SAME_SCALARS))
def test_the_settings_of_each_variant_are_noticed(name):
    others = "plus_maskiou_proto69_no_discard" if name == "plus_maskiou_proto69" else "base"
    assert worst(scalars(name, others), expected(name)) > 100 * LOSS


@pytest.mark.parametrize(("name", "letter"), [("objectness", "C"), ("mask_crop_pred_box", "M")])
def test_where_ours_differs_on_purpose_it_shows(name, letter):
    with torch.no_grad():
        losses = detection_losses(outputs_of(batch()), truths(), LossSettings(**VARIANTS[name]))
    assert abs(float(losses[letter]) / expected(name)[letter] - 1) > 100 * LOSS


def gradients(settings: LossSettings) -> dict[str, float]:
    """The errors of the gradients of the sum of the losses."""
    leaves, found = batch(), arrays("losses")
    sum(detection_losses(outputs_of(leaves), truths(), settings).values()).backward()
    return {
        "loc": error(leaves["loc"].grad, found["grad_loc"]),
        "mask": error(leaves["mask"].grad[:, ::3], found["grad_mask"]),
        "conf": error(leaves["conf"].grad.norm(dim=2), found["grad_conf_rownorm"]),
        "proto": error(leaves["proto"].grad[:, ::3, ::3], found["grad_proto"]),
        "segm": error(leaves["segm"].grad[:, ::5], found["grad_segm"]),
    }


def test_the_gradients_are_official():
    assert max(gradients(OFFICIAL).values()) <= GRADIENT


@pytest.mark.parametrize(
    ("field", "value", "names"),
    [
        ("box_weight", 1.4, ["loc"]),
        ("mask_weight", 6.0, ["mask", "proto"]),
        ("negatives_per_positive", 2.9, ["conf"]),
        ("semantic_weight", 1.1, ["segm"]),
        ("positive_overlap", 0.55, ["loc", "mask", "conf", "proto"]),
        ("is_mask_binary", False, ["mask", "proto"]),
    ],
)
def test_wrong_settings_show_in_the_gradients(field, value, names):
    found = gradients(replace(OFFICIAL, **{field: value}))
    assert all(found[name] > 100 * GRADIENT for name in names)


def matching_error(settings: LossSettings) -> int:
    """How many of the targets and owners of positives are not official."""
    found = arrays("losses")
    wrong = 0
    for image, truth in enumerate(truths()):
        matches = match_priors(found["priors"], truth, settings)
        theirs = found["match_conf_t"][image]
        wrong += int((matches.targets != theirs).sum())
        wrong += int((matches.truth_indices != found["match_idx_t"][image])[theirs > 0].sum())
    return wrong


def test_matching_is_official():
    assert matching_error(OFFICIAL) == 0


@pytest.mark.parametrize("change", [{"positive_overlap": 0.52}, {"negative_overlap": 0.3}, {"crowd_share": 0.8}])
def test_other_thresholds_are_noticed_in_matching(change):
    assert matching_error(replace(OFFICIAL, **change)) > 0


def test_the_offsets_of_positives_are_official():
    found = arrays("losses")
    for image, truth in enumerate(truths()):
        matches = match_priors(found["priors"], truth, OFFICIAL)
        offsets = encode(truth.boxes[matches.truth_indices], found["priors"])
        assert torch.allclose(offsets[matches.is_positive], found["match_loc_t"][image][matches.is_positive], atol=1e-6, rtol=1e-5)


MEAN, DEVIATION = np.array([123.68, 116.78, 103.94]), np.array([58.40, 57.12, 57.38])


def augmentation_errors(seed: int, settings: SsdSettings) -> tuple[float, int, float, bool]:
    """Of a seeded run: the image's error, pixels of masks that differ, the boxes' error, whether as many numbers were drawn."""
    found = {key: value.numpy() for key, value in arrays("augmented").items()}
    rgb = np.ascontiguousarray(found["image_bgr"][..., ::-1]).astype(np.float32)
    masks = np.unpackbits(found["aug_masks_in"], axis=1)[:, : 90 * 121].reshape(-1, 90, 121)
    labels = found["aug_labels_in"].astype(np.int64)
    random = np.random.RandomState(seed)
    picture = augmented(Picture(rgb, masks, found["aug_boxes_in_f64"] * (121, 90, 121, 90), labels, labels < 0), settings, random)
    part = {name: found[f"aug{seed}_{name}"] for name in ("image", "masks", "boxes_f64", "labels", "num_crowds", "next_uniform_f64")}
    if len(picture.class_ids) != len(part["labels"]) or (picture.class_ids != part["labels"]).any() or picture.is_crowd.sum() != part["num_crowds"]:
        return float("inf"), len(masks), float("inf"), False
    image = np.abs(((picture.rgb - MEAN) / DEVIATION)[::2, ::2] - part["image"]).max()
    boxes = np.abs(picture.boxes / 64 - part["boxes_f64"]).max()
    wrong = int((picture.masks[:, ::2, ::2] != part["masks"]).sum())
    return float(image), wrong, float(boxes), random.uniform() == part["next_uniform_f64"]


AS_OFFICIAL = SsdSettings(size=64, least_side=4 / 550)


@pytest.mark.parametrize("seed", range(8))
def test_each_run_of_the_augmentation_is_official(seed):
    image, masks, boxes, drew_as_many = augmentation_errors(seed, AS_OFFICIAL)
    assert image <= IMAGE
    assert masks == 0
    assert boxes <= 1e-9
    assert drew_as_many


@pytest.mark.parametrize("change", [{"hue": 17.0}, {"contrast": (0.5, 1.4)}, {"room": 3.5}, {"least_share": 0.4}, {"brightness": 30.0}])
def test_other_ranges_of_the_augmentation_are_noticed(change):
    runs = map(partial(augmentation_errors, settings=replace(AS_OFFICIAL, **change)), range(8))
    assert any(image > IMAGE for image, *_ in runs)
