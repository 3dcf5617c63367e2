"""AOT and DeAOT as users meet them: weights, objects, memory and bad input. Parity with the official code is tested in tests/parity."""

import json
from dataclasses import replace

import pytest
import torch
from aot_parity import DATA, OFFICIAL, checkpoint, fresh_network
from torch import Tensor

from rotoscope.errors import CheckpointError, InputError, MaskError, MemoryBudgetError, PropagationError
from rotoscope.models import registry
from rotoscope.models.aot import VARIANTS, AotNetwork, AotPropagator, AotTracker, build, official_names, variants_that_fit
from rotoscope.models.aot.memory import LongTermMemory
from rotoscope.models.aot.stored import Stored
from rotoscope.models.checkpoints import Checkpoint, rename
from rotoscope.nn.looks import LooksSettings
from rotoscope.testing import filled, moving_shapes
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Frame, Masks

RELEASED = [name for name in VARIANTS if name != "deaot-lite"]


@pytest.fixture(autouse=True)
def _on_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the maps are so small that threads only wait for each other
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["aot-t", "deaot-t"])
def tracker(request: pytest.FixtureRequest) -> AotTracker:
    return build(VARIANTS[request.param], checkpoint(request.param), "cpu")


@pytest.fixture(scope="module")
def small() -> AotTracker:
    return build(VARIANTS["aot-t"], checkpoint("aot-t"), "cpu")


def clip(num_frames: int = 4, hw: tuple[int, int] = (48, 64), num_objects: int = 2) -> tuple[list[Frame], Tensor]:
    images, labels = moving_shapes(num_frames=num_frames, hw=hw, num_objects=num_objects)
    return [Frame(index, image) for index, image in enumerate(images)], labels


def run(propagator: AotPropagator, frames: list[Frame], given: dict[int, Masks], **more: bool) -> list[Masks]:
    return [masks for _, masks in propagate(frames, propagator, given, **more)]


def every_fifth_kept(tracker: AotTracker, gap: int) -> AotTracker:
    return AotTracker(tracker.network, replace(tracker.config, long_term_gap=gap))


@pytest.mark.parametrize("name", RELEASED)
def test_every_official_key_becomes_one_of_ours_of_the_same_shape(name):
    keys = json.loads((DATA / "keys.json").read_text(encoding="utf-8"))["models"][OFFICIAL[name]]
    official = {key: torch.empty(entry["shape"], device="meta") for key, entry in keys.items()}
    renamed = rename(Checkpoint(official, name), official_names(VARIANTS[name])).tensors
    with torch.device("meta"):
        ours = AotNetwork(VARIANTS[name]).state_dict()
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in ours.items()}
    assert len(renamed) == len(official)
    same = [other for other in VARIANTS if replace(VARIANTS[other], name=name, long_term_gap=None) == replace(VARIANTS[name], long_term_gap=None)]
    assert variants_that_fit(official) == variants_that_fit(ours) == same


def test_deaot_lite_is_known_by_its_own_keys_and_runs():
    torch.manual_seed(1)
    network = AotNetwork(VARIANTS["deaot-lite"])
    tensors = {key: filled(key, tuple(value.shape), str(value.dtype)) for key, value in network.state_dict().items()}
    assert variants_that_fit(tensors) == ["deaot-lite"]
    tracker = build(VARIANTS["deaot-lite"], Checkpoint(tensors, "ours", official=False, converted=True), "cpu")
    frames, labels = clip()
    assert run(tracker.start(), frames, {0: Masks.from_labels(labels[0])})[-1].object_ids == (1, 2)


@pytest.mark.parametrize("hw", [(48, 64), (900, 1000)])
def test_outlines_follow_the_edges_of_the_frame_where_the_variant_says_so(small, hw, monkeypatch):
    """The network is made to see a square two pixels off the one in the frame, whatever it remembers."""
    image = torch.full((3, *hw), 40, dtype=torch.uint8)
    image[:, 16:32, 16:40] = 220
    off = torch.zeros(11, *hw)
    off[0], off[1, 18:34, 18:42] = 1, 8
    monkeypatch.setattr(AotPropagator, "_upsampled", lambda *_: off)
    truth = Masks.from_labels((image[0] == 220).int())
    plain, followed = (
        run(
            AotTracker(small.network, replace(small.config, edge_radius=radius, long_edge=64)).start(), [Frame(0, image), Frame(1, image)], {0: truth}
        )[1]
        for radius in (0, 6)
    )
    wrong = [int((masks.labels() != truth.labels()).sum()) for masks in (plain, followed)]
    assert wrong[1] <= wrong[0] / 2
    assert torch.allclose(followed.probs.sum(dim=0), torch.ones(hw), atol=1e-4)
    assert float(followed.probs.min()) >= 0


def test_official_variants_leave_outlines_where_the_network_sees_them():
    own = {(VARIANTS[name].edge_radius, VARIANTS[name].looks, VARIANTS[name].stray_share) for name in RELEASED}
    assert own == {(0, None, 0.0)}


@pytest.mark.parametrize("radius", [0, 6])
def test_looks_are_heard_where_the_network_doubts(small, radius, monkeypatch):
    """The network is made to see half an object at every place near a bright square."""
    image = torch.full((3, 64, 80), 40, dtype=torch.uint8)
    image[:, 16:40, 16:48] = 220
    truth = Masks.from_labels((image[0] == 220).int())
    monkeypatch.setattr(AotPropagator, "_upsampled", lambda _, __, ___, hw, ____: torch.zeros(2, *hw))
    tracker = AotTracker(small.network, replace(small.config, looks=LooksSettings(), edge_radius=radius))
    masks = run(tracker.start(), [Frame(0, image), Frame(1, image)], {0: truth})[1]
    assert masks.hw == (64, 80)
    assert float((masks.labels() == truth.labels()).float().mean()) > 0.95


def test_parts_that_are_small_beside_the_largest_are_dropped_where_the_variant_says_so(small, monkeypatch):
    logits = torch.zeros(2, 64, 80)
    logits[0] = 1
    logits[1, 10:40, 10:40] = logits[1, 50:54, 60:64] = 9
    monkeypatch.setattr(AotPropagator, "_upsampled", lambda *_: logits)
    frame = Frame(1, torch.full((3, 64, 80), 90, dtype=torch.uint8))
    truth = Masks.from_labels((logits[1] > 0).int())
    seen = [
        run(AotTracker(small.network, replace(small.config, stray_share=share)).start(), [replace(frame, index=0), frame], {0: truth})[1].labels()
        for share in (0.0, 0.1)
    ]
    assert [int(labels[50:54, 60:64].sum()) for labels in seen] == [16, 0]
    assert torch.equal(seen[1][10:40, 10:40], seen[0][10:40, 10:40])


def test_looks_are_part_of_the_state(small):
    frames, labels = clip(8, num_objects=2)
    tracker = AotTracker(small.network, replace(small.config, looks=LooksSettings()))
    given = {0: Masks.from_labels(labels[0])}
    whole = run(tracker.start(), frames, given)
    before, after = tracker.start(), tracker.start()
    run(before, frames[:4], given)
    after.restore(before.state())
    assert all(torch.equal(a.probs, b.probs) for a, b in zip(whole[4:], run(after, frames[4:], {}, resumed=True), strict=True))
    damaged = {name: tensor for name, tensor in before.state().items() if not name.endswith("second")}
    with pytest.raises(InputError, match="not the state of a pass"):
        tracker.start().restore(damaged)


def test_the_lite_encoder_keeps_its_statistics_while_training():
    network = AotNetwork(VARIANTS["deaot-lite"]).train()
    network.encoder.freeze_early()
    before = {key: value.clone() for key, value in network.encoder.state_dict().items()}
    network.see(torch.randn(1, 3, 33, 33))
    assert all(torch.equal(value, before[key]) for key, value in network.encoder.state_dict().items() if "running" in key)
    folded = AotNetwork(VARIANTS["deaot-lite"])
    folded.load_state_dict(network.state_dict())
    image = torch.randn(1, 3, 33, 33)
    expected = [maps.clone() for maps in folded.eval().encoder(image)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(folded.encoder.fold()(image), expected, strict=True))


def test_weights_of_another_variant_are_refused_by_name():
    with pytest.raises(CheckpointError, match="weights of DeAOT with 1 layers on mobilenet-v2, not of 'aot-t'; use --model deaot-t"):
        build(VARIANTS["aot-t"], checkpoint("deaot-t"), "cpu")


def test_weights_of_another_system_are_refused():
    with pytest.raises(CheckpointError, match="no weights of AOT or DeAOT"):
        build(VARIANTS["aot-t"], Checkpoint({"conv.weight": torch.ones(1)}, "f"), "cpu")


@pytest.mark.parametrize("fault", ["missing", "extra", "reshaped", "not finite"])
def test_damaged_weights_are_refused_with_the_entry_at_fault(fault):
    tensors = dict(checkpoint("aot-t").tensors)
    if fault == "missing":
        del tensors["LSTT.layers.0.linear_Q.weight"]
        expected = r"lacks layers\.0\.to_key\.weight"
    elif fault == "extra":
        tensors["LSTT.layers.0.linear_Z.weight"] = torch.ones(1)
        expected = r"LSTT\.layers\.0\.linear_Z\.weight"
    elif fault == "reshaped":
        tensors["LSTT.layers.0.linear_Q.weight"] = torch.ones(3, 3)
        expected = r"\[3, 3\] instead of \[256, 256\]"
    else:
        tensors["LSTT.layers.0.linear_Q.weight"] = torch.full((256, 256), torch.nan)
        expected = "not finite"
    with pytest.raises(CheckpointError, match=expected):
        build(VARIANTS["aot-t"], Checkpoint(tensors, "f"), "cpu")


def test_the_registry_knows_the_released_files_of_every_variant():
    for name in RELEASED:
        spec = registry.spec_of(name)
        assert spec.module == "aot"
        if spec.official_files:
            assert spec.official_files[0].lower().replace("_", "") == f"{name.replace('-', '')}preytbdav.pth"


def test_any_ids_work_and_keep_their_place(tracker):
    frames, labels = clip()
    plain = run(tracker.start(), frames, {0: Masks.from_labels(labels[0])})
    renumbered = torch.where(labels[0] == 1, 900, torch.where(labels[0] == 2, 65535, 0)).int()
    other = run(tracker.start(), frames, {0: Masks.from_labels(renumbered)})
    assert other[-1].object_ids == (900, 65535)
    assert torch.equal(other[-1].probs, plain[-1].probs)


def test_the_picture_of_a_frame_is_computed_once(tracker, monkeypatch):
    frames, labels = clip()
    calls = []
    picture_of = tracker.network.picture_of
    monkeypatch.setattr(tracker.network, "picture_of", lambda maps: calls.append(1) or picture_of(maps))
    run(tracker.start(), frames, {0: Masks.from_labels(labels[0], range(1, 13))})
    assert len(calls) == len(frames)


def test_predicting_changes_nothing(tracker):
    frames, labels = clip()
    propagator = tracker.start()
    run(propagator, frames[:2], {0: Masks.from_labels(labels[0])})
    before = propagator.state()
    first = propagator.predict(frames[2])
    propagator.predict(frames[3])
    assert torch.equal(propagator.predict(frames[2]).probs, first.probs)
    after = propagator.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_removed_object_leaves_and_comes_back_to_its_identity(small):
    frames, labels = clip(6)
    propagator = small.start()
    run(propagator, frames[:2], {0: Masks.from_labels(labels[0])})
    propagator.remember(frames[2], propagator.predict(frames[2]).select([2]), given=False)
    assert propagator.predict(frames[3]).object_ids == (2,)
    propagator.remember(frames[3], Masks.from_labels(labels[3], (2, 1)), given=True)
    assert propagator.predict(frames[4]).object_ids == (2, 1)
    assert propagator.state()["slots"].tolist() == [1, 2]


def test_an_object_that_is_out_of_sight_for_long_stays_known(small):
    frames, labels = clip(1)
    absent = Masks.from_labels(torch.zeros_like(labels[0]), (1, 2))
    propagator = small.start()
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    for index in range(1, 101):
        propagator.remember(Frame(index, frames[0].image), absent, given=False)
    returned = propagator.predict(Frame(101, frames[0].image))
    assert returned.object_ids == (1, 2)
    assert propagator.long_term_frames == [1]


def test_a_reference_without_objects_predicts_background_until_one_is_given(small):
    frames, labels = clip()
    nothing = Masks.from_labels(torch.zeros_like(labels[0]))
    results = run(small.start(), frames, {0: nothing, 2: Masks.from_labels(labels[2])})
    assert results[1].object_ids == ()
    assert torch.equal(results[1].probs, torch.ones(1, 48, 64))
    assert results[3].object_ids == (1, 2)


@pytest.mark.parametrize("name", ["deaot-lite", "mast-lite"])
def test_what_ships_goes_on_without_objects(name):
    frames, labels = clip()
    propagator = registry.load(name, device="cpu").start()
    propagator.remember(frames[0], Masks.from_labels(torch.zeros_like(labels[0])), given=True)
    assert torch.equal(propagator.predict(frames[1]).labels(), torch.zeros(48, 64, dtype=torch.int32))
    propagator.remember(frames[1], Masks.from_labels(labels[1]), given=True)
    masks = propagator.predict(frames[2])
    assert masks.object_ids == (1, 2)
    propagator.remember(frames[2], Masks.from_labels(torch.zeros_like(labels[0])), given=False)
    assert propagator.predict(frames[3]).hw == (48, 64)


def test_two_hundred_objects_are_followed_in_twenty_groups(small):
    frames, _ = clip(2, (32, 32))
    labels = torch.zeros(32, 32, dtype=torch.int32)
    labels[:20] = torch.arange(1, 641).view(20, 32).clamp(max=200).int()
    propagator = small.start()
    last = run(propagator, frames, {0: Masks.from_labels(labels)})[-1]
    assert last.object_ids == tuple(range(1, 201))
    assert len(propagator.long_term_frames) == 20
    assert torch.allclose(last.probs.sum(dim=0), torch.ones(32, 32), atol=1e-4)


@pytest.mark.parametrize("hw", [(16, 16), (1, 1), (37, 53), (16, 300)])
def test_frames_smaller_than_the_window_work(tracker, hw):
    frames, labels = clip(3, hw, 1)
    first = labels[0].clone()
    first[hw[0] // 2, hw[1] // 2] = 1
    assert run(tracker.start(), frames, {0: Masks.from_labels(first)})[-1].hw == hw


def test_4k_frames_are_shrunk_to_the_long_edge(small):
    image = torch.zeros(3, 2160, 3840, dtype=torch.uint8)
    tracker = AotTracker(small.network, replace(small.config, long_edge=160))
    propagator = tracker.start(max_memory_bytes=2**20)
    labels = torch.zeros(2160, 3840, dtype=torch.int32)
    labels[900:1200, 1500:2300] = 5
    propagator.remember(Frame(0, image), Masks.from_labels(labels), given=True)
    assert propagator.predict(Frame(1, image)).hw == (2160, 3840)


def test_a_change_of_size_or_a_wrong_mask_is_a_clear_error(small):
    frames, labels = clip()
    propagator = small.start()
    run(propagator, frames[:2], {0: Masks.from_labels(labels[0])})
    other = Frame(2, torch.zeros(3, 50, 64, dtype=torch.uint8))
    with pytest.raises(InputError, match="frame 2 is 64x50 but the clip started with 64x48"):
        propagator.predict(other)
    with pytest.raises(InputError, match="cut the clip"):
        propagator.remember(other, Masks.from_labels(torch.zeros(50, 64, dtype=torch.int32)), given=True)
    with pytest.raises(MaskError, match="resize the masks"):
        propagator.remember(frames[2], Masks.from_labels(torch.zeros(8, 8, dtype=torch.int32)), given=True)
    assert propagator.predict(frames[2]).object_ids == (1, 2)


def test_predicting_before_anything_is_remembered_is_an_error(small):
    with pytest.raises(PropagationError, match="before a frame with masks is remembered"):
        small.start().predict(clip(1)[0][0])


def test_numbers_that_are_not_finite_stop_the_loop_and_name_the_frame():
    network = fresh_network(VARIANTS["aot-t"])
    with torch.no_grad():
        network.decoder.leave.bias.fill_(torch.nan)
    frames, labels = clip()
    done = []
    with pytest.raises(PropagationError, match="not finite on frame 1"):
        done.extend(propagate(frames, AotTracker(network, VARIANTS["aot-t"]).start(), {0: Masks.from_labels(labels[0])}))
    assert [frame.index for frame, _ in done] == [0]


def test_a_pass_in_pieces_gives_what_the_whole_gives(tracker):
    frames, labels = clip(8)
    tracker = every_fifth_kept(tracker, 2)
    first = {0: Masks.from_labels(labels[0])}
    whole = run(tracker.start(), frames, first)
    before, after = tracker.start(), tracker.start()
    run(before, frames[:4], first)
    state = before.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    after.restore(state)
    pieces = run(after, frames[4:], {}, resumed=True)
    assert all(torch.equal(a.probs, b.probs) for a, b in zip(whole[4:], pieces, strict=True))
    assert all(torch.equal(state[name], kept[name]) for name in state)


def test_states_of_something_else_are_refused(small):
    frames, labels = clip(2)
    with pytest.raises(InputError, match="not the state of a pass of aot-t"):
        small.start().restore({"frames": torch.ones(1)})
    two_layers = build(VARIANTS["aot-s"], checkpoint("aot-s"), "cpu").start()
    run(two_layers, frames, {0: Masks.from_labels(labels[0])})
    with pytest.raises(InputError, match="2 of 1 layers"):
        small.start().restore(two_layers.state())
    fresh = small.start()
    fresh.restore(small.start().state())
    with pytest.raises(PropagationError):
        fresh.predict(frames[0])


def test_remembering_a_frame_again_replaces_it(small):
    frames, labels = clip(3)
    propagator = every_fifth_kept(small, 1).start()
    run(propagator, frames[:2], {0: Masks.from_labels(labels[0])})
    propagator.remember(frames[1], Masks.from_labels(labels[1]), given=True)
    assert propagator.long_term_frames == [2]
    assert [frame.given for frame in propagator._groups[0].long_term.frames] == [True, True]


def stored_bytes(propagator: AotPropagator) -> int:
    return sum(
        tensor.numel() * tensor.element_size()
        for group in propagator._groups
        for tensor in (*group.long_term._keys, *group.long_term._values, *(part for layer in group.short_term for part in layer))
    )


def test_memory_stays_within_the_budget_and_keeps_what_was_given(small):
    frames, labels = clip(40, (32, 32))
    per_frame = 2 * 256 * 9 * 4  # key and value of 3 x 3 cells
    propagator = every_fifth_kept(small, 1).start(max_memory_bytes=6 * per_frame)
    given = {0: Masks.from_labels(labels[0]), 20: Masks.from_labels(labels[20], (1, 2))}
    sizes = [(propagator.long_term_frames, stored_bytes(propagator)) for _ in propagate(frames, propagator, given)]
    assert max(used for _, used in sizes) <= 6 * per_frame
    assert sizes[-1][0] == [5]
    kept = propagator._groups[0].long_term.frames
    assert {frame.step for frame in kept if frame.given} == {0, 20}
    assert {39, 38} & {frame.step for frame in kept}


def test_a_variant_may_bound_its_memory_itself_and_keeps_all_that_was_given(small):
    frames, labels = clip(12, (32, 32))
    tracker = AotTracker(small.network, replace(small.config, long_term_gap=1, long_term_frames=4))
    given = {index: Masks.from_labels(labels[index]) for index in (0, 6)}
    propagator = tracker.start()
    assert max(propagator.long_term_frames[0] for _ in propagate(frames, propagator, given)) == 4
    kept = propagator._groups[0].long_term.frames
    assert {frame.step for frame in kept if frame.given} == {0, 6}
    assert 11 in {frame.step for frame in kept}
    assert any(frame.attention != 1 for frame in kept)  # it is measured, for it decides who stays
    many = tracker.start()
    list(propagate(frames, many, {index: Masks.from_labels(one) for index, one in enumerate(labels)}))
    assert many.long_term_frames == [12]


def test_a_bounded_memory_is_taken_up_where_it_was_left(small):
    frames, labels = clip(12, (32, 32))
    tracker = AotTracker(small.network, replace(small.config, long_term_gap=1, long_term_frames=4))
    given = {0: Masks.from_labels(labels[0])}
    whole = run(tracker.start(), frames, given)
    first, second = tracker.start(), tracker.start()
    run(first, frames[:7], given)
    second.restore(first.state())
    assert [torch.equal(one.probs, other.probs) for one, other in zip(run(second, frames[7:], {}, resumed=True), whole[7:], strict=True)] == [
        True
    ] * 5


def test_a_new_group_takes_its_share_of_the_budget(small):
    frames, labels = clip(14, (32, 32))
    per_frame = 2 * 256 * 9 * 4
    propagator = every_fifth_kept(small, 1).start(max_memory_bytes=12 * per_frame)
    eleven = Masks.from_labels(labels[8], range(1, 12))
    list(propagate(frames, propagator, {0: Masks.from_labels(labels[0]), 8: eleven}))
    assert stored_bytes(propagator) <= 12 * per_frame
    assert propagator.long_term_frames == [5, 5]


def test_given_frames_over_the_budget_are_an_error_that_says_how_much_they_need(small):
    frames, labels = clip(4, (32, 32))
    propagator = small.start(max_memory_bytes=4 * 256 * 9 * 4 + 1)
    propagator.remember(frames[0], Masks.from_labels(labels[0]), given=True)
    with pytest.raises(MemoryBudgetError, match="raise the budget"):
        propagator.remember(frames[1], Masks.from_labels(labels[1]), given=True)
    with pytest.raises(InputError, match="holds nothing"):
        small.start(max_memory_bytes=0)


def one_layer(value: float) -> list[Stored]:
    return [Stored(torch.full((1, 2, 3), value), torch.full((1, 2, 4), value))]


def test_the_least_attended_of_the_older_frames_makes_room():
    memory = LongTermMemory()
    for step in range(5):
        memory.add(step, one_layer(float(step)), given=step == 0, most_frames=5)
    memory.note_attention([0.2, 0.3, 0.0, 0.25, 0.25])
    memory.add(5, one_layer(5.0), given=False, most_frames=5)
    assert sorted(frame.step for frame in memory.frames) == [0, 1, 3, 4, 5]
    assert sorted(memory.layer(0).key[0, ::2, 0].tolist()) == [0.0, 1.0, 3.0, 4.0, 5.0]
    memory.shrink(3)
    assert {frame.step for frame in memory.frames} == {0, 1, 5}
    assert sorted(memory.layer(0).value[0, ::2, 0].tolist()) == [0.0, 1.0, 5.0]


def test_memory_without_room_for_predicted_frames_keeps_the_given_ones():
    memory = LongTermMemory()
    memory.add(0, one_layer(0.0), given=True, most_frames=1)
    memory.add(1, one_layer(1.0), given=False, most_frames=1)
    assert [frame.step for frame in memory.frames] == [0]
    memory.add(2, one_layer(2.0), given=True, most_frames=1)
    assert [frame.step for frame in memory.frames] == [0, 2]


def test_reduced_precision_changes_little(tracker):
    frames, labels = clip(3)
    first = {0: Masks.from_labels(labels[0])}
    reduced = AotTracker(tracker.network, replace(tracker.config, precision="bfloat16"))
    exact, rounded = (run(each.start(), frames, first)[-1] for each in (tracker, reduced))
    assert 0 < float((exact.probs - rounded.probs).abs().max()) < 0.1


def test_compiling_is_asked_for_by_the_configuration(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function.__name__) or function)
    build(replace(VARIANTS["aot-t"], compile=True), checkpoint("aot-t"), "cpu")
    assert compiled == ["see", "decode"]


def test_folding_the_normalisations_changes_nothing_but_rounding(small):
    image = torch.randn(1, 3, 49, 65)
    plain = fresh_network(VARIANTS["aot-t"]).see(image)
    folded = small.network.see(image)
    assert torch.allclose(plain.embedding, folded.embedding, atol=1e-4)


def test_another_scale_shares_the_weights(small):
    larger = small.at_scale(2.0)
    assert larger.network is small.network
    frames, labels = clip(2)
    assert run(larger.start(), frames, {0: Masks.from_labels(labels[0])})[-1].hw == (48, 64)
