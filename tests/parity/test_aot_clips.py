"""Whole passes of AOT and DeAOT against the official code's outputs on drawn clips. Each comparison has a twin with one deliberate fault."""

from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from aot_parity import (
    BLOCK_TOLERANCE,
    LOGIT_TOLERANCE,
    MASK_TOLERANCE,
    OFFICIAL,
    PROBABILITY_TOLERANCE,
    arrays,
    checkpoint,
    network,
    worst,
)
from torch import Tensor

from rotoscope.models.aot import VARIANTS, AotConfig, AotPropagator, AotTracker, build
from rotoscope.models.aot.network import one_hot_identities
from rotoscope.models.aot.propagator import network_input, working_size_of
from rotoscope.ops.aggregate import merge_groups
from rotoscope.ops.sizing import resize_cubic, resize_labels, working_size
from rotoscope.tracking.ensemble import EnsembleTracker
from rotoscope.tracking.propagate import merge_given
from rotoscope.types import Frame, Masks

CLIP_VARIANTS = ["aot-t", "deaot-t", "r50-aot-l", "r50-deaot-l", "swinb-deaot-l"]
IDS = (1, 2, 3)


@pytest.fixture(autouse=True)
def _on_one_thread_without_gradients():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the maps are so small that threads only wait for each other
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@cache
def clip(suffix: str = "") -> tuple[list[Frame], Tensor]:
    data = arrays("clip_inputs")
    images = data["frames" + suffix].permute(0, 3, 1, 2).contiguous()
    return [Frame(index, image) for index, image in enumerate(images)], data["labels" + suffix].int()


@cache
def tracker(variant: str) -> AotTracker:
    return build(VARIANTS[variant], checkpoint(variant), "cpu")


def start(variant: str, *, gap: int | None = -1) -> AotPropagator:
    """A pass of the variant, as users get it; `gap` replaces the variant's own."""
    own = tracker(variant)
    config = own.config if gap == -1 else replace(own.config, long_term_gap=gap)
    return AotTracker(own.network, config).start()


def logits_of(propagator: AotPropagator, frame: Frame, group: int = 0) -> Tensor:
    """What the decoder gives at stride 4, for the identities that a group uses."""
    matched = propagator._match(frame)
    return propagator._network.decode(propagator._see(frame).picture, matched.passes[group])[0]


def run(propagator: AotPropagator, frames: list[Frame], first: Masks, truth: Tensor | None = None) -> list[tuple[Tensor, Masks, int]]:
    """For each later frame logits, masks, and the long-term cells once it is remembered; with `truth` that is remembered instead."""
    propagator.remember(frames[0], first, given=True)
    results = []
    for frame in frames[1:]:
        masks = propagator.predict(frame)
        logits = logits_of(propagator, frame)
        propagator.remember(frame, masks if truth is None else Masks.from_labels(truth[frame.index], first.object_ids), given=False)
        results.append((logits, masks, propagator._groups[0].long_term.layer(0).key.shape[1]))
    return results


def share_of_differing(ours: list[Masks], theirs: Tensor) -> float:
    return float((torch.stack([masks.labels() for masks in ours]) != theirs).float().mean())


def newest_first(tokens: Tensor, cells: int) -> Tensor:
    return tokens[0].unflatten(0, (-1, cells)).flip(0).flatten(0, 1)


def test_frames_are_sized_and_normalised_as_the_official_ones():
    data = arrays("clip_inputs")
    for row in data["resize_cases"].tolist():
        height, width, corners, short_edge, long_edge, scale, *expected = row
        limits = {"short_edge": None if short_edge < 0 else int(short_edge), "long_edge": int(long_edge), "scale": round(scale, 4)}
        assert working_size((int(height), int(width)), stride=16, corners=bool(corners), **limits) == tuple(map(int, expected))
    frame = clip()[0][0]
    assert worst(network_input(frame, VARIANTS["aot-t"], "cpu")[0], data["img0_align"]) < BLOCK_TOLERANCE
    assert worst(network_input(frame, VARIANTS["swinb-aot-l"], "cpu")[0], data["img0_noalign"]) < BLOCK_TOLERANCE
    linear = F.interpolate(frame.image[None].float(), size=(97, 145), mode="bilinear")[0]
    assert worst(linear, resize_cubic(frame.image.float(), (97, 145))) > 1


@pytest.mark.parametrize("variant", CLIP_VARIANTS)
def test_a_step_is_the_official_one(variant):
    data, (frames, labels) = arrays(f"step_{OFFICIAL[variant]}"), clip()
    net, config = network(variant), VARIANTS[variant]
    size = working_size_of(frames[0].hw, config)
    picture = net.see(network_input(frames[0], config, "cpu"))
    reference = net.match_itself(picture, net.id_bank(one_hot_identities(resize_labels(labels[0].long(), size)[None])))
    assert worst(reference.outputs[-1][0, :, ::4], data["ref_lstt_last_c4"]) < LOGIT_TOLERANCE
    propagator = start(variant)
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    picture, matched = propagator._see(frames[1]).picture, propagator._match(frames[1])
    assert worst(picture.embedding[0, :, ::4], data["f1_proj_c4"].flatten(1).T) < BLOCK_TOLERANCE
    assert worst(matched.passes[0].outputs[-1][0, :, ::4], data["f1_lstt_last_c4"]) < LOGIT_TOLERANCE
    assert worst(logits_of(propagator, frames[1])[:4], data["f1_logits4"]) < LOGIT_TOLERANCE
    assert worst(propagator._upsampled(picture, matched.passes[0], (100, 150), 0)[:, ::2, ::2], data["f1_logits_full_s2"]) < LOGIT_TOLERANCE
    other = start(variant)
    other.remember(frames[0], Masks.from_labels(labels[0], (2, 1, 3)), given=True)
    assert worst(logits_of(other, frames[1])[:4], data["f1_logits4"]) > LOGIT_TOLERANCE


@pytest.mark.parametrize("variant", CLIP_VARIANTS)
def test_memories_of_true_masks_are_the_official_ones(variant):
    data, (frames, labels) = arrays(f"step_{OFFICIAL[variant]}"), clip()
    num_frames = 1 + len(data["memlen_gt_gap2"])
    propagator = start(variant, gap=2)
    results = run(propagator, frames[:num_frames], Masks.from_labels(labels[0]), labels)
    assert worst(torch.stack([logits[:4] for logits, _, _ in results]), data["logits4_gt_gap2"]) < LOGIT_TOLERANCE
    assert [cells for _, _, cells in results] == data["memlen_gt_gap2"].tolist()
    group = propagator._groups[0]
    cells = group.short_term[-1].key.shape[1]
    long_term, short_term = group.long_term.layer(len(group.short_term) - 1), group.short_term[-1]
    visual = 512 if propagator._config.gated else 256
    assert worst(newest_first(long_term.key, cells)[:, ::4], data["last_longK_c4"]) < LOGIT_TOLERANCE
    assert worst(newest_first(long_term.value, cells)[:, :visual:8], data["last_longV_c8"]) < LOGIT_TOLERANCE
    assert worst(short_term.value[0, :, :visual:8].T, data["last_shortV_c8"].flatten(1)) < LOGIT_TOLERANCE
    if "last_longIDV_c8" in data:
        assert worst(newest_first(long_term.value, cells)[:, visual::8], data["last_longIDV_c8"]) < LOGIT_TOLERANCE
    assert worst(long_term.key[0, :, ::4], data["last_longK_c4"]) > LOGIT_TOLERANCE


@pytest.mark.parametrize("variant", CLIP_VARIANTS)
def test_a_clip_is_the_official_one(variant):
    data, (frames, labels) = arrays(f"e2e_{OFFICIAL[variant]}"), clip()
    results = run(start(variant), frames[: 1 + len(data["masks"])], Masks.from_labels(labels[0]))
    logits = torch.stack([step[0][:4] for step in results])
    assert worst(logits, data["logits4"]) < LOGIT_TOLERANCE
    assert share_of_differing([step[1] for step in results], data["masks"]) <= MASK_TOLERANCE
    assert worst(results[-1][1].probs[:, ::3, ::3], data["prob_s3_last"]) < PROBABILITY_TOLERANCE
    assert [step[2] for step in results] == data["memlen"].tolist()


@pytest.mark.parametrize("variant", CLIP_VARIANTS)
def test_a_clip_with_another_gap_is_not_the_official_one(variant):
    data, (frames, labels) = arrays(f"e2e_{OFFICIAL[variant]}"), clip()
    results = run(start(variant, gap=2), frames[:5], Masks.from_labels(labels[0]))
    assert worst(results[-1][0][:4], data["logits4"][3]) > LOGIT_TOLERANCE


def merged_logits(propagator: AotPropagator, frame: Frame) -> Tensor:
    """Log-odds of the identities of all groups at the frame's size, unused ones of the last group left out."""
    picture, matched = propagator._see(frame).picture, propagator._match(frame)
    groups = [propagator._upsampled(picture, result, frame.hw, index).softmax(dim=0) for index, result in enumerate(matched.passes)]
    return merge_groups(groups)


def share_outside(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference where the official value is inside the range that its clamp leaves."""
    inside = theirs.abs() < 11
    assert float(inside.float().mean()) > 0.5
    return float((ours - theirs)[inside].abs().max())


@pytest.mark.parametrize("variant", ["aot-t", "r50-deaot-l"])
@pytest.mark.parametrize("fed", ["gt", "own"])
def test_twelve_objects_in_two_groups_are_the_official_ones(variant, fed):
    data, (frames, labels) = arrays(f"obj12_{OFFICIAL[variant]}"), clip("12")
    propagator = start(variant, gap=2)
    first = Masks.from_labels(labels[0])
    propagator.remember(frames[0], first, given=True)
    masks = []
    for frame in frames[1:]:
        masks.append(propagator.predict(frame))
        merged = merged_logits(propagator, frame)
        assert share_outside(merged[:, ::4, ::4], data[f"{fed}_merged_logits_s4"][frame.index - 1][:13]) < 1e-3
        last = [logits_of(propagator, frame, group) for group in (0, 1)]
        propagator.remember(frame, masks[-1] if fed == "own" else Masks.from_labels(labels[frame.index], first.object_ids), given=False)
        assert [group.long_term.layer(0).key.shape[1] for group in propagator._groups] == data[f"{fed}_memlen"][frame.index - 1].tolist()
    assert share_of_differing(masks, data[f"{fed}_masks"]) <= MASK_TOLERANCE
    theirs = data[f"{fed}_group_logits4_last"]
    assert worst(last[0], theirs[0]) < LOGIT_TOLERANCE
    assert worst(last[1][:3], theirs[1][:3]) < LOGIT_TOLERANCE
    without_product = torch.cat((merged[:1] + 0.1, merged[1:]))
    assert share_outside(without_product[:, ::4, ::4], data[f"{fed}_merged_logits_s4"][-1][:13]) > 1e-3


def given_later(label: Tensor, predicted: Masks) -> Masks:
    """A later annotation as official evaluation merges it: pixels with a label overwrite the prediction, the others stay."""
    listed = Masks.from_labels(label)
    kept = [object_id for object_id in predicted.object_ids if object_id not in listed.object_ids]
    return merge_given(predicted.select((*kept, *(i for i in predicted.object_ids if i not in kept))), listed)


@pytest.mark.parametrize("variant", ["aot-t", "r50-deaot-l"])
def test_an_object_that_appears_later_is_followed_as_in_the_official_code(variant):
    data, (frames, _) = arrays(f"newobj_{OFFICIAL[variant]}"), clip()
    assert share_of_wrong_newcomers(variant, frames, data, annotated=3) <= LOGIT_TOLERANCE
    assert share_of_wrong_newcomers(variant, frames, data, annotated=4) > LOGIT_TOLERANCE


def share_of_wrong_newcomers(variant: str, frames: list[Frame], data: dict[str, Tensor], annotated: int) -> float:
    """The largest difference of the logits when the third object is given in a frame (3 in the official run)."""
    propagator = start(variant)
    propagator.remember(frames[0], Masks.from_labels(data["label0"].int(), (1, 2)), given=True)
    masks, logits = [], []
    for frame in frames[1:]:
        predicted = propagator.predict(frame)
        logits.append(logits_of(propagator, frame)[:4])
        merged = given_later(data["label3"].int(), predicted) if frame.index == annotated else predicted
        propagator.remember(frame, merged, given=frame.index == annotated)
        masks.append(merged)
        if annotated == 3:
            assert propagator._groups[0].long_term.layer(0).key.shape[1] == data["memlen"][frame.index - 1]
    if annotated == 3:
        assert share_of_differing(masks, data["masks"]) <= MASK_TOLERANCE
    used = torch.stack(logits)
    before, after = slice(0, 3), slice(3, None)
    return max(worst(used[before, :3], data["logits4"][before, :3]), worst(used[after], data["logits4"][after]))


def test_a_second_group_is_made_when_its_first_object_appears():
    data, (frames, _) = arrays("newobj_grow_aott"), clip("12")
    propagator = start("aot-t", gap=2)
    propagator.remember(frames[0], Masks.from_labels(data["label0"].int()), given=True)
    masks = []
    for frame in frames[1:]:
        predicted = propagator.predict(frame)
        merged = given_later(data["label2"].int(), predicted) if frame.index == 2 else predicted
        last = merged_logits(propagator, frame)
        propagator.remember(frame, merged, given=frame.index == 2)
        masks.append(merged)
    assert share_of_differing(masks, data["masks"]) <= MASK_TOLERANCE
    assert share_outside(last[:, ::4, ::4], data["logits_last_s4"][:13]) < 1e-3
    assert share_outside(last.roll(1, dims=0)[:, ::4, ::4], data["logits_last_s4"][:13]) > 1e-3


def test_flips_and_scales_are_averaged_as_in_the_official_code():
    data, (frames, labels) = arrays("tta_aott"), clip()
    base = tracker("aot-t")
    plain = AotTracker(base.network, replace(base.config, short_edge=624))
    probs, masks = ensemble_run(EnsembleTracker([plain, plain.at_scale(1.3)], mirrored=True), frames[:4], labels[0])
    assert worst(probs[:, :, ::3, ::3], data["prob_s3"]) < PROBABILITY_TOLERANCE
    assert share_of_differing(masks, data["masks"]) <= MASK_TOLERANCE
    probs, _ = ensemble_run(EnsembleTracker([plain, plain.at_scale(1.3)]), frames[:4], labels[0])
    assert worst(probs[:, :, ::3, ::3], data["prob_s3"]) > PROBABILITY_TOLERANCE


def ensemble_run(ensemble: EnsembleTracker, frames: list[Frame], labels: Tensor) -> tuple[Tensor, list[Masks]]:
    propagator = ensemble.start()
    propagator.remember(frames[0], Masks.from_labels(labels), given=True)
    masks = []
    for frame in frames[1:]:
        masks.append(propagator.predict(frame))
        propagator.remember(frame, masks[-1], given=False)
    return torch.stack([step.probs for step in masks]), masks


def test_the_official_loss_of_absent_objects_can_be_had_and_is_off():
    frames, labels = clip()

    def ids_after(config: AotConfig) -> tuple[int, ...]:
        propagator = AotTracker(network("aot-t"), config).start()
        propagator.remember(frames[0], Masks.from_labels(labels[0], IDS), given=True)
        absent = torch.where(labels[1] == 3, 0, labels[1])
        propagator.remember(frames[1], Masks.from_labels(absent, IDS), given=True)
        return propagator.predict(frames[2]).object_ids

    assert ids_after(VARIANTS["aot-t"]) == IDS
    assert ids_after(replace(VARIANTS["aot-t"], lose_absent_highest_ids=True)) == (1, 2)
