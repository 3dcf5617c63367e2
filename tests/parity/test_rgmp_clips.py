"""RGMP over whole clips against the official code; stored probabilities are at every second pixel."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from rgmp_parity import arrays, plain_network, tracker, worst
from torch import Tensor

from rotoscope.models.rgmp import VARIANTS, RgmpConfig, RgmpNetwork, RgmpPropagator, RgmpTracker
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Frame, Masks

PROBABILITY, PIXELS = 1e-4, 1e-3
OFFICIAL = VARIANTS["rgmp"]


class Watched(RgmpPropagator):
    """A pass that notes what the next frame sees of each frame, and what the network said before it was joined."""

    def __init__(self, network: RgmpNetwork, config: RgmpConfig) -> None:
        super().__init__(network, config)
        self.seen: list[Tensor] = []
        self.said: list[Tensor] = []

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        super().remember(frame, masks, given=given)
        self.seen.append(self.state()["previous"][:, ::2, ::2].clone())

    def _guesses(self, frame: Frame, passes: list[int], previous: Tensor) -> Tensor:
        guesses = super()._guesses(frame, passes, previous)
        self.said.append(guesses[:, ::2, ::2].clone())
        return guesses


@cache
def frames(clip: str) -> list[Frame]:
    return [Frame(index, image.permute(2, 0, 1).contiguous()) for index, image in enumerate(arrays(f"clip_{clip}")["frames"])]


def run(clip: str, config: RgmpConfig = OFFICIAL, *, num_frames: int = 6, align_corners: bool = True) -> tuple[Watched, Tensor]:
    """The pass after so many frames, and its label maps."""
    network, first = tracker().network, Masks.from_labels(arrays(f"clip_{clip}")["mask0"])
    propagator = Watched(network, config)
    network.decoder.align_corners = align_corners
    try:
        results = [masks.labels() for _, masks in propagate(frames(clip)[:num_frames], propagator, {0: first})]
    finally:
        network.decoder.align_corners = True
    return propagator, torch.stack(results)


def differing(labels: Tensor, clip: str, key: str = "labels") -> float:
    """The share of pixels with another label."""
    return float((labels != arrays(f"clip_{clip}")[key][: len(labels)]).double().mean())


@pytest.mark.parametrize(("clip", "num_frames"), [("so", 6), ("mo2", 3), ("mo3_odd", 6)])  # the rest of mo2 is within the tolerance too
def test_clip(clip: str, num_frames: int) -> None:
    propagator, labels = run(clip, num_frames=num_frames)
    expected = arrays(f"clip_{clip}")
    assert worst(torch.stack(propagator.seen, dim=1), expected["E"][:, :num_frames]) < PROBABILITY
    assert worst(propagator.said[0], expected["raw_f1"]) < PROBABILITY
    assert differing(labels, clip) < PIXELS


def test_clip_as_a_newer_torch_enlarges() -> None:
    propagator, labels = run("so", align_corners=False)
    assert differing(labels, "so", "labels_ac0") < PIXELS
    assert worst(propagator.seen[-1], arrays("clip_so")["E_last_ac0"]) < PROBABILITY
    assert differing(labels, "so") > 0.05


def test_objects_as_a_newer_torch_enlarges() -> None:
    _, labels = run("mo3_odd", num_frames=2, align_corners=False)
    assert differing(labels, "mo3_odd", "labels_ac0") < PIXELS
    assert differing(labels, "mo3_odd") > 0.01


def test_one_scale() -> None:
    propagator, labels = run("so", replace(OFFICIAL, scales=(1.0,)))
    assert differing(labels, "so", "labels_scale1") < PIXELS
    assert worst(propagator.seen[-1], arrays("clip_so")["E_last_scale1"]) < PROBABILITY
    assert differing(labels, "so") > 0.05


@pytest.mark.parametrize("clip", ["mo2", "mo3_odd"])
def test_objects_at_one_scale(clip: str) -> None:
    _, labels = run(clip, replace(OFFICIAL, scales=(1.0,)), num_frames=2)
    assert differing(labels, clip, "labels_scale1") < PIXELS


def test_padding_only_where_it_is_needed_would_be_noticed() -> None:
    _, labels = run("so", replace(OFFICIAL, always_pad=False), num_frames=2)
    assert differing(labels, "so") > PIXELS


def test_the_fast_network_gives_what_the_plain_one_gives() -> None:
    config = replace(OFFICIAL, scales=(0.5,))
    first = Masks.from_labels(arrays("clip_so")["mask0"])
    fast, plain = RgmpTracker(tracker().network, config).start(), RgmpTracker(plain_network(), config).start()
    results = [[masks for _, masks in propagate(frames("so")[:3], one, {0: first})] for one in (fast, plain)]
    assert worst(results[0][-1].probs, results[1][-1].probs) < PROBABILITY
