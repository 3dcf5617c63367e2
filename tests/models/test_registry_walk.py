"""What every tracker and every detector of the registry must do, whatever its name: a new row is tested by being there."""

from functools import cache
from pathlib import Path

import pytest
import torch

from rotoscope.errors import MemoryBudgetError, PropagationError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, read_checkpoint, rename, write_checkpoint
from rotoscope.testing import moving_shapes, official_weights
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Detections, Detector, Frame, Masks, Propagator, Tracker

PARITY_DATA = Path(__file__).resolve().parents[1] / "parity" / "data"
KEYS = {
    "mast": (PARITY_DATA / "mast" / "keys.json", "mast"),
    "aot-t": (PARITY_DATA / "aot" / "keys.json", "aott"),
    "deaot-t": (PARITY_DATA / "aot" / "keys.json", "deaott"),
    "rgmp": (PARITY_DATA / "rgmp" / "keys.json", "rgmp"),
    "mivos": (PARITY_DATA / "mivos" / "keys.json", "propagation"),
    "yolact-resnet50": (PARITY_DATA / "yolact" / "keys.json", "yolact_resnet50"),
}
SETTINGS = {"rgmp": {"scales": (0.25,), "always_pad": False}, "yolact-resnet50": {"image_size": 96}}
"""What makes a model cheap enough for so many frames."""
TRACKERS = [spec.name for spec in registry.list_models("track") if spec.shipped or spec.name in KEYS]
"""Others are the same code with more or wider layers; tests of their own build and run them."""
DETECTORS = [spec.name for spec in registry.list_models("detect") if spec.shipped or spec.name in KEYS]


@cache
def checkpoint_of(name: str) -> Checkpoint:
    """The weights that ship, or synthetic ones under the official names."""
    path = registry.SHIPPED_WEIGHTS / f"{name}.safetensors"
    return read_checkpoint(path) if path.is_file() else Checkpoint(official_weights(*KEYS[name]), f"synthetic {name}")


@pytest.fixture(scope="module", params=TRACKERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tracker(name: str) -> Tracker:
    return registry.build(registry.spec_of(name), checkpoint_of(name), device="cpu", settings=SETTINGS.get(name))


@pytest.fixture(scope="module")
def clip() -> tuple[list[Frame], Masks]:
    images, labels = moving_shapes(num_frames=7, hw=(64, 80), num_objects=2)
    return [Frame(index, image) for index, image in enumerate(images)], Masks.from_labels(labels[0])


def run(propagator: Propagator, frames: list[Frame], given: dict[int, Masks], **more: bool) -> list[Masks]:
    return [masks for _, masks in propagate(frames, propagator, given, **more)]


def test_it_satisfies_the_protocols(tracker: Tracker) -> None:
    assert isinstance(tracker, Tracker)
    assert isinstance(tracker.start(), Propagator)


def test_it_gives_a_distribution_over_the_objects_of_each_frame(tracker, clip) -> None:
    frames, first = clip
    for masks in run(tracker.start(), frames, {0: first}):
        assert masks.object_ids == first.object_ids
        assert masks.hw == frames[0].hw
        assert torch.allclose(masks.probs.sum(dim=0), torch.ones(frames[0].hw), atol=1e-4)
        assert float(masks.probs.min()) >= 0


def test_a_session_carries_corrections_both_ways_and_objects_that_join_later(tracker, clip) -> None:
    frames, first = clip
    with InteractiveSession(frames[:5], tracker) as session:
        for index, object_id in ((2, 1), (0, 1), (4, 2)):
            session.add_mask(index, object_id, first.labels() == object_id)
            given = {one: session.masks(one).probs for one in session.given_frames}
            reached = [step.frame.index for step in session.propagate()]
            assert all(torch.equal(session.masks(one).probs, probs) for one, probs in given.items())
        assert reached == [4, 3]
        assert session.masks(3).object_ids == (1, 2)
        assert session.masks(1).object_ids == (1,)
        before = session.masks(3).probs
        session.undo()
        session.redo()
        assert torch.equal(session.masks(3).probs, before)


def test_predicting_twice_gives_the_same(tracker, clip) -> None:
    frames, first = clip
    propagator = tracker.start()
    run(propagator, frames[:3], {0: first})
    assert torch.equal(propagator.predict(frames[3]).probs, propagator.predict(frames[3]).probs)


def test_a_clip_in_pieces_gives_what_the_whole_gives(tracker, clip) -> None:
    frames, first = clip
    whole = run(tracker.start(), frames, {0: first})
    before = tracker.start()
    run(before, frames[:4], {0: first})
    after = tracker.start()
    after.restore(before.state())
    pieces = run(after, frames[4:], {}, resumed=True)
    assert all(torch.equal(a.probs, b.probs) for a, b in zip(whole[4:], pieces, strict=True))


def test_its_weights_survive_a_round_trip_through_our_format(name, tracker, clip, tmp_path: Path) -> None:
    frames, first = clip
    spec, checkpoint = registry.spec_of(name), checkpoint_of(name)
    rules = registry.official_names(spec)
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, rename(checkpoint, rules).tensors, model=name, official=checkpoint.official)
    again = registry.build(spec, read_checkpoint(path), device="cpu", settings=SETTINGS.get(name))
    given = {0: first}
    assert torch.equal(run(again.start(), frames[:3], given)[-1].probs, run(tracker.start(), frames[:3], given)[-1].probs)


def test_a_backward_pass_mirrors_a_forward_one(tracker, clip) -> None:
    frames, first = clip
    forward = run(tracker.start(), frames, {0: first})
    mirrored = [Frame(6 - frame.index, frame.image) for frame in frames]
    backward = run(tracker.start(), mirrored, {6: first})
    assert all(torch.equal(a.probs, b.probs) for a, b in zip(forward, backward, strict=True))


def test_a_new_object_mid_clip_is_followed_from_there(tracker, clip) -> None:
    frames, first = clip
    newcomer = torch.zeros(frames[0].hw, dtype=torch.int32)
    newcomer[50:60, 60:75] = 77
    results = run(tracker.start(), frames, {0: first, 3: Masks.from_labels(newcomer)})
    assert results[2].object_ids == first.object_ids
    assert results[3].object_ids == (*first.object_ids, 77)
    assert torch.equal(results[3].labels() == 77, newcomer == 77)
    assert results[6].object_ids == (*first.object_ids, 77)


@pytest.mark.parametrize("labels", ["one pixel", "full frame", "fifty objects"])
def test_extreme_masks_give_finite_distributions(tracker, clip, labels: str) -> None:
    frames, _ = clip
    first = torch.zeros(frames[0].hw, dtype=torch.int32)
    if labels == "one pixel":
        first[20, 30] = 1
    elif labels == "full frame":
        first[:] = 9
    else:
        first[:50, :50] = torch.arange(1, 51)[:, None].expand(50, 50) * 3
    for masks in run(tracker.start(), frames[:3], {0: Masks.from_labels(first)}):
        assert bool(torch.isfinite(masks.probs).all())
        assert torch.allclose(masks.probs.sum(dim=0), torch.ones(frames[0].hw), atol=1e-4)


@pytest.mark.parametrize("hw", [(16, 16), (37, 53), (16, 200)])
def test_small_and_odd_frames_work(tracker, hw: tuple[int, int]) -> None:
    images, labels = moving_shapes(num_frames=3, hw=hw, num_objects=1)
    frames = [Frame(index, image) for index, image in enumerate(images)]
    first = labels[0].clone()
    first[hw[0] // 2, hw[1] // 2] = 1
    assert run(tracker.start(), frames, {0: Masks.from_labels(first)})[-1].hw == hw


def test_predicting_before_anything_is_remembered_is_an_error(tracker, clip) -> None:
    with pytest.raises(PropagationError, match="remember"):
        tracker.start().predict(clip[0][0])


def test_a_budget_holds_given_frames_and_refuses_what_cannot_fit(tracker, clip) -> None:
    frames, first = clip
    assert len(run(tracker.start(max_memory_bytes=64 * 2**20), frames, {0: first})) == len(frames)
    with pytest.raises(MemoryBudgetError, match="raise the budget"):
        run(tracker.start(max_memory_bytes=10), frames, {0: first})


def test_every_module_with_a_tracker_is_walked():
    assert {registry.spec_of(name).module for name in TRACKERS} == {spec.module for spec in registry.list_models("track")}


@pytest.fixture(scope="module", params=DETECTORS)
def finder(request: pytest.FixtureRequest) -> tuple[str, Detector]:
    name = request.param
    return name, registry.build(registry.spec_of(name), checkpoint_of(name), device="cpu", settings=SETTINGS.get(name))


def same(first: Detections, second: Detections) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("boxes", "scores", "class_ids", "masks"))


@pytest.mark.parametrize("hw", [(64, 80), (37, 53), (1, 1), (16, 200)])
def test_detections_are_valid_and_the_same_again(finder, hw: tuple[int, int]) -> None:
    detector, frame = finder[1], Frame(0, moving_shapes(num_frames=1, hw=hw, num_objects=1)[0][0])
    assert isinstance(detector, Detector)
    found = detector.detect(frame)
    assert found.masks.shape == (len(found.scores), *hw)
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert bool(((found.boxes >= 0) & (found.boxes <= torch.tensor([hw[1], hw[0], hw[1], hw[0]]))).all())
    assert same(found, detector.detect(frame))


def test_the_weights_of_detectors_survive_a_round_trip_through_our_format(finder, clip, tmp_path: Path) -> None:
    name, detector = finder
    checkpoint, path = checkpoint_of(name), tmp_path / "w.safetensors"
    renamed = rename(checkpoint, registry.official_names(registry.spec_of(name)))
    write_checkpoint(path, renamed.tensors, model=name, official=checkpoint.official)
    again = registry.load_detector(name, weights=path, device="cpu", **SETTINGS.get(name, {}))
    assert same(again.detect(clip[0][0]), detector.detect(clip[0][0]))


def test_every_module_with_a_detector_is_walked():
    assert {registry.spec_of(name).module for name in DETECTORS} == {spec.module for spec in registry.list_models("detect")}
