from collections.abc import Mapping

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.errors import InputError, MaskError, PropagationError
from rotoscope.tracking.rounds import LinearBlend, propagate_round, stretches
from rotoscope.types import Change, Frame, Fuser, Masks

HW, NUM_FRAMES = (4, 12), 8
FRAMES = [Frame(index, torch.full((3, *HW), index, dtype=torch.uint8)) for index in range(NUM_FRAMES)]


class Repeat:
    """Predicts what it last remembered, and notes what it is told."""

    def __init__(self) -> None:
        self.memory: list[tuple[int, Masks, bool]] = []
        self.broken = False

    def predict(self, frame: Frame) -> Masks:
        last = self.memory[-1][1]
        return Masks(last.probs * torch.nan, last.object_ids) if self.broken else Masks(last.probs.clone(), last.object_ids)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        self.memory = [*self.memory, (frame.index, masks, given)]

    def state(self) -> dict[str, Tensor]:
        return {str(position): torch.tensor(position) for position in range(len(self.memory))}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory = self.memory[: len(state)]


class Carrying(Repeat):
    """One that can tell where a change has gone: its maps, marked with the number of the frame."""

    def carry(self, change: Change, frame: Frame) -> Tensor:
        return change.maps + frame.index


class Notes:
    """A fuser that keeps the newer masks, and notes what it was given."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, float, Tensor | None]] = []

    def fuse(self, frame: Frame, earlier: Masks, newer: Masks, *, nearness: float, change: Tensor | None = None) -> Masks:
        self.taken.append((frame.index, nearness, change))
        return newer


def column(x: int, *object_ids: int) -> Masks:
    """Each object one column further right."""
    labels = torch.zeros(HW, dtype=torch.int32)
    for position, object_id in enumerate(object_ids or (1,)):
        labels[:, x + position] = object_id
    return Masks.from_labels(labels, object_ids or (1,))


def run(
    propagator: Repeat, correction: tuple[int, Masks], given: list[int], earlier: Mapping[int, Masks], fuser: Fuser | None = None
) -> dict[int, Masks]:
    return {frame.index: masks for frame, masks in propagate_round(FRAMES, propagator, correction, given=given, earlier=earlier, fuser=fuser)}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.data())
def test_a_round_changes_exactly_the_frames_up_to_the_nearest_given_ones(num_frames: int, data) -> None:
    frames = st.integers(0, num_frames - 1)
    corrected, others = data.draw(frames), data.draw(st.sets(frames, max_size=4))
    forward, backward = stretches(corrected, others | {corrected}, num_frames)
    changed = [*forward.frame_indices, *backward.frame_indices]
    expected = {
        index
        for index in range(num_frames)
        if index != corrected and not any(min(index, corrected) <= other <= max(index, corrected) for other in others - {corrected})
    }
    assert set(changed) == expected
    assert len(changed) == len(expected)
    assert {stretch.stop for stretch in (forward, backward)} - {None} <= others


def test_a_first_round_goes_forwards_then_backwards_and_leaves_the_given_mask_alone() -> None:
    propagator, first = Repeat(), column(3)
    walked = list(propagate_round(FRAMES, propagator, (3, first), given=[3], earlier={}))
    assert [frame.index for frame, _ in walked] == [3, 4, 5, 6, 7, 2, 1, 0]
    assert walked[0][1] is first
    assert propagator.memory == [(3, first, True)]  # the rest was for the walk alone


def test_the_last_frame_of_a_way_is_not_remembered() -> None:
    propagator = Repeat()
    rounds = propagate_round(FRAMES, propagator, (5, column(3)), given=[5], earlier={})
    for frame, _ in rounds:
        if frame.index == 7:
            assert [index for index, _, _ in propagator.memory] == [5, 6]


def test_frames_between_two_given_ones_are_fused_by_nearness() -> None:
    propagator, notes = Repeat(), Notes()
    earlier = run(propagator, (1, column(1)), [1], {})
    results = run(propagator, (5, column(7)), [1, 5], earlier, notes)
    assert sorted(results) == [2, 3, 4, 5, 6, 7]
    assert [(index, nearness) for index, nearness, _ in notes.taken] == [(4, 0.75), (3, 0.5), (2, 0.25)]
    assert all(change is None for _, _, change in notes.taken)


def test_only_frames_with_an_earlier_result_are_fused() -> None:
    notes = Notes()
    results = run(Repeat(), (5, column(7)), [1, 5], {3: column(1)}, notes)
    assert [index for index, _, _ in notes.taken] == [3]
    assert sorted(results) == [2, 3, 4, 5, 6, 7]


def test_the_change_is_that_against_the_masks_before_in_the_order_of_the_objects() -> None:
    notes, propagator = Notes(), Carrying()
    propagator.remember(FRAMES[1], column(0, 1, 2), given=True)
    newer = column(7, 2)
    run(propagator, (3, newer), [1, 3], {2: column(1, 1, 2), 3: column(6, 2)}, notes)
    (_, _, change), *_ = notes.taken
    assert change is not None
    assert change.shape == (1, 2, *HW)
    assert float(change[0, 0, 0, 7]) == 3  # added: column 7, in frame 2
    assert float(change[0, 1, 0, 6]) == 3  # taken away: column 6


def test_objects_that_the_correction_does_not_speak_of_have_not_changed() -> None:
    class Both(Carrying):
        def predict(self, frame: Frame) -> Masks:
            return column(2, 2, 1)

    notes = Notes()
    run(Both(), (3, column(7, 1)), [1, 3], {2: column(1, 1, 2)}, notes)
    (_, _, change), *_ = notes.taken
    assert change is not None
    assert float(change[0].abs().max()) == 0
    assert float(change[1].max()) == 3


def test_stopping_a_walk_leaves_what_was_given_and_nothing_else() -> None:
    propagator = Repeat()
    walk = propagate_round(FRAMES, propagator, (3, column(3)), given=[3], earlier={})
    for frame, _ in walk:
        if frame.index == 5:
            break
    walk.close()
    assert [index for index, _, _ in propagator.memory] == [3]


def test_results_may_be_stored_while_the_walk_goes() -> None:
    propagator, results = Repeat(), {}
    for correction, given_frames in (((1, column(1)), [1]), ((6, column(8)), [1, 6]), ((3, column(5)), [1, 6, 3])):
        for frame, masks in propagate_round(FRAMES, propagator, correction, given=given_frames, earlier=results, fuser=LinearBlend()):
            results[frame.index] = masks
    assert sorted(results) == list(range(8))
    for index, x in ((1, 1), (6, 8), (3, 5)):
        assert torch.equal(results[index].probs, column(x).probs)
    assert torch.equal(results[0].probs, column(1).probs)


def test_numbers_that_are_not_finite_and_frames_that_do_not_exist_end_the_round() -> None:
    propagator = Repeat()
    propagator.broken = True
    with pytest.raises(PropagationError, match="not finite on frame 4"):
        run(propagator, (3, column(3)), [3], {})
    assert [index for index, _, _ in propagator.memory] == [3]
    with pytest.raises(InputError, match="there is no frame 8; the clip has frames 0 to 7"):
        run(Repeat(), (8, column(3)), [8], {})


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1))
def test_the_blend_is_a_distribution_between_both(nearness: float) -> None:
    earlier, newer = (Masks(torch.randn(3, *HW).softmax(dim=0), (4, 2)) for _ in range(2))
    mixed = LinearBlend().fuse(FRAMES[0], earlier, newer, nearness=nearness)
    assert torch.allclose(mixed.probs, earlier.probs * (1 - nearness) + newer.probs * nearness, atol=1e-6)
    same = LinearBlend().fuse(FRAMES[0], earlier.select([2, 4]), newer, nearness=nearness)
    assert torch.allclose(same.probs, mixed.probs, atol=1e-6)


def test_the_blend_leaves_new_objects_as_they_are() -> None:
    earlier, newer = column(1, 4), Masks(torch.randn(3, *HW).softmax(dim=0), (9, 4))
    mixed = LinearBlend().fuse(FRAMES[0], earlier, newer, nearness=0.3)
    assert mixed.object_ids == (9, 4)
    assert torch.allclose(mixed.probs[1], newer.probs[1])
    assert torch.allclose(mixed.probs.sum(dim=0), torch.ones(HW), atol=1e-6)
    assert isinstance(LinearBlend(), Fuser)
    with pytest.raises(MaskError, match="resize the masks"):
        LinearBlend().fuse(FRAMES[0], Masks(torch.ones(1, 3, 3), ()), newer, nearness=0.3)
