from collections.abc import Mapping

import pytest
import torch
from session_parts import HW, RepeatTracker, blank_clip
from torch import Tensor

from rotoscope.errors import MemoryBudgetError, PropagationError
from rotoscope.models.mivos import MivosConfig, MivosTracker
from rotoscope.models.mivos.network import PropagationNetwork
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.tracking.passes import MOST_BEHIND, GivenFrame, PassSource, with_others
from rotoscope.types import Change, Frame, Masks


def column(x: int, *object_ids: int) -> Masks:
    labels = torch.zeros(HW, dtype=torch.int32)
    for position, object_id in enumerate(object_ids or (1,)):
        labels[:, x + position] = object_id
    return Masks.from_labels(labels, object_ids or (1,))


def given_at(index: int, *object_ids: int, key: str = "k") -> GivenFrame:
    return GivenFrame(index, f"{key}{index}", column(3, *object_ids))


def test_a_pass_comes_from_the_given_frames_behind_it_in_travelling_order() -> None:
    tracker, frames = RepeatTracker(), blank_clip(20)
    others = [given_at(index) for index in (2, 15, 8, 17, 0, 4, 6)]
    propagator = PassSource(tracker, frames).for_round(given_at(10), [given_at(10), *others])
    assert tracker.remembered == []
    propagator.remember(frames[10], column(3), given=True)
    state = propagator.state()
    propagator.predict(frames[11])
    assert tracker.remembered == [(index, True) for index in (2, 4, 6, 8, 10)]
    assert MOST_BEHIND == 4
    propagator.restore(state)
    tracker.remembered.clear()
    propagator.predict(frames[9])
    propagator.remember(frames[9], column(3), given=False)
    assert tracker.remembered == [(17, True), (15, True), (10, True), (9, False)]


def test_a_pass_needs_the_corrected_frame_first() -> None:
    propagator = PassSource(RepeatTracker(), blank_clip()).for_round(given_at(3), [given_at(3)])
    with pytest.raises(PropagationError, match="corrected frame"):
        propagator.predict(blank_clip()[4])


class Carrier:
    """A propagator that reads its memory as a set, and notes what is in it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.memory: dict[int, Masks] = {}
        self.fails = fails
        self.remembered: list[int] = []

    def start(self, *, max_memory_bytes: int | None = None, features: object = None) -> "Carrier":
        return self

    def predict(self, frame: Frame) -> Masks:
        return next(reversed(self.memory.values()))

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        if self.fails:
            message = "too little memory"
            raise MemoryBudgetError(message)
        self.remembered.append(frame.index)
        if given:
            self.memory[frame.index] = masks

    def carry(self, change: Change, frame: Frame) -> Tensor:
        return change.maps

    def state(self) -> dict[str, Tensor]:
        return {str(index): torch.zeros(1) for index in self.memory}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.memory = {index: masks for index, masks in self.memory.items() if str(index) in state}


def test_a_tracker_that_reads_a_set_learns_each_given_frame_once() -> None:
    carrier, frames = Carrier(), blank_clip()
    source = PassSource(carrier, frames)
    for corrected, given in ((2, [2]), (6, [2, 6]), (4, [2, 6, 4]), (4, [2, 6, 4])):
        propagator = source.for_round(given_at(corrected), [given_at(index) for index in given])
        propagator.remember(frames[corrected], column(3), given=True)
    assert carrier.remembered == [2, 6, 4, 4]
    assert sorted(carrier.memory) == [2, 4, 6]


def test_what_was_taken_back_or_changed_is_forgotten() -> None:
    carrier, frames = Carrier(), blank_clip()
    source = PassSource(carrier, frames)
    for corrected, given in ((2, [given_at(2)]), (6, [given_at(2), given_at(6)]), (5, [given_at(5), given_at(6)])):
        propagator = source.for_round(given_at(corrected), given)
        propagator.remember(frames[corrected], column(3), given=True)
    assert sorted(carrier.memory) == [5, 6]
    source.for_round(given_at(5), [given_at(5), given_at(6, key="other")])
    assert sorted(carrier.memory) == [6]
    source.for_round(given_at(6, 2), [given_at(6, 2)])  # its object 1 was removed
    assert carrier.memory == {}


def test_a_failure_leaves_no_doubt_about_what_is_remembered() -> None:
    carrier = Carrier(fails=True)
    with InteractiveSession(blank_clip(), carrier) as session:
        session.add_mask(0, 1, torch.ones(HW, dtype=torch.bool))
        with pytest.raises(MemoryBudgetError):
            list(session.propagate())
        carrier.fails = False
        assert len(list(session.propagate())) == 9
        assert carrier.remembered[0] == 0


def test_mivos_sees_no_frame_twice_over_several_rounds() -> None:
    network = PropagationNetwork().eval().requires_grad_(requires_grad=False)
    seen: list[int] = []
    see = network.see
    network.see = lambda image: (seen.append(1), see(image))[1]
    frames = [Frame(index, torch.randint(0, 255, (3, 32, 48), dtype=torch.uint8)) for index in range(4)]
    with InteractiveSession(frames, MivosTracker(network, MivosConfig())) as session:
        for index in (0, 3):
            session.add_mask(index, 1, torch.ones((32, 48)).tril())
            list(session.propagate())
        assert len(seen) <= len(frames)
        assert session.masks(1).object_ids == (1,)


def test_objects_that_the_newer_masks_do_not_list_keep_their_pixels() -> None:
    joined = with_others(column(3), column(5, 2))
    assert joined.object_ids == (1, 2)
    assert [set(joined.labels()[0].nonzero().flatten().tolist())] == [{3, 5}]
    assert torch.allclose(joined.probs.sum(dim=0), torch.ones(HW))
    newer = column(3)
    assert with_others(newer, None) is newer
    assert with_others(newer, column(9, 1)) is newer
