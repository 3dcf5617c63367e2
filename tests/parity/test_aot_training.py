"""Losses, learning rates and gradients of AOT and DeAOT against the official training code."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from aot_parity import DATA, MASK_TOLERANCE, OFFICIAL, arrays, fresh_network
from torch import Tensor

from rotoscope.models.aot import VARIANTS, official_names
from rotoscope.models.checkpoints import Checkpoint, rename
from rotoscope.training.aot_clips import ClipLosses, ClipSettings, clip_losses, identity_shuffles
from rotoscope.training.losses import bootstrapped_cross_entropy, hard_share, soft_jaccard_loss
from rotoscope.training.schedules import PolynomialRate

STEPS = 100_000  # of the official main stage


@pytest.fixture(autouse=True)
def _on_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the maps are so small that threads only wait for each other
    yield
    torch.set_num_threads(threads)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float(((ours.detach() - theirs).abs() / theirs.abs().clamp(min=1e-6)).max())


def samples() -> list[tuple[Tensor, Tensor]]:
    data = arrays("train")
    return [(data[f"loss_logits{index}"], data[f"loss_label{index}"].long()) for index in (0, 1)]


@pytest.mark.parametrize("step", [0, 25000, 50000, 99999])
def test_the_cross_entropy_of_hard_pixels_is_the_official_one(step):
    theirs = arrays("train")[f"ce_step{step}"]
    share = hard_share(step, num_steps=STEPS)
    assert relative(torch.cat([bootstrapped_cross_entropy(*sample, share=share) for sample in samples()]), theirs) < 1e-4
    assert relative(torch.cat([bootstrapped_cross_entropy(*sample, share=share - 0.01) for sample in samples()]), theirs) > 1e-4


def test_the_soft_jaccard_loss_is_the_official_one():
    theirs = arrays("train")["jaccard"]
    assert relative(torch.cat([soft_jaccard_loss(*sample) for sample in samples()]), theirs) < 1e-4
    without_void = [(logits, torch.where(labels == 255, 0, labels)) for logits, labels in samples()]
    assert relative(torch.cat([soft_jaccard_loss(*sample) for sample in without_void]), theirs) > 1e-4


def test_learning_rates_are_the_official_ones():
    rows = arrays("train")["lr_rows_f64"].numpy().view(np.float64)
    rates = {0: PolynomialRate(4e-4, 2e-5, STEPS), 1: PolynomialRate(2e-4, 2e-5, STEPS), 2: PolynomialRate(2e-4, 1e-5, STEPS)}
    for stage, step, encoder, decoder, id_bank in rows:
        rate = rates[int(stage)]
        ours = rate.at(int(step))
        assert math.isclose(ours, decoder, abs_tol=1e-12)
        assert math.isclose(rate.least + 0.1 * (ours - rate.least), encoder, abs_tol=1e-12)
        assert id_bank == 0 or math.isclose(ours, id_bank, abs_tol=1e-12)
    assert not math.isclose(replace(rates[0], power=1.0).at(50000), rates[0].at(50000), abs_tol=1e-12)


def official_run(variant: str, step: int, *, gap: int | None, own_masks: bool) -> tuple[ClipLosses, dict[str, float]]:
    data = arrays("train")
    network = fresh_network(VARIANTS[variant])
    network.encoder.freeze_early()
    settings = ClipSettings(gap, own_masks=own_masks, hard_share=hard_share(step, num_steps=STEPS), reference_weight=1 - step / STEPS)
    images = data["train_images_frame_major"].unflatten(0, (5, 2))
    labels = data["train_labels_frame_major"][:, 0].long().unflatten(0, (5, 2))
    losses = clip_losses(network, images, labels, (3, 2), settings)
    losses.total.backward()
    norms = {name: math.nan if value.grad is None else float(value.grad.norm()) for name, value in network.named_parameters()}
    return losses, norms


def official_norms(variant: str, step: int) -> dict[str, float]:
    """Norms of gradients under our names."""
    with np.load(DATA / "train.npz") as file:
        names, norms = file["gradnorm_names"], file[f"{OFFICIAL[variant]}_step{step}_gradnorms"]
    result = {}
    for name, norm in zip(names.tolist(), norms.tolist(), strict=True):
        try:
            ours = rename(Checkpoint({name: torch.zeros(1)}, "name"), official_names(VARIANTS[variant])).tensors
        except ValueError:
            continue
        result[next(iter(ours))] = norm
    return result


@pytest.mark.parametrize(("variant", "gap"), [("aot-t", None), ("deaot-s", 2)])
@pytest.mark.parametrize("step", [0, 60000])
def test_a_training_pass_is_the_official_one(variant, gap, step):
    data = {key.removeprefix(f"{OFFICIAL[variant]}_step{step}_"): value for key, value in arrays("train").items()}
    losses, norms = official_run(variant, step, gap=gap, own_masks=step > 0)
    assert relative(losses.total, data["loss"]) < 1e-4
    assert relative(losses.frames, data["frame_losses"]) < 1e-4
    assert float((losses.predicted[-1] != data["pred_last"]).float().mean()) <= MASK_TOLERANCE
    compared = 0
    for name, norm in official_norms(variant, step).items():
        if name not in norms:
            continue
        if math.isnan(norm):
            assert math.isnan(norms[name]), name
        else:
            assert math.isclose(norms[name], norm, rel_tol=1e-3), name
            compared += 1
    assert compared >= 4


def test_a_training_pass_with_another_gap_or_feed_is_not_the_official_one():
    theirs = arrays("train")["deaots_step60000_loss"]
    assert relative(official_run("deaot-s", 60000, gap=None, own_masks=True)[0].total, theirs) > 1e-4
    assert relative(official_run("deaot-s", 60000, gap=2, own_masks=False)[0].total, theirs) > 1e-4


def test_shuffled_identities_come_back_in_their_own_order():
    data = arrays("train")
    images = data["train_images_frame_major"].unflatten(0, (5, 2))[:2]
    labels = data["train_labels_frame_major"][:, 0].long().unflatten(0, (5, 2))[:2]
    network = fresh_network(VARIANTS["aot-t"])
    plain = torch.eye(11).expand(2, 11, 11)
    same = clip_losses(network, images, labels, (3, 2), ClipSettings(), shuffle=plain)
    assert torch.allclose(same.frames, clip_losses(network, images, labels, (3, 2), ClipSettings()).frames, rtol=1e-4)
    shuffles = identity_shuffles(2)
    assert torch.equal(shuffles @ shuffles.transpose(1, 2), plain)
    assert torch.equal(shuffles[:, 0, 0], torch.ones(2))
    shuffled = clip_losses(network, images, labels, (3, 2), ClipSettings(), shuffle=shuffles)
    assert not torch.allclose(shuffled.frames, same.frames, rtol=1e-4)
