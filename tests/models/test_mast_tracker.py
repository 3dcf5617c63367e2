"""MAST's tracker: what it keeps, what it reads, what it refuses. Its numbers are in tests/parity/test_mast.py."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.errors import CheckpointError, InputError, MemoryBudgetError
from rotoscope.memory import MemorySchedule
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, read_checkpoint, rename, write_checkpoint
from rotoscope.models.mast import OFFICIAL_NAMES, REFERENCE_MODES, VARIANTS, MastConfig, MastTracker, build
from rotoscope.models.mast import propagator as propagator_module
from rotoscope.models.mast.objective import draw_channel, drop_channel, reconstruction_loss
from rotoscope.models.mast.propagator import MastPropagator
from rotoscope.models.mast.read import Reference, read_memory, search_dilation, to_coarse, to_full_size
from rotoscope.testing import moving_shapes, official_weights
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Frame, Masks

KEYS = Path(__file__).resolve().parents[1] / "parity" / "data" / "mast" / "keys.json"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return official_weights(KEYS, "mast")


@pytest.fixture(scope="module")
def tracker(weights) -> MastTracker:
    return build(VARIANTS["mast"], Checkpoint(weights, "synthetic"), "cpu")


@pytest.fixture(scope="module")
def clip() -> tuple[list[Frame], Tensor]:
    images, labels = moving_shapes(num_frames=8, hw=(48, 64), num_objects=2)
    return [Frame(index, image) for index, image in enumerate(images)], labels


def with_config(tracker: MastTracker, **changes: object) -> MastTracker:
    return MastTracker(tracker.encoder, replace(tracker.config, **changes))


def small(tracker: MastTracker) -> MastTracker:
    """A narrow window, for what does not depend on it."""
    return with_config(tracker, radius=2)


def run(propagator: MastPropagator, frames: Iterable[Frame], given: dict[int, Masks]) -> list[Masks]:
    return [masks for _, masks in propagate(frames, propagator, given)]


def stored(propagator: MastPropagator) -> dict[int, bool]:
    """The steps in memory, and whether each was given."""
    return {int(name.split(".")[1]): bool(tensor) for name, tensor in propagator.state().items() if name.endswith(".given")}


def stored_bytes(propagator: MastPropagator) -> int:
    return sum(tensor.numel() * tensor.element_size() for name, tensor in propagator.state().items() if name.endswith((".features", ".probs")))


def read_from(propagator: MastPropagator, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames ago the references of a prediction were, oldest first."""
    gaps: list[int] = []
    read = propagator_module.read_memory

    def spy(target: Tensor, references: list[Reference], **settings: object) -> Tensor:
        gaps.extend(reference.gap for reference in references)
        return read(target, references, **settings)

    monkeypatch.setattr(propagator_module, "read_memory", spy)
    propagator.predict(frame)
    return gaps


def squares(count: int, hw: tuple[int, int] = (48, 64)) -> Tensor:
    """Objects 1 to count, 12 pixels a side, in rows of four."""
    labels = torch.zeros(hw, dtype=torch.int32)
    for index in range(count):
        top, left = 16 * (index // 4), 16 * (index % 4)
        labels[top : top + 12, left : left + 12] = index + 1
    return labels


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("post_convolution.bias"), "lacks head.bias"),
        (lambda w: w.update({"post_convolution.scale": torch.ones(1)}), "holds head.scale"),
        (lambda w: w.update({"feature_extraction.fc.weight": torch.ones(1)}), "feature_extraction.fc.weight, which the model does not know"),
        (lambda w: w.update({"feature_extraction.conv1.0.weight": torch.ones(64, 3, 3, 3)}), r"stem.0.weight \[64, 3, 3, 3\] instead of"),
        (lambda w: w["post_convolution.bias"].fill_(float("nan")), "not finite in head.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(weights, change, named: str) -> None:
    changed = {key: tensor.clone() for key, tensor in weights.items()}
    change(changed)
    with pytest.raises(CheckpointError, match=named):
        build(VARIANTS["mast"], Checkpoint(changed, "synthetic"), "cpu")


def test_a_training_checkpoint_of_the_official_form_loads_with_the_official_fault(weights, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}, "optimizer": {"state": {}}}, path)
    loaded = build(VARIANTS["mast"], read_checkpoint(path), "cpu")
    assert loaded.config.one_offset_for_all_values
    assert not VARIANTS["mast"].one_offset_for_all_values


def test_weights_of_our_own_come_without_the_fault(weights, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    write_checkpoint(path, rename(Checkpoint(weights, ""), OFFICIAL_NAMES).tensors, model="mast", official=False)
    assert not build(VARIANTS["mast"], read_checkpoint(path), "cpu").config.one_offset_for_all_values


def test_the_registry_knows_it() -> None:
    assert registry.module_of(registry.spec_of("mast")).VARIANTS["mast"] == MastConfig()


def test_each_frame_is_encoded_once(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    encoded = []
    encode = propagator_module.encode
    monkeypatch.setattr(propagator_module, "encode", lambda encoder, frame: (encoded.append(frame.index), encode(encoder, frame))[1])
    run(small(tracker).start(), frames, {0: Masks.from_labels(labels[0]), 3: Masks.from_labels(labels[3])})
    assert encoded == list(range(8))


def test_nine_objects_are_followed_where_every_cell_knows_itself(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    features = 8 * torch.nn.functional.normalize(torch.randn(64, 12, 16), dim=0)
    monkeypatch.setattr(propagator_module, "encode", lambda encoder, frame: features)
    frames, _ = clip
    results = run(with_config(tracker, aligned_upsampling=True).start(), frames[:4], {0: Masks.from_labels(squares(9))})
    assert results[-1].object_ids == tuple(range(1, 10))
    assert torch.equal(results[-1].labels()[::4, ::4], squares(9)[::4, ::4])


def test_permuted_objects_give_permuted_masks(tracker, clip) -> None:
    frames, labels = clip
    straight = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0], [1, 2])})[-1]
    other = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0], [2, 1])})[-1]
    renamed = run(tracker.start(), frames[:4], {0: Masks.from_labels(labels[0] * 31)})[-1]
    assert other.object_ids == (2, 1)
    assert torch.allclose(other.select([1, 2]).probs, straight.probs, atol=1e-6)
    assert torch.equal(renamed.labels(), straight.labels() * 31)


def test_objects_do_not_depend_on_how_many_others_there_are(tracker, clip) -> None:
    """One softmax decides what is copied; who else owns it changes nothing."""
    frames, _ = clip
    many = run(tracker.start(), frames[:2], {0: Masks.from_labels(squares(9))})[-1]
    one = run(tracker.start(), frames[:2], {0: Masks.from_labels(squares(9).where(squares(9) == 5, 0))})[-1]
    assert torch.allclose(many.probs[5], one.probs[1], atol=1e-5)


def test_a_given_frame_serves_for_the_rest_of_the_pass(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    propagator = small(tracker).start()
    for index in range(30):
        propagator.remember(Frame(index, frames[0].image), Masks.from_labels(labels[0]), given=index in (0, 12))
    assert [step for step, given in stored(propagator).items() if given] == [0, 12]
    assert read_from(propagator, Frame(30, frames[0].image), monkeypatch) == [30, 25, 18, 5, 3, 1]


def test_memory_stays_bounded_over_three_hundred_frames(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    image, first = frames[0].image[:, :16, :16].contiguous(), Masks.from_labels(labels[0][:16, :16], [1, 2])
    monkeypatch.setattr(propagator_module, "encode", lambda encoder, frame: torch.randn(64, 4, 4))
    propagator, sizes = small(tracker).start(), []
    for index in range(300):
        propagator.remember(Frame(index, image), first, given=index == 0)
        if index % 60 == 0:
            propagator.predict(Frame(index + 1, image))
        sizes.append((stored_bytes(propagator), len(propagator._cache)))
    assert max(sizes[10:]) == sizes[10]
    assert sizes[10] == (7 * (64 + 3) * 4 * 4 * 4, 2)  # frames 0 and 5, and five recent ones, of 4 x 4 cells


def test_a_budget_drops_long_term_frames_but_never_given_ones(tracker, clip) -> None:
    frames, labels = clip
    given = {0: Masks.from_labels(labels[0]), 2: Masks.from_labels(labels[2])}
    one_frame = (64 + 3) * 12 * 16 * 4
    propagator = small(tracker).start(max_memory_bytes=3 * one_frame)
    for _ in propagate(frames, propagator, given):
        assert stored_bytes(propagator) <= 3 * one_frame
    assert list(stored(propagator)) == [0, 2, 7]
    with pytest.raises(MemoryBudgetError, match="raise the budget"):
        run(small(tracker).start(max_memory_bytes=2 * one_frame), frames, given)


@pytest.mark.parametrize("mode", range(3))
def test_frames_that_are_missing_from_the_clip_leave_the_latest_as_references(tracker, clip, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    frames, labels = clip
    propagator = with_config(tracker, schedule=REFERENCE_MODES[mode], radius=2).start()
    run(propagator, [Frame(40 * frame.index, frame.image) for frame in frames[:4]], {0: Masks.from_labels(labels[0])})
    assert read_from(propagator, Frame(160, frames[4].image), monkeypatch) == ([40] if mode == 2 else [160, 120, 40])


def test_a_schedule_is_kept_to(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    propagator = with_config(tracker, schedule=MemorySchedule(anchors=(0,), recent=(2,)), radius=2).start()
    run(propagator, frames[:6], {0: Masks.from_labels(labels[0])})
    assert read_from(propagator, frames[6], monkeypatch) == [6, 2]


def test_a_backward_pass_counts_gaps_as_a_forward_one(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    propagator = small(tracker).start()
    run(propagator, frames[:0:-1], {7: Masks.from_labels(labels[7])})
    assert read_from(propagator, frames[0], monkeypatch) == [7, 5, 3, 2, 1]


def test_state_holds_everything_and_restores_exactly(tracker, clip) -> None:
    frames, labels = clip
    before = small(tracker).start()
    run(before, frames[:5], {0: Masks.from_labels(labels[0] * 7), 3: Masks.from_labels(labels[3].clamp(max=1) * 40)})
    after = small(tracker).start()
    after.remember(frames[1], Masks.from_labels(labels[1]), given=True)  # forgotten by restoring
    after.restore({key: tensor.clone() for key, tensor in before.state().items()})
    assert before.state().keys() == after.state().keys()
    assert all(torch.equal(before.state()[key], after.state()[key]) for key in before.state())
    predictions = [propagator.predict(frames[5]) for propagator in (before, after)]
    assert predictions[0].object_ids == predictions[1].object_ids == (7, 14, 40)
    assert torch.equal(predictions[0].probs, predictions[1].probs)


def test_an_empty_state_restores_an_empty_pass(tracker, clip) -> None:
    frames, labels = clip
    propagator = small(tracker).start()
    assert propagator.state() == {}
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    propagator.restore({})
    assert propagator.state() == {}


@pytest.mark.parametrize("name", ["features", "probs", "object_ids", "given"])
def test_a_state_that_lacks_a_part_is_refused_and_changes_nothing(tracker, clip, name: str) -> None:
    frames, labels = clip
    propagator = small(tracker).start()
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    state = propagator.state()
    with pytest.raises(InputError, match=f"not the state of such a pass.*{name}"):
        propagator.restore({key: tensor for key, tensor in state.items() if key != f"frames.0.{name}"})
    assert propagator.state().keys() == state.keys()


@pytest.mark.parametrize("strange", ["frames.x.features", "frames"])
def test_a_state_with_strange_names_is_refused(tracker, strange: str) -> None:
    with pytest.raises(InputError, match="not the state of such a pass"):
        tracker.start().restore({strange + ".": torch.zeros(1)})


def test_predicting_leaves_the_memory_as_it_is(tracker, clip) -> None:
    frames, labels = clip
    propagator = small(tracker).start()
    run(propagator, frames[:3], {0: Masks.from_labels(labels[0])})
    before = {key: tensor.clone() for key, tensor in propagator.state().items()}
    propagator.predict(frames[3])
    after = propagator.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_soft_memory_keeps_probabilities_of_predicted_frames_only(tracker, clip) -> None:
    frames, labels = clip
    for soft in (False, True):
        propagator = with_config(tracker, soft_memory=soft, radius=2).start()
        run(propagator, frames[:3], {0: Masks.from_labels(labels[0])})
        state = propagator.state()
        assert set(state["frames.0.probs"].unique().tolist()) == {0.0, 1.0}
        assert (set(state["frames.2.probs"].unique().tolist()) == {0.0, 1.0}) == (not soft)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 6), st.floats(0.05, 1.0))
def test_the_share_that_fell_outside_is_divided_so_that_the_winner_stays_the_winner(objects: int, share: float) -> None:
    """Giving it to the background would change winners: the official code takes the largest channel as it is."""
    read = share * torch.rand(1 + objects, 5, 6).softmax(dim=0)
    probs = propagator_module._distribution(read)
    assert torch.allclose(probs.sum(dim=0), torch.ones(5, 6), atol=1e-6)
    assert torch.equal(probs.argmax(dim=0), read.argmax(dim=0))


def test_a_cell_that_reads_only_outside_is_background(tracker) -> None:
    probs = propagator_module._distribution(torch.zeros(3, 2, 2))
    assert torch.equal(probs[0], torch.ones(2, 2))


@pytest.mark.parametrize(("gap", "dilation"), [(16, 2), (29, 2), (30, 3), (44, 3), (45, 4), (59, 4), (60, 4), (1000, 4)])
def test_the_dilation_grows_with_the_gap_up_to_four(gap: int, dilation: int) -> None:
    assert search_dilation(gap) == dilation


def test_only_far_references_are_searched() -> None:
    target, key, value = torch.randn(8, 10, 12), torch.randn(8, 10, 12), torch.rand(2, 10, 12)
    near, far = (read_memory(target, [Reference(key, value, gap)], radius=2) for gap in (15, 16))
    assert float((near - far).abs().max()) > 1e-2


@pytest.mark.parametrize("hw", [(48, 64), (45, 61), (46, 63), (1, 1), (4, 5)])
def test_aligned_enlargement_undoes_the_coarse_sampling(hw: tuple[int, int]) -> None:
    maps = torch.rand(2, *hw)
    coarse = to_coarse(maps)
    assert torch.allclose(to_coarse(to_full_size(coarse, hw, aligned=True)), coarse, atol=1e-6)
    assert to_full_size(coarse, hw).shape == maps.shape


def test_aligned_enlargement_does_not_move_a_disc_and_the_official_one_does() -> None:
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
    disc = (((rows - 60) ** 2 + (columns - 80) ** 2) < 900).float()[None]
    for aligned, shift in ((True, 0.0), (False, 1.5)):
        drawn = to_full_size(to_coarse(disc), (120, 160), aligned=aligned)[0] > 0.5
        assert float(rows[drawn].float().mean()) == pytest.approx(60 + shift, abs=0.3)
        assert float(columns[drawn].float().mean()) == pytest.approx(80 + shift, abs=0.3)


def test_both_colour_channels_are_drawn_and_never_lightness() -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = [draw_channel(generator) for _ in range(200)]
    assert set(drawn) == {1, 2}
    assert 70 < drawn.count(1) < 130


def test_a_perfect_reconstruction_costs_nothing_and_the_loss_turns_linear_at_a_twentieth() -> None:
    target = torch.zeros(1, 3, 8, 8)
    for error, expected in ((0.0, 0.0), (0.025, 0.5 * 0.5**2), (0.05, 0.5), (0.5, 9.5)):
        assert float(reconstruction_loss(torch.full((1, 1, 2, 2), error), target, channel=2)) == pytest.approx(expected)


def test_dropping_a_channel_does_not_touch_the_picture() -> None:
    lab = torch.rand(1, 3, 4, 4)
    before = lab.clone()
    drop_channel(lab, 1)
    assert torch.equal(lab, before)
