from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.tracking.ensemble import EnsembleTracker
from rotoscope.types import Frame, Masks, Propagator, Tracker


@dataclass
class Echo:
    """Predicts that the object is where the frame is brightest in the first column, and notes what it is told."""

    weight: float
    budget: int | None
    remembered: list[tuple[Masks, bool]] = field(default_factory=list)

    def predict(self, frame: Frame) -> Masks:
        bright = frame.image[0].float() / 255 * self.weight
        return Masks(torch.stack((1 - bright, bright)), (7,))

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        self.remembered.append((masks, given))

    def state(self) -> dict[str, Tensor]:
        return {"weight": torch.tensor(self.weight)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.weight = float(state["weight"])


@dataclass
class EchoTracker:
    weight: float
    started: list[Echo] = field(default_factory=list)

    def start(self, *, max_memory_bytes: int | None = None, features: object = None) -> Echo:
        self.started.append(Echo(self.weight, max_memory_bytes))
        return self.started[-1]


@pytest.fixture
def frame() -> Frame:
    image = torch.zeros(3, 2, 4, dtype=torch.uint8)
    image[:, :, 0] = 255
    return Frame(0, image)


def test_an_ensemble_is_a_tracker_and_its_pass_a_propagator():
    ensemble = EnsembleTracker([EchoTracker(1.0)])
    assert isinstance(ensemble, Tracker)
    assert isinstance(ensemble.start(), Propagator)


def test_probabilities_are_averaged_in_the_frames_own_direction(frame):
    ensemble = EnsembleTracker([EchoTracker(1.0), EchoTracker(0.5)], mirrored=True).start()
    assert ensemble.predict(frame).probs[1].tolist() == [[0.75, 0, 0, 0]] * 2


def test_each_member_remembers_its_own_view_of_its_own_masks(frame):
    trackers = [EchoTracker(1.0), EchoTracker(0.5)]
    ensemble = EnsembleTracker(trackers, mirrored=True).start()
    ensemble.remember(frame, ensemble.predict(frame), given=False)
    masks, given = trackers[1].started[1].remembered[0]
    assert masks.probs[1].tolist() == [[0, 0, 0, 0.5]] * 2
    assert not given


def test_given_masks_go_to_all_members_and_the_average_where_asked_for(frame):
    trackers = [EchoTracker(1.0), EchoTracker(0.5)]
    for own_masks, is_given in ((True, True), (False, False)):
        ensemble = EnsembleTracker(trackers, own_masks=own_masks).start()
        average = ensemble.predict(frame)
        ensemble.remember(frame, average, given=is_given)
        assert all(torch.equal(tracker.started[-1].remembered[0][0].probs, average.probs) for tracker in trackers)


def test_the_budget_is_shared_out():
    tracker = EchoTracker(1.0)
    EnsembleTracker([tracker], mirrored=True).start(max_memory_bytes=100)
    assert [member.budget for member in tracker.started] == [50, 50]


def test_state_and_restore_reach_every_member(frame):
    ensemble = EnsembleTracker([EchoTracker(1.0), EchoTracker(0.5)])
    other = EnsembleTracker([EchoTracker(0.0), EchoTracker(0.0)]).start()
    other.restore(ensemble.start().state())
    assert torch.equal(other.predict(frame).probs, ensemble.start().predict(frame).probs)


def test_an_empty_ensemble_is_refused():
    with pytest.raises(InputError, match="one or more"):
        EnsembleTracker([])
