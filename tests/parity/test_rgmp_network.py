"""RGMP's network, resizes and padding against the official code's outputs; the tolerances are those of the fixtures' README.

Each comparison has a sensitivity twin: with one deliberate fault it must exceed the same tolerance.
"""

import json
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from rgmp_parity import DATA, arrays, excess, fresh_network, generated, plain_network, tensors, tracker, worst
from torch import Tensor

from rotoscope.models.checkpoints import Checkpoint, rename
from rotoscope.models.rgmp import OFFICIAL_NAMES, RgmpNetwork
from rotoscope.models.rgmp.network import object_probability
from rotoscope.ops.sizing import border_to_multiple, resize_linear, scaled_size

PROBABILITY = 1e-4
RESIZE = 5e-5


def networks() -> dict[str, RgmpNetwork]:
    """As it is trained, and folded and prepared for the CPU."""
    return {"plain": plain_network(), "fast": tracker().network}


@cache
def misaligned() -> RgmpNetwork:
    return fresh_network(align_corners=False).requires_grad_(requires_grad=False)


@cache
def target(name: str) -> tuple[tuple[Tensor, ...], Tensor]:
    """The maps of the target frame, and what the decoder keeps of the reference."""
    network = networks()[name]
    with torch.inference_mode():
        maps = network.encoder(arrays("encoder")["in_f"], arrays("encoder")["in_p"])
        return maps, network.relate(arrays("decoder")["ref_f"], arrays("decoder")["ref_p"])


def map_excess(maps: tuple[Tensor, ...]) -> float:
    """Of the encoder's maps; some channels of the larger ones are stored."""
    expected = arrays("encoder")
    return max(excess(ours[:, ::kept], expected[key]) for key, ours, kept in zip(("r2", "r3", "r4", "r5"), maps, (4, 2, 1, 1), strict=True))


def test_every_official_key_becomes_exactly_one_of_ours_with_the_same_shape() -> None:
    official = json.loads((DATA / "keys.json").read_text())["models"]["rgmp"]
    renamed = rename(Checkpoint(tensors(), "synthetic"), OFFICIAL_NAMES).tensors
    ours = plain_network().state_dict()
    assert len(official) == len(renamed) == 372
    counters = {key for key in renamed if key.endswith("num_batches_tracked")}
    assert len(counters) == 53
    assert {key: value.shape for key, value in renamed.items() if key not in counters} == {key: value.shape for key, value in ours.items()}


def test_there_are_as_many_weights_as_in_the_official_network() -> None:
    norms = sum(value.numel() for name, value in plain_network().named_buffers() if name.endswith(("norm.weight", "norm.bias")))
    assert sum(parameter.numel() for parameter in plain_network().parameters()) + norms == 51_518_920


@pytest.mark.parametrize("name", ["plain", "fast"])
def test_encoder(name: str) -> None:
    assert map_excess(target(name)[0]) < 1


def test_a_mask_that_is_not_seen_would_be_noticed() -> None:
    with torch.inference_mode():
        assert map_excess(plain_network().encoder(arrays("encoder")["in_f"], torch.zeros(1, 64, 96))) > 100


def test_statistics_of_the_batch_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_norm = F.batch_norm
    monkeypatch.setattr(F, "batch_norm", lambda x, mean, var, weight, bias, *, training, eps: batch_norm(x, None, None, weight, bias, True, 0.1, eps))
    with torch.inference_mode():
        assert map_excess(plain_network().encoder(arrays("encoder")["in_f"], arrays("encoder")["in_p"])) > 1000


def decoder_excess(network: RgmpNetwork, maps: tuple[Tensor, ...], related: Tensor, suffix: str = "") -> dict[str, float]:
    expected = arrays("decoder")
    with torch.inference_mode():
        found = {"gc": network.decoder.relation(maps[3], related)}
        refined = network.decoder.refine(maps, related)
        found |= dict(zip(("m5", "m4", "m3"), refined, strict=False)) | dict(
            zip(("p5", "p4", "p3", "p2"), network.decoder.heads(refined), strict=True)
        )
        found["p"] = network.enlarged(found["p2"], (64, 96))
        found["m3"] = found["m3"][:, ::2]
    fixed = ("gc", "m5", "p5")  # before anything is enlarged
    return {key: excess(value, expected[key if key in fixed and key + suffix not in expected else key + suffix]) for key, value in found.items()}


@pytest.mark.parametrize("name", ["plain", "fast"])
def test_decoder(name: str) -> None:
    assert all(value < 1 for value in decoder_excess(networks()[name], *target(name)).values())
    with torch.inference_mode():
        prob = networks()[name].probabilities(arrays("encoder")["in_f"], arrays("encoder")["in_p"], target(name)[1])
    assert worst(prob, arrays("decoder")["prob"]) < PROBABILITY


def test_decoder_as_a_newer_torch_enlarges() -> None:
    assert all(value < 1 for value in decoder_excess(misaligned(), *target("plain"), suffix="_ac0").values())
    with torch.inference_mode():
        prob = misaligned().probabilities(arrays("encoder")["in_f"], arrays("encoder")["in_p"], target("plain")[1])
    assert worst(prob, arrays("decoder")["prob_ac0"]) < PROBABILITY
    assert worst(prob, arrays("decoder")["prob"]) > 0.1


def test_the_other_alignment_would_be_noticed() -> None:
    found = decoder_excess(misaligned(), *target("plain"))
    assert all(found[key] > 10 for key in ("m4", "m3", "p4", "p3", "p2", "p"))


def test_reference_and_target_in_the_other_order_would_be_noticed() -> None:
    maps, _ = target("plain")
    with torch.inference_mode():
        reference = plain_network().encoder(arrays("decoder")["ref_f"], arrays("decoder")["ref_p"])[3]
        swapped = decoder_excess(plain_network(), (*maps[:3], reference), plain_network().decoder.relation.relate(maps[3]))
    assert min(swapped["gc"], swapped["p"]) > 100


def test_a_softmax_before_the_enlargement_would_be_noticed() -> None:
    network = plain_network()
    with torch.inference_mode():
        early = object_probability(network.decoder(*target("plain")))
        prob = F.interpolate(early[:, None], size=(64, 96), mode="bilinear", align_corners=True)[:, 0]
    assert worst(prob, arrays("decoder")["prob"]) > 100 * PROBABILITY


def test_the_global_convolution_alone() -> None:
    relation, whole = plain_network().decoder.relation, generated("gc_in")
    with torch.inference_mode():
        ours = relation(whole[:, :2048], relation.relate(whole[:, 2048:]))
        without = relation(whole[:, :2048], torch.zeros_like(ours))
    assert excess(ours, arrays("blocks")["gc_out"]) < 1
    assert excess(without, arrays("blocks")["gc_out"]) > 100


@pytest.mark.parametrize("name", ["plain", "fast"])
def test_a_refinement_alone(name: str) -> None:
    refine, inputs, expected = networks()[name].decoder.refine_4, (generated("refine_f"), generated("refine_pm")), arrays("blocks")
    with torch.inference_mode():
        aligned, other = (refine(*inputs, align_corners=align)[:, ::4] for align in (True, False))
    assert max(excess(aligned, expected["refine_out"]), excess(other, expected["refine_out_ac0"])) < 1
    assert min(excess(other, expected["refine_out"]), excess(aligned, expected["refine_out_ac0"])) > 100


@pytest.mark.parametrize(("scale", "suffix"), [(0.5, "050"), (0.75, "075")])
def test_resizes(scale: float, suffix: str) -> None:
    expected, image, mask = arrays("resize"), generated("img"), generated("mask")
    size = scaled_size((96, 160), scale, multiple=32, always=True)
    assert worst(resize_linear(image, size)[:, :1], expected[f"img_{suffix}"]) < RESIZE
    assert worst(resize_linear(mask[:, None], size)[:, 0], expected[f"mask_{suffix}"]) < RESIZE
    for fault in ({"align_corners": True}, {"align_corners": False, "antialias": True}):
        assert worst(F.interpolate(image, size=size, mode="bilinear", **fault)[:, :1], expected[f"img_{suffix}"]) > 1000 * RESIZE


def test_probabilities_come_back_to_the_padded_size() -> None:
    expected = arrays("resize")
    assert worst(resize_linear(expected["mask_050"][:, None], (96, 160))[:, 0], expected["mask_050_up"]) < RESIZE


def sizes_that_differ(*, always: bool) -> int:
    """How many of the official sizes are not ours."""
    differing = 0
    for height, width, *expected in arrays("resize")["sizes"].tolist():
        left, right, top, bottom = border_to_multiple((height, width), 32, always=always)
        padded = (height + top + bottom, width + left + right)
        scaled = [side for scale in (0.5, 0.75) for side in scaled_size(padded, scale, multiple=32, always=always)]
        differing += [*padded, top, bottom, left, right, *scaled] != expected
        assert scaled_size(padded, 1.0, multiple=32, always=always) == padded
    return differing


def test_sizes_are_the_official_ones() -> None:
    assert sizes_that_differ(always=True) == 0
    assert sizes_that_differ(always=False) >= 5
