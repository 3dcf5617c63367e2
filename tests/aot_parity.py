"""What the parity tests of AOT and DeAOT share: the stored official outputs, and networks under the synthetic weights."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rotoscope.models.aot.config import VARIANTS, AotConfig
from rotoscope.models.aot.naming import official_names
from rotoscope.models.aot.network import AotNetwork
from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.testing import filled

DATA = Path(__file__).parent / "parity" / "data" / "aot"
BLOCK_TOLERANCE, LOGIT_TOLERANCE, PROBABILITY_TOLERANCE = 1e-4, 5e-4, 1e-4  # README of the fixtures
MASK_TOLERANCE = 1e-3  # share of pixels that may differ

OFFICIAL = {name: name.replace("-aot-", "_aot").replace("-deaot-", "_deaot").replace("aot-", "aot") for name in VARIANTS}
"""Our names to those of the fixtures."""


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """One file of the fixtures. Inputs that are normal numbers in steps of 1/64 are stored as their seed."""
    with np.load(DATA / f"{name}.npz") as file:
        stored = {key: file[key] for key in file.files}
    random = np.random.RandomState(int(stored.pop("seed", 0)))
    for entry in stored.pop("generated", ()):
        key, shape = str(entry).split(":")
        stored[key] = (random.standard_normal([int(length) for length in shape.split(",")]) * 64).round() / 64
    return {key: _tensor(value) for key, value in stored.items() if value.dtype.kind != "U"}


def _tensor(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(value, dtype=np.float32 if value.dtype.kind == "f" else value.dtype))


@cache
def official_tensors(variant: str) -> dict[str, Tensor]:
    """The synthetic weights of a variant, under official names; the index tables of Swin are constants that no filler touches."""
    keys = json.loads((DATA / "keys.json").read_text(encoding="utf-8"))["models"][OFFICIAL[variant]]
    return {key: filled(key, tuple(entry["shape"]), entry["dtype"]) for key, entry in keys.items()}


def checkpoint(variant: str) -> Checkpoint:
    """The same as a checkpoint that a user might bring."""
    tensors = dict(official_tensors(variant))
    indices = [key for key in tensors if key.endswith("relative_position_index")]
    if indices:
        from rotoscope.nn.swin import window_position_index

        tensors.update({key: window_position_index(7) for key in indices})
    return Checkpoint(tensors, f"synthetic {variant}")


@cache
def network(variant: str) -> AotNetwork:
    """A variant under the synthetic weights, for reading only."""
    return fresh_network(VARIANTS[variant])


def fresh_network(config: AotConfig) -> AotNetwork:
    """A network of one's own, which may be changed."""
    built = AotNetwork(config)
    load_strictly(built, rename(checkpoint(config.name), official_names(config)))
    return built.eval()


def misaligned(variant: str) -> AotNetwork:
    """The same weights with one fault: maps are enlarged with the other alignment."""
    wrong = fresh_network(VARIANTS[variant])
    wrong.decoder.align_corners = not wrong.decoder.align_corners
    return wrong


def with_gap(variant: str, gap: int | None) -> AotConfig:
    """The variant with another memory gap."""
    return replace(VARIANTS[variant], long_term_gap=gap)


def worst(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors of one shape."""
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return float((ours.double() - theirs.double()).abs().max())
