"""RGMP's tracker: what it keeps, what it makes of objects that come and go, what it refuses. Its numbers are in tests/parity/test_rgmp_*.py."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from rgmp_parity import tensors, tiny_network
from torch import Tensor

from rotoscope.errors import CheckpointError, InputError, MaskError, MemoryBudgetError, PropagationError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, read_checkpoint, rename, write_checkpoint
from rotoscope.models.rgmp import OFFICIAL_NAMES, VARIANTS, RgmpConfig, RgmpNetwork, RgmpPropagator, RgmpTracker, build, network_of
from rotoscope.models.rgmp.encoder import ResNetMaskEncoder
from rotoscope.testing import moving_shapes
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Frame, Masks

QUICK = replace(VARIANTS["rgmp"], scales=(1.0,), always_pad=False)


@pytest.fixture(scope="module")
def tracker() -> RgmpTracker:
    """Random weights in a small network: what it finds means nothing, how it is asked does."""
    network = tiny_network().eval().requires_grad_(requires_grad=False)
    network.decoder.head_4.weight *= 8  # so that its answers differ
    return RgmpTracker(network, QUICK)


@pytest.fixture(scope="module")
def clip() -> tuple[list[Frame], Tensor]:
    images, labels = moving_shapes(num_frames=8, hw=(60, 90), num_objects=3)
    return [Frame(index, image) for index, image in enumerate(images)], labels


def with_config(tracker: RgmpTracker, **changes: object) -> RgmpTracker:
    return RgmpTracker(tracker.network, replace(tracker.config, **changes))


def run(propagator: RgmpPropagator, frames: Iterable[Frame], given: dict[int, Masks], **more: bool) -> list[Masks]:
    return [masks for _, masks in propagate(frames, propagator, given, **more)]


def references(propagator: RgmpPropagator) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in propagator.state().items() if name.startswith("reference.")}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[int]:
    """The objects with another reference; 0 is the merged foreground."""
    return {int(name.split(".")[1]) for name in after if name not in before or not torch.equal(before[name], after[name])}


# what it keeps


def test_memory_does_not_grow_with_the_clip(tracker, clip) -> None:
    frames, labels = clip
    propagator, sizes = tracker.start(), []
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    for index in range(1, 50):
        frame = Frame(index, frames[index % 8].image)
        propagator.remember(frame, propagator.predict(frame), given=False)
        sizes.append(propagator.used_bytes + sum(tensor.nbytes for tensor in propagator.state().values()))
    assert len(set(sizes)) == 1


def test_the_frame_is_encoded_once_per_pass_and_the_reference_never_again(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    encoded: list[int] = []
    forward = tracker.network.encoder.forward
    monkeypatch.setattr(tracker.network.encoder, "forward", lambda image, masks: (encoded.append(len(masks)), forward(image, masks))[1])
    run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0])})
    assert encoded == [4, 4, 4, 4]  # three objects and the merged foreground in one batch: the reference, then three frames


@settings(deadline=None, max_examples=4)
@given(at_once=st.integers(1, 5), num_objects=st.integers(1, 3))
def test_objects_in_smaller_batches_give_the_same(tracker, clip, at_once: int, num_objects: int) -> None:
    frames, labels = clip
    first = Masks.from_labels(labels[0].where(labels[0] <= num_objects, 0))
    whole, parts = (run(one.start(), frames[:3], {0: first})[-1] for one in (tracker, with_config(tracker, passes_at_once=at_once)))
    torch.testing.assert_close(parts.probs, whole.probs, atol=1e-5, rtol=1e-5)


def test_several_scales_average_their_probabilities(tracker, clip) -> None:
    frames, labels = clip
    first = Masks.from_labels((labels[0] == 1).int())
    alone = [run(with_config(tracker, scales=(scale,)).start(), frames[:2], {0: first})[-1].probs for scale in (0.5, 1.0)]
    both = run(with_config(tracker, scales=(0.5, 1.0)).start(), frames[:2], {0: first})[-1].probs
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2, atol=1e-5, rtol=1e-5)
    assert float((alone[0] - alone[1]).abs().max()) > 1e-3


def test_predicting_changes_nothing_that_is_remembered(tracker, clip) -> None:
    frames, labels = clip
    propagator = tracker.start()
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    before = {name: tensor.clone() for name, tensor in propagator.state().items()}
    with torch.inference_mode():
        propagator.predict(frames[1]).probs[:] = 0  # nor does what the caller does with the result
    assert all(torch.equal(before[name], tensor) for name, tensor in propagator.state().items())
    assert float(propagator.predict(frames[1]).probs.sum()) > 0


def test_the_margin_of_a_prediction_goes_on_to_the_next_frame_only_with_its_own_masks(tracker, clip) -> None:
    """The network sees its own answer in the padding too, as officially; masks from elsewhere have background there."""
    frames, labels = clip
    own, edited = tracker.start(), tracker.start()
    for propagator in (own, edited):
        propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
        predicted = propagator.predict(frames[1])
        propagator.remember(frames[1], predicted if propagator is own else Masks(predicted.probs.flip(2), predicted.object_ids), given=False)
    assert float(own.state()["previous"][1:, :2].max()) > 0
    assert float(edited.state()["previous"][1:, :2].max()) == 0
    assert torch.equal(edited.state()["previous"][1:, 2:-2, 3:-3], own.state()["previous"][1:, 2:-2, 3:-3].flip(2))


# objects that come and go


def test_an_object_given_later_gets_the_frame_it_was_given_in_as_its_reference(tracker, clip) -> None:
    frames, labels = clip
    propagator = tracker.start()
    run(propagator, frames[:3], {0: Masks.from_labels((labels[0] == 1).int())})
    before = references(propagator)
    assert changed({}, before) == {1}  # a lone object needs no merged foreground
    run(propagator, frames[3:4], {3: Masks.from_labels(3 * (labels[3] == 3).int())}, resumed=True)
    assert changed(before, references(propagator)) == {0, 3}
    assert propagator.object_ids == (1, 3)
    assert run(propagator, frames[4:5], {}, resumed=True)[0].object_ids == (1, 3)


def test_a_mask_given_again_replaces_the_reference_of_its_object_alone(tracker, clip) -> None:
    frames, labels = clip
    propagator = tracker.start()
    run(propagator, frames[:3], {0: Masks.from_labels(labels[0])})
    before = references(propagator)
    run(propagator, frames[3:4], {3: Masks.from_labels(2 * (labels[3] == 2).int())}, resumed=True)
    assert changed(before, references(propagator)) == {0, 2}


def test_an_object_given_as_absent_keeps_its_reference(tracker, clip) -> None:
    frames, labels = clip
    propagator = tracker.start()
    run(propagator, frames[:3], {0: Masks.from_labels(labels[0])})
    before = references(propagator)
    run(propagator, frames[3:4], {3: Masks.from_labels(torch.zeros_like(labels[3]), [1, 2, 3])}, resumed=True)
    assert changed(before, references(propagator)) == set()


@pytest.mark.parametrize("ids", [(1, 4, 9), (7, 3, 5)])
def test_objects_listed_with_gaps_are_what_they_are_without(tracker, clip, ids: tuple[int, int, int]) -> None:
    frames, labels = clip
    numbered = torch.tensor([0, *ids], dtype=torch.int32)[labels[0].long()]
    plain = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0])})
    gaps = run(tracker.start(), frames[:4], {0: Masks.from_labels(numbered, ids)})
    assert gaps[-1].object_ids == ids
    torch.testing.assert_close(gaps[-1].probs, plain[-1].probs, atol=1e-5, rtol=1e-5)


def test_an_object_without_pixels_changes_nothing_and_has_none(tracker, clip) -> None:
    frames, labels = clip
    plain = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0])})
    listed = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0], [1, 2, 99, 3])})
    assert listed[-1].object_ids == (1, 2, 99, 3)
    assert float(listed[-1].probs[3].max()) == 0
    assert torch.equal(listed[-1].select([1, 2, 3]).probs, plain[-1].probs)


def test_no_objects_at_all_are_all_background(tracker, clip) -> None:
    frames, labels = clip
    results = run(tracker.start(), frames[:3], {0: Masks.from_labels(torch.zeros_like(labels[0]))})
    assert results[-1].object_ids == ()
    assert torch.equal(results[-1].probs, torch.ones(1, 60, 90))


def test_permuted_objects_give_permuted_masks(tracker, clip) -> None:
    frames, labels = clip
    straight = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0], [1, 2, 3])})[-1]
    other = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0], [3, 1, 2])})[-1]
    torch.testing.assert_close(other.select([1, 2, 3]).probs, straight.probs, atol=1e-5, rtol=1e-5)


class ColourNetwork(RgmpNetwork):
    """Stands in for weights that are not ours to ship: the object is wherever its reference colour is, wherever it was before."""

    def __init__(self) -> None:
        super().__init__(ResNetMaskEncoder((1, 1, 1, 1), width=4), width=8)

    def relate(self, image: Tensor, masks: Tensor) -> Tensor:
        weights = masks[:, None]
        return ((image * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)))[:, :, None, None]

    def probabilities(self, image: Tensor, previous: Tensor, related: Tensor) -> Tensor:
        return torch.exp(-8 * (image - related).square().sum(dim=1))


def test_an_object_whose_mask_vanished_is_brought_back_by_its_reference() -> None:
    image = torch.zeros(8, 3, 40, 70, dtype=torch.uint8)
    labels = torch.zeros(8, 40, 70, dtype=torch.int32)
    for index in (0, 1, 2, 5, 6, 7):  # the green square is out of sight for two frames, and comes back elsewhere
        left = 5 * index + 4
        image[index, 1, 10:20, left : left + 12] = 250
        labels[index, 10:20, left : left + 12] = 1
    image[:, 0, 25:35, 30:50] = 250
    labels[:, 25:35, 30:50] = 2
    frames = [Frame(index, one) for index, one in enumerate(image)]
    results = run(RgmpTracker(ColourNetwork(), QUICK).start(), frames, {0: Masks.from_labels(labels[0])})
    assert all(int((masks.labels() == 1).sum()) == 0 for masks in results[3:5])
    assert all(torch.equal(masks.labels(), truth) for masks, truth in zip(results, labels, strict=True))


def test_an_object_apart_does_not_learn_of_the_others_before_the_end(tracker, clip) -> None:
    """The article's first alternative: the objects do not see each other, but for the last maximum."""
    frames, labels = clip
    apart = with_config(tracker, aggregation="maximum")
    many, one = apart.start(), apart.start()
    run(many, frames[:4], {0: Masks.from_labels(labels[0])})
    run(one, frames[:4], {0: Masks.from_labels((labels[0] == 1).int())})
    torch.testing.assert_close(many.state()["previous"][1], one.state()["previous"][1], atol=1e-5, rtol=1e-5)


def test_the_winner_takes_all_at_every_step(tracker, clip) -> None:
    frames, labels = clip
    propagator = with_config(tracker, aggregation="winner-take-all").start()
    results = run(propagator, frames[:4], {0: Masks.from_labels(labels[0])})
    assert set(results[-1].probs.unique().tolist()) <= {0.0, 1.0}
    assert set(propagator.state()["previous"].unique().tolist()) <= {0.0, 1.0}


# what it refuses


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: [w.pop(f"Decoder.pred{level}.{part}") for level in (3, 4, 5) for part in ("weight", "bias")], r"lacks decoder\.head_32\.weight"),
        (lambda w: w.update({"Decoder.scale": torch.ones(1)}), "holds Decoder.scale, which the model does not know"),
        (lambda w: w.update({"Encoder.conv1_p.weight": torch.ones(64, 2, 7, 7)}), r"mask_stem\.weight \[64, 2, 7, 7\] instead of"),
        (lambda w: w.update({"Decoder.GC.conv_l1.bias": torch.full((256,), float("nan"))}), r"not finite in decoder\.relation\.upright_first"),
        (lambda w: [w.pop(key) for key in list(w) if "GC" in key], "holds no weights of RGMP"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, named: str) -> None:
    changed_weights = dict(tensors())
    change(changed_weights)
    with pytest.raises(CheckpointError, match=named):
        build(VARIANTS["rgmp"], Checkpoint(changed_weights, "synthetic"), "cpu")


def old_file(path: Path, content: object) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)  # the format of the released file
    return path


@pytest.mark.parametrize("form", ["released", "third party"])
def test_released_and_third_party_files_load(form: str, tmp_path: Path) -> None:
    first_stage = {key: value for key, value in tensors().items() if not key.endswith("num_batches_tracked")}
    assert len(first_stage) == 319
    if form == "released":
        content: object = {f"module.{key}": value for key, value in first_stage.items()}
    else:
        content = {"epoch": 40, "model": tensors(), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}
    checkpoint = read_checkpoint(old_file(tmp_path / "weights.pth", content))
    assert set(rename(checkpoint, OFFICIAL_NAMES).tensors) >= set(rename(Checkpoint(first_stage, ""), OFFICIAL_NAMES).tensors)
    tracker = build(VARIANTS["rgmp"], checkpoint, "cpu")
    assert torch.equal(tracker.network.decoder.head_4.weight, tensors()["Decoder.pred2.weight"])


def test_settings_come_from_the_registry() -> None:
    checkpoint = Checkpoint(tensors(), "synthetic")
    tracker = registry.build(registry.spec_of("rgmp"), checkpoint, device="cpu", settings={"scales": (1.0,), "align_corners": False})
    assert tracker.config == replace(VARIANTS["rgmp"], scales=(1.0,), align_corners=False)
    assert not tracker.network.decoder.align_corners


@pytest.mark.parametrize(
    ("wrong", "said"), [({"scales": ()}, "one or more"), ({"scales": (0.5, -1.0)}, "above 0"), ({"passes_at_once": 0}, "1 or more")]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(VARIANTS["rgmp"], **wrong)


def test_frames_and_masks_that_do_not_fit_are_refused(tracker, clip) -> None:
    frames, labels = clip
    propagator = tracker.start()
    with pytest.raises(PropagationError, match="no frame is remembered yet"):
        propagator.predict(frames[0])
    with pytest.raises(MaskError, match="resize the masks first"):
        propagator.remember(frames[0], Masks.from_labels(labels[0][:50]), given=True)
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    for method in (propagator.predict, lambda frame: propagator.remember(frame, Masks.from_labels(labels[0][:50]), given=True)):
        with pytest.raises(InputError, match="is 90x50 but the clip started with 90x60"):
            method(Frame(1, frames[1].image[:, :50].contiguous()))


def test_a_budget_refuses_more_objects_than_fit(tracker, clip) -> None:
    frames, labels = clip
    needed = tracker.start()
    needed.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    enough, short = (tracker.start(max_memory_bytes=needed.used_bytes - less) for less in (0, 1))
    enough.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    with pytest.raises(MemoryBudgetError, match=r"3 objects need .* raise the budget"):
        short.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    with pytest.raises(InputError, match="holds nothing"):
        tracker.start(max_memory_bytes=0)


def test_a_state_of_another_pass_is_refused(tracker, clip) -> None:
    frames, labels = clip
    propagator = with_config(tracker, scales=(0.5, 1.0)).start()
    run(propagator, frames[:2], {0: Masks.from_labels(labels[0])})
    with pytest.raises(InputError, match="at 1 scales; start the clip again"):
        tracker.start().restore(propagator.state())
    with pytest.raises(InputError, match="missing or misnamed"):
        with_config(tracker, scales=(0.5, 0.75, 1.0)).start().restore(propagator.state())
    with pytest.raises(InputError, match="missing or misnamed"):
        tracker.start().restore({"first": torch.tensor(0)})
    fresh = tracker.start()
    fresh.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    fresh.restore({})
    assert fresh.state() == {}


# the lite variant


def test_the_lite_variant_gives_the_same_by_tiles_and_after_a_round_trip(clip, tmp_path: Path) -> None:
    frames, labels = clip
    network = network_of(VARIANTS["rgmp-lite"])
    path = tmp_path / "lite.safetensors"
    write_checkpoint(path, network.state_dict(), model="rgmp-lite", official=False)
    plain = RgmpTracker(network.eval().requires_grad_(requires_grad=False), VARIANTS["rgmp-lite"])
    fast = build(VARIANTS["rgmp-lite"], read_checkpoint(path), "cpu")
    results = [run(one.start(), frames[:3], {0: Masks.from_labels(labels[0])})[-1].probs for one in (plain, fast)]
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)


def test_the_lite_variant_is_an_eighth_of_the_size_and_sees_mask_and_reference() -> None:
    network = network_of(VARIANTS["rgmp-lite"])
    assert sum(parameter.numel() for parameter in network.parameters()) < 51_518_920 / 7.5
    image, mask = torch.rand(1, 3, 64, 64), torch.rand(2, 64, 64)
    network.eval()
    related = network.relate(image, mask)
    assert related.shape == (2, 128, 2, 2)
    assert network(image, mask, related).shape == (2, 2, 64, 64)
    network.probabilities(image, mask, related).sum().backward()
    assert all(float(network.encoder.layers.stem.conv.weight.grad[:, channel].abs().max()) > 0 for channel in range(4))


def test_the_table_says_what_the_sheet_says() -> None:
    spec = registry.spec_of("rgmp")
    assert spec.official_files == ("weights.pth",)
    assert not spec.shipped
    assert "non-commercial" in spec.licence
    assert VARIANTS["rgmp"] == RgmpConfig("rgmp", scales=(0.5, 0.75, 1.0), align_corners=True, always_pad=True, aggregation="softmax")
