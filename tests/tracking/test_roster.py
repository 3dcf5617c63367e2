import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.errors import InputError
from rotoscope.tracking.roster import Doubt, Entry, Roster, Sight, places_of
from rotoscope.types import Frame, Masks

PICTURE = torch.randint(0, 256, (3, 10, 12), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def sight(index: int = 0, x: int = 2, side: int = 3) -> Sight:
    region = torch.zeros(10, 12, dtype=torch.bool)
    region[1 : 1 + side, x : x + side] = True
    return Sight.of(Frame(index, PICTURE), region)


def test_a_sight_says_how_large_and_where() -> None:
    one = sight(4)
    assert (one.frame_index, one.area, one.centre_xy) == (4, 9, (3.0, 2.0))
    assert one.likeness(one) == pytest.approx(1, abs=1e-5)
    assert one.growth(sight(side=6)) == sight(side=6).growth(one) == 4


def test_near_is_within_so_many_sizes() -> None:
    assert sight(x=0).is_near(sight(x=6), sizes=2.0)
    assert not sight(x=0).is_near(sight(x=6), sizes=1.9)
    assert not sight(x=0).is_near(sight(x=7), sizes=2.0)


def test_votes_decide_the_class_and_ties_go_to_the_lower_one() -> None:
    entry = Entry(1, 0, is_given=False, sight=sight())
    assert (entry.class_id, entry.score) == (None, 1.0)
    entry = entry.voted(3, 0.5).voted(1, 0.5)
    assert (entry.class_id, entry.score) == (1, 0.5)
    assert entry.voted(3, 0.8).class_id == 3


def test_colours_are_a_mean_in_which_old_sights_fade() -> None:
    first, second = sight(0), sight(1, x=8)
    entry = Entry(1, 0, is_given=False, sight=first).looked_at(second)
    assert torch.allclose(entry.sight.colours, (first.colours + second.colours) / 2)
    for index in range(60):
        entry = entry.looked_at(sight(2 + index, x=8))
    assert entry.sight.likeness(second) > 0.99
    assert (entry.sight.frame_index, entry.first_frame, entry.num_sights) == (61, 0, 62)


def test_places_are_areas_and_centres_of_the_objects_that_have_pixels() -> None:
    labels = torch.zeros(10, 12, dtype=torch.int32)
    labels[2:4, 5:9] = 6
    assert places_of(Masks.from_labels(labels, (3, 6))) == {6: (8, 6.5, 2.5)}


def test_traces_of_an_object_are_not_a_sight_of_it() -> None:
    labels = torch.zeros(10, 12, dtype=torch.int32)
    labels[0, :3], labels[5, :4] = 1, 2
    roster = Roster().with_entries([Entry(one, 0, is_given=False, sight=sight()) for one in (1, 2)])
    after = roster.observed(7, Masks.from_labels(labels), least_area=4)
    assert [entry.sight.frame_index for entry in after.entries.values()] == [0, 7]
    assert after.entries[2].sight.centre_xy == (1.5, 5.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), max_size=4), st.integers(0, 3), st.none() | st.integers(0, 99), st.booleans())
@settings(deadline=None, max_examples=30)
def test_a_roster_survives_being_tensors(votes, num_doubts: int, last_look: int | None, is_full: bool) -> None:
    entry = Entry(5, 2, is_given=True, sight=sight(9))
    for class_id, score in votes:
        entry = entry.voted(class_id, score)
    doubts = tuple(Doubt(number, sight(number, side=2)) for number in range(num_doubts))
    roster = Roster({5: entry, 3: Entry(3, 1, is_given=False, sight=sight(1))}, doubts, 8, last_look, 17, is_full)
    restored = Roster.from_tensors(roster.tensors())
    assert repr(restored) == repr(roster)
    assert list(restored.entries) == [5, 3]
    both = [(one.sight.colours, other.sight.colours) for one, other in zip(restored.entries.values(), roster.entries.values(), strict=True)]
    both += [(one.sight.colours, other.sight.colours) for one, other in zip(restored.doubts, roster.doubts, strict=True)]
    assert all(torch.equal(one, other) for one, other in both)


def test_an_empty_roster_survives_too() -> None:
    assert Roster.from_tensors(Roster().tensors()) == Roster()


@pytest.mark.parametrize("spoil", [lambda t: t.pop("table"), lambda t: t.update(table=t["table"][:-4]), lambda t: t.update(colours=t["colours"][:0])])
def test_tensors_that_describe_no_roster_are_refused(spoil) -> None:
    tensors = Roster().with_entries([Entry(1, 0, is_given=False, sight=sight())]).tensors()
    spoil(tensors)
    with pytest.raises(InputError, match="not the state of a search"):
        Roster.from_tensors(tensors)
