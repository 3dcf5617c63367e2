"""The image encoders against the official AOT code, through the official key names."""

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rotoscope.models.checkpoints import Checkpoint, RenameRules, load_strictly, rename
from rotoscope.nn import swin
from rotoscope.nn.conv_norm import FrozenBatchNorm2d, fold_frozen_norms
from rotoscope.nn.mobilenet import MOBILENET_V2_RULES, InvertedBottleneck, MobileNetV2
from rotoscope.nn.resnest import RESNEST_RULES, ResNeSt, SplitBottleneck
from rotoscope.nn.resnet_bottleneck import RESNET101_BLOCKS, RESNET_RULES, Bottleneck, ResNet
from rotoscope.nn.swin import SWIN_RULES, PatchMerging, SwinBlock, SwinTransformer, WindowAttention, window_position_index
from rotoscope.testing import filled

DATA = Path(__file__).parent / "data" / "aot"
TOLERANCE = 1e-4  # README of the stored outputs: max abs for blocks and encoders
KEYS = json.loads((DATA / "keys.json").read_text(encoding="utf-8"))["models"]
EXPECTED = {name: torch.from_numpy(array) for name, array in np.load(DATA / "encoders.npz").items()}
ARRAYS = [name for name in EXPECTED if name != "image"]

MOBILENET = (MobileNetV2, MOBILENET_V2_RULES)
RESNET50 = (ResNet, RESNET_RULES)
SWIN = (SwinTransformer, SWIN_RULES)
ENCODERS: dict[str, tuple[Callable[[], nn.Module], RenameRules]] = {
    **dict.fromkeys(("aott", "aots", "aotb", "aotl", "deaott", "deaots", "deaotb", "deaotl"), MOBILENET),
    **dict.fromkeys(("r50_aotl", "r50_deaotl"), RESNET50),
    "r101_aotl": (lambda: ResNet(RESNET101_BLOCKS), RESNET_RULES),
    "rs101_aotl": (ResNeSt, RESNEST_RULES),
    **dict.fromkeys(("swinb_aotl", "swinb_deaotl"), SWIN),
}

Perturb = Callable[[nn.Module, pytest.MonkeyPatch], None]


@pytest.mark.parametrize("variant", KEYS)
def test_every_official_key_has_one_place_of_the_same_shape(variant: str) -> None:
    build, rules = ENCODERS[variant]
    with torch.device("meta"):
        ours = _wrapped(build()).state_dict()
        official = {key: torch.empty(entry["shape"]) for key, entry in KEYS[variant].items() if key.startswith("encoder.")}
    renamed = rename(Checkpoint(official, variant), rules).tensors
    assert {key: tensor.shape for key, tensor in renamed.items()} == {key: tensor.shape for key, tensor in ours.items()}
    assert len(renamed) == len(official)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_encoder_gives_the_official_maps(name: str) -> None:
    assert _difference(name, _official_features(name.rpartition("_")[0])) < TOLERANCE


@pytest.mark.parametrize("variant", ["aott", "r50_aotl", "rs101_aotl"])
def test_a_folded_encoder_gives_the_official_maps(variant: str) -> None:
    features = _folded_features(variant)
    assert max(_difference(name, features) for name in ARRAYS if name.startswith(variant)) < TOLERANCE


def _other_eps(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    for part in encoder.modules():
        if isinstance(part, (FrozenBatchNorm2d, nn.LayerNorm)):
            patch.setattr(part, "eps", 1e-3)


def _no_dilation(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    for part in encoder.modules():
        if isinstance(part, InvertedBottleneck):
            patch.setattr(part.depthwise.conv, "dilation", (1, 1))
            patch.setattr(part.depthwise.conv, "padding", (1, 1))


def _dilation_one_block_early(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    layers = encoder.get_submodule("layers")
    patch.setattr(layers[14].depthwise.conv, "dilation", (2, 2))
    patch.setattr(layers[14].depthwise.conv, "padding", (2, 2))


def _stride_in_the_first_convolution(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    for part in encoder.modules():
        if isinstance(part, Bottleneck):
            patch.setattr(part.reduce.conv, "stride", part.spatial.conv.stride)
            patch.setattr(part.spatial.conv, "stride", (1, 1))


def _pool_without_its_border(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    for part in encoder.modules():
        if isinstance(part, SplitBottleneck) and isinstance(part.pool, nn.AvgPool2d):
            patch.setattr(part.pool, "count_include_pad", False)


def _no_shift(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    for part in encoder.modules():
        if isinstance(part, SwinBlock):
            patch.setattr(part, "shift", 0)


def _no_separation(_: nn.Module, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(swin, "SEPARATED", 0.0)


def _turned_offsets(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    for part in encoder.modules():
        if isinstance(part, WindowAttention):
            patch.setitem(part._buffers, "position_index", part.position_index.T)


def _corners_row_by_row(encoder: nn.Module, patch: pytest.MonkeyPatch) -> None:
    def turned(part: PatchMerging, x: Tensor) -> Tensor:
        return official(part, x.transpose(1, 2)).transpose(1, 2)

    official = PatchMerging.forward
    patch.setattr(PatchMerging, "forward", turned)


EVERY = "x0 x1 x2 x3 proj"
TWINS: list[tuple[str, Perturb, str]] = [
    *((variant, _other_eps, EVERY) for variant in ("aott", "r50_aotl", "r101_aotl", "rs101_aotl", "swinb_aotl")),
    ("aott", _no_dilation, "x3 proj"),
    ("aott", _dilation_one_block_early, "x3 proj"),
    ("r50_aotl", _stride_in_the_first_convolution, "x1 x2 proj"),
    ("rs101_aotl", _pool_without_its_border, "x2 proj"),
    *(("swinb_aotl", change, EVERY) for change in (_no_shift, _no_separation, _turned_offsets)),
    ("swinb_aotl", _corners_row_by_row, "x1 x2 proj"),
]
"""A variant, what is changed in it, and the maps that this moves."""


@pytest.mark.parametrize(("variant", "change", "moved"), TWINS)
def test_a_changed_encoder_is_told_from_the_official_one(variant: str, change: Perturb, moved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, projector = _loaded(variant)
    change(encoder, monkeypatch)
    features = _features(encoder, projector)
    stored = {part: f"{variant}_{part}" for part in EVERY.split() if f"{variant}_{part}" in EXPECTED}
    told = {part for part, name in stored.items() if _difference(name, features) > TOLERANCE}
    assert told == stored.keys() & set(moved.split())


@cache
def _loaded(variant: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The encoder with the synthetic official weights, and the weight and bias of the projection behind it."""
    build, rules = ENCODERS[variant]
    weights = {key: _filled(key, entry) for key, entry in KEYS[variant].items() if key.startswith("encoder")}
    projector = weights.pop("encoder_projector.weight"), weights.pop("encoder_projector.bias")
    with torch.device("meta"):
        wrapped = _wrapped(build())
    wrapped = wrapped.to_empty(device="cpu").eval()
    load_strictly(wrapped, rename(Checkpoint(weights, variant), rules))
    return wrapped.get_submodule("encoder"), projector


def _wrapped(encoder: nn.Module) -> nn.Module:
    return nn.ModuleDict({"encoder": encoder})


@torch.inference_mode()
def _features(encoder: nn.Module, projector: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    maps = encoder(EXPECTED["image"][None])
    projected = F.conv2d(maps[3], *projector)
    return {**{f"x{index}": tensor[0] for index, tensor in enumerate(maps)}, "proj": projected[0]}


@cache
def _official_features(variant: str) -> dict[str, Tensor]:
    return _features(*_loaded(variant))


def _folded_features(variant: str) -> dict[str, Tensor]:
    official, projector = _loaded(variant)
    encoder = copy.deepcopy(official)
    fold_frozen_norms(encoder)
    return _features(encoder, projector)


def _difference(name: str, features: dict[str, Tensor]) -> float:
    """The largest distance from a stored array, which may hold every 4th or 5th channel only."""
    expected = EXPECTED[name]
    found = features[name.rpartition("_")[2]]
    step = round(found.shape[0] / expected.shape[0])
    return float((found[::step] - expected).abs().max())


def _filled(key: str, entry: dict[str, Any]) -> Tensor:
    """What the stored outputs were made with: the filler's numbers, but the index tables as the official code sets them."""
    if key.endswith("relative_position_index"):
        return window_position_index(7)
    return filled(key, tuple(entry["shape"]), entry["dtype"])
