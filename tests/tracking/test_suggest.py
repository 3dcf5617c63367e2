import random
from collections.abc import Mapping

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from session_parts import HW, blank_clip
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.tracking.suggest import MaskFacts, facts_of, suggest
from rotoscope.types import Frame, Masks

NUM_FRAMES, CORRECTIONS = 30, 3


def calm(num_frames: int, doubts: Mapping[int, float]) -> dict[int, MaskFacts]:
    return {index: MaskFacts(doubts.get(index, 0.01), {1: 100}) for index in range(num_frames)}


def disc(x: float, softness: float = 0.1) -> Masks:
    rows, columns = torch.meshgrid(torch.arange(HW[0]), torch.arange(HW[1]), indexing="ij")
    inside = torch.sigmoid((6 - ((rows - 12) ** 2 + (columns - x) ** 2).sqrt()) / softness)
    return Masks(torch.stack((1 - inside, inside)), (1,))


class Slipping:
    """Follows a disc, but slips off it at a few frames of the clip, and is then less sure of what it sees; a given mask puts it right."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.truth = [8 + 24 * index / NUM_FRAMES for index in range(NUM_FRAMES)]
        self.slips = [0.03] * NUM_FRAMES
        for _ in range(3):
            self.slips[chance.randrange(2, NUM_FRAMES - 1)] = chance.uniform(3, 7)
        self.error = 0.0

    def start(self, *, max_memory_bytes: int | None = None, features: object = None) -> "Slipping":
        return self

    def predict(self, frame: Frame) -> Masks:
        self.error += self.slips[frame.index]
        return disc(self.truth[frame.index] + self.error, 0.1 + 0.3 * self.error)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        self.error = 0.0 if given else self.error

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        del state


def quality_after_corrections(seed: int, *, uniform: bool) -> float:
    """Mean IoU over the clip after a user gave the first frame, and the truth for a few more."""
    tracker = Slipping(seed)
    evenly = [round((number + 0.5) * NUM_FRAMES / CORRECTIONS) for number in range(CORRECTIONS)]
    with InteractiveSession(blank_clip(NUM_FRAMES), tracker) as session:
        for number in range(CORRECTIONS + 1):
            index = 0 if number == 0 else evenly[number - 1] if uniform else session.suggest_frames(1)[0]
            session.add_mask(index, 1, disc(tracker.truth[index]).labels() == 1)
            list(session.propagate())
        return sum(iou(session.masks(index), disc(tracker.truth[index])) for index in range(NUM_FRAMES)) / NUM_FRAMES


def iou(one: Masks, other: Masks) -> float:
    first, second = one.labels() == 1, other.labels() == 1
    return float((first & second).sum() / (first | second).sum())


def test_suggested_frames_are_worth_more_than_evenly_spread_ones() -> None:
    seeds = range(3)
    suggested, even = ([quality_after_corrections(seed, uniform=uniform) for seed in seeds] for uniform in (False, True))
    assert sum(suggested) / len(suggested) > sum(even) / len(even) + 0.03
    assert sum(one > other for one, other in zip(suggested, even, strict=True)) == 3


def test_the_frame_in_most_doubt_comes_first_and_the_next_lies_elsewhere() -> None:
    facts = calm(40, {10: 0.6, 11: 0.58, 12: 0.5, 30: 0.4})
    assert suggest(facts, [0], 40, 2) == [10, 30]


def test_an_object_that_jumps_in_size_is_in_doubt() -> None:
    facts = calm(20, {}) | {13: MaskFacts(0.01, {1: 20})}
    assert suggest(facts, [0], 20, 1) == [13]
    assert suggest(calm(20, {}) | {13: MaskFacts(0.01, {})}, [0], 20, 1) == [13]


def test_frames_without_masks_are_in_the_greatest_doubt_and_distance_breaks_ties() -> None:
    assert suggest({}, [], 9, 1) == [0]
    assert suggest(calm(9, {}) | {6: MaskFacts(1.0, {1: 100})}, [0, 1], 9, 1) == [6]
    sure = {index: MaskFacts(0.0, {1: 9}) for index in range(21)}
    assert suggest(sure, [0], 21, 1)[0] == 20


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.data())
def test_suggestions_are_distinct_never_given_and_as_many_as_there_are(num_frames: int, data) -> None:
    frames = st.integers(0, num_frames - 1)
    marked = data.draw(st.sets(frames, max_size=5))
    facts = calm(num_frames, data.draw(st.dictionaries(frames, st.floats(0, 1), max_size=6)))
    count = data.draw(st.integers(0, 30))
    found = suggest(facts, marked, num_frames, count)
    assert len(found) == len(set(found)) == min(count, num_frames - len(marked))
    assert not marked & set(found)
    assert found == suggest(facts, marked, num_frames, 30)[:count]


def test_facts_tell_sure_masks_from_doubtful_ones() -> None:
    sure, unsure = facts_of(disc(20, 0.1)), facts_of(disc(20, 3.0))
    assert 0 <= sure.doubt < 0.1 < unsure.doubt <= 1
    assert sure.areas[1] == int((disc(20).labels() == 1).sum())
    assert facts_of(Masks(torch.ones((1, 4, 4)), ())) == MaskFacts(0.0, {})
    with pytest.raises(InputError, match="-2 frames"):
        suggest({}, [], 4, -2)
