"""What the parity tests of MiVOS share: the stored official outputs, and the three networks under the synthetic weights."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rotoscope.datasets.davis_scribbles import Line
from rotoscope.models import fusion, mivos, s2m
from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.models.mivos.network import PropagationNetwork
from rotoscope.testing import official_weights
from rotoscope.types import Frame

DATA = Path(__file__).parent / "parity" / "data" / "mivos"
EXACT, FEATURES, PROBABILITIES, LOGITS = 1e-5, 1e-4, 5e-5, 1e-4  # README of the fixtures
RUN_TOLERANCE, HARD_TOLERANCE, MASK_TOLERANCE = 1e-4, 5e-3, 2e-3  # the same; the last is a share of pixels


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """One file of the fixtures, with the inputs that are stored as a seed."""
    with np.load(DATA / f"{name}.npz") as file:
        stored = {key: file[key] for key in file.files}
    if name == "memory":
        random = np.random.RandomState(101)
        for key, shape in {"mk": (2, 128, 3, 7, 9), "mv": (2, 32, 3, 7, 9), "qk": (1, 128, 7, 9)}.items():
            stored[key] = random.standard_normal(shape).astype(np.float32)
    if name == "s2m":
        stored["input6_odd"] = np.random.RandomState(105).standard_normal((1, 6, 101, 139)).astype(np.float32)
    if name == "davis_processor":
        stored["scribble_pos_neg"] = np.unpackbits(stored["scribble_pos_neg"]).reshape(6, 2, 2, 112, 144)
    return {key: torch.from_numpy(value) for key, value in stored.items()}


def worst(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@cache
def checkpoint(model: str) -> Checkpoint:
    """Synthetic weights under official names: "propagation", "s2m" or "fusion"."""
    return Checkpoint(official_weights(DATA / "keys.json", model), f"synthetic {model}")


@cache
def tracker() -> mivos.MivosTracker:
    """As users get it."""
    return mivos.build(mivos.VARIANTS["mivos"], checkpoint("propagation"), "cpu")


@cache
def maker() -> s2m.S2mMaker:
    """As users get it."""
    return s2m.build(s2m.VARIANTS["s2m"], checkpoint("s2m"), "cpu")


@cache
def fuser() -> fusion.DifferenceAwareFuser:
    """As users get it."""
    return fusion.build(fusion.VARIANTS["fusion"], checkpoint("fusion"), "cpu")


@cache
def unfolded() -> PropagationNetwork:
    """The network with its normalisations."""
    network = PropagationNetwork()
    load_strictly(network, rename(checkpoint("propagation"), mivos.OFFICIAL_NAMES))
    return network.eval().requires_grad_(requires_grad=False)


@cache
def clip() -> list[Frame]:
    """The eight frames of the runs."""
    return [Frame(index, image.permute(2, 0, 1).contiguous()) for index, image in enumerate(arrays("core_run")["frames"])]


@cache
def drawn() -> list[list[Line]]:
    """The lines of the six interactions of the DAVIS processor's run."""
    content = json.loads((DATA / "davis_scribbles.json").read_text(encoding="utf-8"))["interactions"]
    return [[Line(entry["frame"], line["object_id"], tuple(map(tuple, line["path"]))) for line in entry["lines"]] for entry in content]


def share_that_differs(probs: Tensor, official: Tensor) -> float:
    """The share of pixels with another winner than the official one; where two objects are equally probable, to 1e-4, none counts."""
    best = probs.topk(2, dim=0).values
    is_tie = best[0] - best[1] < RUN_TOLERANCE
    return float(((probs.argmax(dim=0) != official) & ~is_tie).float().mean())
