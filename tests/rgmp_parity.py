"""What the tests of RGMP share: the stored official outputs, networks under the synthetic weights, and small ones."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.models.rgmp import OFFICIAL_NAMES, VARIANTS, RgmpNetwork, RgmpTracker, build
from rotoscope.models.rgmp.encoder import ResNetMaskEncoder
from rotoscope.nn.conv_norm import FrozenBatchNorm2d
from rotoscope.testing import official_weights

DATA = Path(__file__).parent / "parity" / "data" / "rgmp"
SEEDS = {  # of inputs that are not stored (README of the fixtures): seed, factor on normal numbers or None for uniform ones, shape
    "gc_in": (21, 0.5, (1, 4096, 3, 5)),
    "refine_f": (22, 1.0, (1, 256, 10, 14)),
    "refine_pm": (23, 1.0, (1, 256, 5, 7)),
    "img": (31, None, (1, 3, 96, 160)),
    "mask": (32, None, (1, 96, 160)),
}


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """One file of the fixtures."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: _tensor(key, file[key]) for key in file.files if file[key].dtype.kind != "U"}


def generated(key: str) -> Tensor:
    """An input made from its seed."""
    seed, factor, shape = SEEDS[key]
    random = np.random.RandomState(seed)
    made = random.random_sample(shape) if factor is None else factor * random.standard_normal(shape)
    return torch.from_numpy(made.astype(np.float32))


def _tensor(key: str, value: np.ndarray) -> Tensor:
    if value.dtype == np.uint16:
        return torch.from_numpy(value.astype(np.float32) / 65535)
    if key in ("in_f", "ref_f"):
        return torch.from_numpy(value.astype(np.float32) / 255)
    return torch.from_numpy(np.asarray(value))


@cache
def tensors() -> dict[str, Tensor]:
    """The synthetic weights under the official names."""
    return official_weights(DATA / "keys.json", "rgmp")


def fresh_network(*, align_corners: bool = True) -> RgmpNetwork:
    """The official network as it is trained: neither folded nor prepared."""
    with torch.device("meta"):
        network = RgmpNetwork(ResNetMaskEncoder(), align_corners=align_corners)
    network.to_empty(device="cpu")
    load_strictly(network, rename(Checkpoint(tensors(), "synthetic"), OFFICIAL_NAMES))
    return network.eval()


@cache
def plain_network() -> RgmpNetwork:
    """The same, for reading only."""
    return fresh_network().requires_grad_(requires_grad=False)


@cache
def tracker() -> RgmpTracker:
    """The tracker that `build` makes, for reading only; `RgmpTracker(tracker().network, config)` gives it other settings."""
    return build(VARIANTS["rgmp"], Checkpoint(tensors(), "synthetic"), "cpu")


def tiny_network(*, seed: int = 0) -> RgmpNetwork:
    """A narrow, shallow network with random weights and statistics."""
    torch.manual_seed(seed)
    network = RgmpNetwork(ResNetMaskEncoder((1, 1, 1, 1), width=4), width=8)
    for part in network.modules():
        if isinstance(part, FrozenBatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.uniform_(0.5, 1.5)
            part.bias.uniform_(-0.2, 0.2)
    return network


def worst(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors of one shape."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return float((ours.detach().double() - theirs.double()).abs().max())


def excess(ours: Tensor, theirs: Tensor, *, atol: float = 1e-4, rtol: float = 1e-4) -> float:
    """The largest difference in units of the tolerance: below 1 is within it (README of the fixtures)."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return float(((ours.detach() - theirs).abs() / (atol + rtol * theirs.abs())).max())
