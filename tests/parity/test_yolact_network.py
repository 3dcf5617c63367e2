"""YOLACT's networks against the official code's outputs under synthetic weights; the tolerances are those of the fixtures' README.

Each comparison has a sensitivity twin: with one deliberate fault it must exceed the same tolerance.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.models.yolact import OFFICIAL_FILES, OFFICIAL_NAMES, VARIANTS, RawOutputs, YolactNetwork
from rotoscope.models.yolact.naming import IMAGENET_NAMES
from rotoscope.models.yolact.priors import priors_of
from rotoscope.nn.conv_norm import FrozenBatchNorm2d
from rotoscope.nn.deformable import DeformableConv
from rotoscope.nn.winograd import WinogradConv
from rotoscope.testing import official_weights

DATA = Path(__file__).parent / "data" / "yolact"
OFFICIAL = {  # our variants by the official names in keys.json
    "yolact_base": "yolact-base",
    "yolact_resnet50": "yolact-resnet50",
    "yolact_darknet53": "yolact-darknet53",
    "yolact_resnet50_pascal": "yolact-pascal",
    "yolact_plus_resnet50": "yolact-plus-resnet50",
    "yolact_plus_base": "yolact-plus-base",
}
MILLIONS = {"yolact-resnet50": 31.16, "yolact-base": 50.16, "yolact-darknet53": 47.78, "yolact-plus-resnet50": 33.77, "yolact-plus-base": 52.57}
DEEP = 5e-4  # absolute, for ResNet-101 and DarkNet-53


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """One file of the fixtures."""
    with np.load(DATA / f"network_{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def noise(seed: int, height: int, width: int) -> Tensor:
    """An input that is not stored."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((1, 3, height, width)).astype(np.float32))


def loaded(official: str, *, prepared: bool = False) -> YolactNetwork:
    """A network under the synthetic weights; plain networks are in training mode, with frozen normalisations, for the semantic logits."""
    with torch.device("meta"):
        network = YolactNetwork(VARIANTS[OFFICIAL[official]], frozen_norms=True)
    network.to_empty(device="cpu")
    load_strictly(network, rename(Checkpoint(official_weights(DATA / "keys.json", official), "synthetic"), OFFICIAL_NAMES))
    network.requires_grad_(requires_grad=False)
    return network.prepare() if prepared else network.train()


@cache
def resnet50() -> YolactNetwork:
    """The plain network with ResNet-50, for reading only."""
    return loaded("yolact_resnet50")


@cache
def fast_resnet50() -> YolactNetwork:
    """The same as it is used for inference."""
    return loaded("yolact_resnet50", prepared=True)


def excess(ours: Tensor, theirs: Tensor, *, atol: float = 1e-4, rtol: float = 1e-4) -> float:
    """The largest difference in units of the tolerance: below 1 is within it."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return float(((ours - theirs).abs() / (atol + rtol * theirs.abs())).max())


@torch.inference_mode()
def predicted(network: YolactNetwork, x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], RawOutputs]:
    """The encoder's maps, the pyramid's, and what the whole network says."""
    maps = network.backbone(x)
    return maps, network.pyramid(maps), network(x)


def rows_excess(found: RawOutputs, expected: dict[str, Tensor], prefix: str, rows: Tensor | slice, *, atol: float = 1e-4) -> dict[str, float]:
    """Of the outputs for some priors."""
    outputs = {"loc": found.offsets, "conf": found.class_logits, "mask": found.coefficients}
    return {key: excess(value[0][rows], expected[prefix + key].view(-1, value.shape[2]), atol=atol) for key, value in outputs.items()}


def forward_excess(network: YolactNetwork) -> dict[str, float]:
    """Of everything that is stored of ResNet-50 on a small square."""
    expected = arrays("resnet50_forward")
    maps, levels, found = predicted(network, noise(11, 138, 138))
    result = rows_excess(found, expected, "", slice(None, None, 3))
    result |= {f"C{number}": excess(value[:, ::16], expected[f"C{number}"]) for number, value in enumerate(maps, start=3)}
    result |= {f"P{number}": excess(value[:, ::8], expected[f"P{number}"]) for number, value in enumerate(levels, start=3)}
    result["proto"] = excess(found.prototypes.permute(0, 2, 3, 1)[:, ::2, ::2], expected["proto"])
    if found.semantic_logits is not None:
        result["segm"] = excess(found.semantic_logits[..., ::2, ::2], expected["segm"])
    assert torch.equal(found.priors[::3], expected["priors"])
    return result


@pytest.mark.parametrize("official", OFFICIAL)
def test_every_official_key_becomes_exactly_one_of_ours_with_the_same_shape(official: str) -> None:
    keys = json.loads((DATA / "keys.json").read_text())["models"][official]
    tensors = {key: torch.empty(entry["shape"], device="meta") for key, entry in keys.items()}
    renamed = rename(Checkpoint(tensors, "keys"), OFFICIAL_NAMES).tensors
    with torch.device("meta"):
        network = YolactNetwork(VARIANTS[OFFICIAL[official]])
    assert len(renamed) == len(keys)
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in network.state_dict().items()}
    if OFFICIAL[official] in MILLIONS:
        assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(MILLIONS[OFFICIAL[official]], abs=0.005)


def test_what_old_files_hold_beside_is_left_out_and_the_rest_is_refused_where_unknown() -> None:
    kept = {"fpn.downsample_layers.1.bias": torch.zeros(1)}
    left = {
        "backbone.layer1.0.conv1.weight": torch.zeros(1),
        "backbone.layer4.2.bn3.bias": torch.zeros(1),
        "fpn.downsample_layers.2.bias": torch.zeros(1),
    }
    renamed = rename(Checkpoint(kept | left, "old"), OFFICIAL_NAMES).tensors
    assert set(renamed) == {"pyramid.coarsen.1.bias"}


def test_the_starts_of_trainings_have_names_of_ours() -> None:
    names = ("layer3.5.conv2.weight", "layers.2.5.conv2.weight", "layer1.0.downsample.1.running_var", "fc.weight", "layers.4.3.conv2.1.bias")
    renamed = rename(Checkpoint({name: torch.zeros(1) for name in names[1:]}, "start"), IMAGENET_NAMES).tensors
    assert set(renamed) == {"stages.2.5.spatial.conv.weight", "stages.0.0.shortcut.norm.running_var", "stages.4.3.spatial.norm.bias"}
    assert set(rename(Checkpoint({names[0]: torch.zeros(1)}, "start"), IMAGENET_NAMES).tensors) == {"stages.2.5.spatial.conv.weight"}


def test_released_files_are_named_for_known_variants() -> None:
    assert set(OFFICIAL_FILES) <= set(VARIANTS)
    assert all(name.startswith(variant.replace("-", "_")) for variant, name in OFFICIAL_FILES.items())


@pytest.mark.parametrize(
    ("official", "ours"),
    [("base", "base"), ("im400", "im400"), ("im700", "im700"), ("plus_base", "plus-base"), ("resnet50_pascal", "pascal")],
)
def test_priors(official: str, ours: str) -> None:
    expected = arrays("priors")
    sizes = [(side, side) for side in expected[f"{official}_levels"].tolist()]
    config = VARIANTS[f"yolact-{ours}"]
    found = priors_of(config, sizes)
    assert len(found) == int(expected[f"{official}_count"])
    assert torch.equal(found[expected[f"{official}_idx"]], expected[f"{official}_rows"])
    torch.testing.assert_close(found.double().sum(dim=0), expected[f"{official}_colsum_f64"], atol=0, rtol=1e-12)
    for fault in (replace(config, square_priors=not config.square_priors), replace(config, ratios=(1.0, 2.0, 0.5))):
        assert not torch.allclose(priors_of(fault, sizes)[expected[f"{official}_idx"]], expected[f"{official}_rows"], atol=1e-3)


@pytest.mark.parametrize("network", [resnet50, fast_resnet50], ids=["plain", "fast"])
def test_resnet50(network) -> None:
    found = forward_excess(network())
    assert len(found) == (13 if network is resnet50 else 12)
    assert max(found.values()) < 1, found


def test_small_squares_go_through_the_tiles_too() -> None:
    tiled = [part for part in fast_resnet50().modules() if isinstance(part, WinogradConv) and part.tiled is not None]
    assert len(tiled) > 15
    assert all(part.least_cells <= 18 * 18 for part in tiled)


@pytest.mark.parametrize("network", [resnet50, fast_resnet50], ids=["plain", "fast"])
def test_resnet50_on_a_picture_that_is_not_square(network) -> None:
    expected = arrays("resnet50_forward")
    _, _, found = predicted(network(), noise(12, 128, 170))
    assert found.priors.shape[0] == int(expected["rect_count"])
    assert torch.equal(found.priors[expected["rect_idx"]], expected["rect_priors"])
    assert max(rows_excess(found, expected, "rect_", expected["rect_idx"]).values()) < 1
    assert excess(found.prototypes.permute(0, 2, 3, 1)[:, ::3, ::3], expected["rect_proto"]) < 1


def test_resnet50_at_its_own_size() -> None:
    expected = arrays("resnet50_550")
    enlarged = expected["x_small"].float().repeat_interleave(10, dim=2).repeat_interleave(10, dim=3)
    with torch.inference_mode():
        found = fast_resnet50()((enlarged - 127.5) / 64)
    assert torch.equal(found.priors[expected["idx"]], expected["priors"])
    assert max(rows_excess(found, expected, "", expected["idx"]).values()) < 1
    assert excess(found.prototypes[0].permute(1, 2, 0)[::6, ::6], expected["proto"]) < 1
    for key, value in {"loc": found.offsets, "conf": found.class_logits, "mask": found.coefficients, "proto": found.prototypes}.items():
        sums = torch.stack((value.double().sum(), value.double().abs().sum(), value.double().square().sum()))
        torch.testing.assert_close(sums, expected[f"{key}_stat_f64"], atol=0, rtol=1e-4)


def batch_statistics(patch: pytest.MonkeyPatch) -> None:
    whole = F.batch_norm
    patch.setattr(F, "batch_norm", lambda x, mean, var, weight, bias, *, training, eps: whole(x, None, None, weight, bias, True, 0.1, eps))


def other_eps(patch: pytest.MonkeyPatch) -> None:
    for part in resnet50().modules():
        if isinstance(part, FrozenBatchNorm2d):
            patch.setattr(part, "eps", 1e-3)


def unrectified_levels(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("rotoscope.models.yolact.pyramid.Rectified.forward", WinogradConv.forward)


def pooled_levels(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(resnet50().pyramid._modules, "coarsen", nn.ModuleList(nn.MaxPool2d(1, 2) for _ in range(2)))


def aligned_corners(patch: pytest.MonkeyPatch) -> None:
    whole = F.interpolate
    patch.setattr(F, "interpolate", lambda x, **settings: whole(x, **{**settings, "align_corners": True}))


def levels_reversed(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(resnet50().pyramid._modules, "smooth", nn.ModuleList(reversed(resnet50().pyramid.smooth)))


FAULTS = {
    batch_statistics: ("C3", "C5", "P3", "conf", "proto", "segm"),
    other_eps: ("C3", "C5", "P3", "conf", "mask"),
    unrectified_levels: ("P3", "P4", "P5", "P6", "conf", "proto", "segm"),
    pooled_levels: ("P6", "P7", "loc", "conf", "mask"),
    aligned_corners: ("P3", "P4", "proto", "segm"),
    levels_reversed: ("P3", "P5", "conf"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_would_be_noticed(fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    found = forward_excess(resnet50())
    assert min(found[key] for key in FAULTS[fault]) > 3, found


def backbone_excess(network: YolactNetwork, prefix: str, first_stage: int) -> dict[str, float]:
    expected = arrays("backbones_forward")
    maps, levels, found = predicted(network, noise(14, 138, 138))
    result = rows_excess(found, expected, prefix, expected["row_idx"], atol=DEEP)
    for number, value in enumerate(maps, start=first_stage):
        step = max(1, value.shape[2] // 9)
        result[f"stage{number}"] = excess(value[0, ::16, ::step, ::step], expected[f"{prefix}stage{number}"], atol=DEEP)
    for number, value in enumerate(levels, start=3):
        result[f"P{number}"] = excess(value[0, ::16], expected[f"{prefix}P{number}"], atol=DEEP)
    result["proto"] = excess(found.prototypes[0].permute(1, 2, 0)[::3, ::3], expected[f"{prefix}proto"], atol=DEEP)
    if found.semantic_logits is not None:
        result["segm"] = excess(found.semantic_logits[0, :, ::3, ::3], expected[f"{prefix}segm"], atol=DEEP)
    return result


@pytest.mark.parametrize(("official", "prefix", "first_stage"), [("yolact_base", "r101_", 1), ("yolact_darknet53", "dark53_", 2)])
def test_deeper_encoders(official: str, prefix: str, first_stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = loaded(official)
    assert max(backbone_excess(network, prefix, first_stage).values()) < 1
    with monkeypatch.context() as patch:
        if official == "yolact_darknet53":
            patch.setattr("rotoscope.nn.darknet._SLOPE", 0.2)
        else:
            patch.setattr("rotoscope.models.yolact.backbones.F.max_pool2d", lambda x, *_: F.avg_pool2d(x, 3, 2, 1))
        assert min(backbone_excess(network, prefix, first_stage).values()) > 3
    assert max(backbone_excess(network.prepare(), prefix, first_stage).values()) < 1


def single_layer(stride: int) -> DeformableConv:
    weights = {name: arrays("plus")[f"dcn_s{stride}_{key}"] for name, key in (("weight", "weight"), ("bias", "bias"))}
    weights |= {f"taps.{name}": arrays("plus")[f"dcn_s{stride}_conv_offset_mask_{name}"] for name in ("weight", "bias")}
    layer = DeformableConv(6, 8, 3, stride=stride)
    layer.load_state_dict(weights)
    return layer.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("stride", [1, 2])
def test_one_deformable_layer(stride: int) -> None:
    x, expected = arrays("plus")["dcn_x"], arrays("plus")[f"dcn_s{stride}_y"]
    layer = single_layer(stride)
    assert excess(layer(x), expected) < 1
    order = torch.tensor([tap * 2 + (1 - axis) for tap in range(9) for axis in range(2)] + list(range(18, 27)))
    for name in ("weight", "bias"):
        setattr(layer.taps, name, nn.Parameter(getattr(layer.taps, name)[order], requires_grad=False))
    assert excess(layer(x), expected) > 100  # (dx, dy) in place of (dy, dx)


def plus_excess(network: YolactNetwork, prefix: str, side: int) -> dict[str, float]:
    expected = arrays("plus")
    maps, levels, found = predicted(network, noise(22, side, side))
    assert found.priors.shape[0] == int(expected[f"{prefix}count"])
    assert torch.equal(found.priors[expected[f"{prefix}idx"]], expected[f"{prefix}priors"])
    atol = 1e-4 if prefix == "p50_" else DEEP
    result = rows_excess(found, expected, prefix, expected[f"{prefix}idx"], atol=atol)
    result["proto"] = excess(found.prototypes[0].permute(1, 2, 0)[::4, ::4], expected[f"{prefix}proto"], atol=atol)
    result["P3"] = excess(levels[0][0, ::16, ::4, ::4], expected[f"{prefix}P3"], atol=atol)
    result["C5"] = excess(maps[2][0, ::32], expected[f"{prefix}C5"], atol=atol)
    return result


@pytest.mark.parametrize(("official", "prefix", "side"), [("yolact_plus_resnet50", "p50_", 256), ("yolact_plus_base", "p101_", 138)])
def test_deformable_networks(official: str, prefix: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = loaded(official)
    deformable = [name for name, part in network.named_modules() if isinstance(part, DeformableConv)]
    assert len(deformable) == (13 if prefix == "p50_" else 11)
    assert max(plus_excess(network, prefix, side).values()) < 1
    with monkeypatch.context() as patch:
        patch.setattr(DeformableConv, "forward", nn.Conv2d.forward)  # neither offsets nor modulation
        assert min(plus_excess(network, prefix, side).values()) > 3
    assert max(plus_excess(network.prepare(), prefix, side).values()) < 1
    if prefix == "p50_":
        check_mask_iou(network, monkeypatch)


def check_mask_iou(network: YolactNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = arrays("plus")
    masks = expected["maskiou_in"]
    enlarged = F.interpolate(masks, (138, 138), mode="bilinear", align_corners=False)
    assert network.mask_iou is not None
    with torch.inference_mode():
        assert excess(network.mask_iou(masks), expected["maskiou_out"], atol=1e-6) < 1
        assert excess(network.mask_iou(enlarged), expected["maskiou_138_out"], atol=1e-6) < 1
        for part in network.mask_iou.narrow:
            monkeypatch.setattr(part, "padding", (1, 1))
        assert excess(network.mask_iou(enlarged), expected["maskiou_138_out"], atol=1e-6) > 10
