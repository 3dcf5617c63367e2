"""What a look means, decided alone: properties over random detections, and the rules one by one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import HW, Seen, detections_of

from rotoscope.errors import InputError
from rotoscope.tracking.matching import Decision, DiscoveryRules, decide, findings_of
from rotoscope.tracking.roster import Entry, Roster, Sight
from rotoscope.types import MAX_OBJECT_ID, Frame, Masks

PICTURE = torch.randint(0, 256, (3, *HW), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
NOBODY = Masks(torch.ones((1, *HW)), ())


def box(x0: int, y0: int, x1: int, y1: int) -> torch.Tensor:
    mask = torch.zeros(HW, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


@st.composite
def sights(draw: st.DrawFn) -> Seen:
    x, y = draw(st.integers(0, HW[1] - 4)), draw(st.integers(0, HW[0] - 4))
    mask = box(x, y, x + draw(st.integers(1, 24)), y + draw(st.integers(1, 24)))
    return mask, draw(st.sampled_from([0.1, 0.3, 0.45, 0.6, 0.6, 0.9])), draw(st.integers(0, 2))


looks = st.lists(sights(), max_size=7)


def look(seen: list[Seen], masks: Masks, roster: Roster, index: int, rules: DiscoveryRules) -> tuple[Decision, Masks]:
    decision = decide(Frame(index, PICTURE), masks, findings_of(detections_of(seen, HW), rules), roster, rules)
    if decision.joining is None:
        return decision, masks
    labels = torch.where(decision.joining.labels() != 0, decision.joining.labels(), masks.labels())
    return decision, Masks.from_labels(labels, decision.roster.entries)


def play(story: list[list[Seen]], rules: DiscoveryRules) -> list[tuple[Decision, Masks]]:
    """Looks one after the other; between them masks stay where they are, and every third time the oldest object goes away."""
    roster, masks, played = Roster(), NOBODY, []
    for number, seen in enumerate(story):
        if number % 3 == 2 and masks.object_ids:
            labels = masks.labels()
            labels[labels == masks.object_ids[0]] = 0
            masks = Masks.from_labels(labels, masks.object_ids)
        decision, masks = look(seen, masks, roster, 10 * number, rules)
        roster = decision.roster.observed(10 * number, masks, least_area=1)
        played.append((decision, masks))
    return played


def told(played: list[tuple[Decision, Masks]]) -> list[object]:
    return [(one.born, one.returned, one.refreshed, sorted(one.matched), masks.labels().tolist()) for one, masks in played]


@given(st.lists(looks, min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=15)
def test_the_order_of_the_detections_has_no_say_and_twice_is_the_same(story, chance) -> None:
    rules = DiscoveryRules(min_area=0.002, max_objects=5)
    shuffled = [chance.sample(seen, len(seen)) for seen in story]
    first = play(story, rules)
    assert told(play(shuffled, rules)) == told(first)
    assert repr([one.roster for one, _ in play(story, rules)]) == repr([one.roster for one, _ in first])


@given(st.lists(looks, min_size=1, max_size=5))
@settings(deadline=None, max_examples=15)
def test_ids_are_never_used_twice_and_nobody_leaves_the_roster(story) -> None:
    rules = DiscoveryRules(min_area=0.002, max_objects=6)
    ever: list[int] = []
    for decision, masks in play(story, rules):
        assert not set(decision.born) & set(ever)
        assert set(decision.returned) <= set(ever)
        assert set(decision.matched) <= set(ever)
        assert not set(decision.returned) & set(decision.matched)
        ever += decision.born
        assert list(decision.roster.entries) == ever == sorted(ever)
        assert len(ever) <= 6
        assert set(masks.object_ids) <= set(ever)
    assert decision.roster.next_id == 1 + max(ever, default=0)


@given(looks)
@settings(deadline=None, max_examples=20)
def test_newcomers_take_no_pixel_of_others_and_are_large_enough_and_believed(seen) -> None:
    rules = DiscoveryRules(min_area=0.01)
    there = Masks.from_labels(box(10, 10, 30, 30).to(torch.int32) * 4)
    roster = Roster(next_id=5).with_entries([Entry(4, 0, is_given=True, sight=Sight.of(Frame(0, PICTURE), box(10, 10, 30, 30)))])
    decision, masks = look(seen, there, roster, 10, rules)
    assert torch.equal(masks.labels() == 4, box(10, 10, 30, 30))
    for object_id in decision.born:
        mask = masks.labels() == object_id
        assert int(mask.sum()) >= 0.01 * HW[0] * HW[1]
        assert any(score >= 0.5 and bool((mask <= whole).all()) for whole, score, _ in seen)


@given(looks)
@settings(deadline=None, max_examples=15)
def test_what_was_found_is_not_found_again(seen) -> None:
    rules = DiscoveryRules(min_area=0.002)
    first, masks = look(seen, NOBODY, Roster(), 0, rules)
    certain = [one for one in seen if one[1] >= rules.min_score]
    again, _ = look(certain, masks, first.roster, 10, rules)
    least = rules.least_area(HW)
    free = masks.labels() == 0
    extra = [one for one in again.born if int((free & (again.joining.labels() == one)).sum()) < least]
    assert extra == []
    same, _ = look([(masks.labels() == one, 0.9, 0) for one in first.born], masks, first.roster, 10, rules)
    assert same.born == ()
    assert set(same.matched) == set(first.born)


def entered(*boxes: tuple[int, int, int, int], class_id: int | None = 0) -> tuple[Masks, Roster]:
    labels = torch.zeros(HW, dtype=torch.int32)
    entries = []
    for object_id, corners in enumerate(boxes, start=1):
        labels[box(*corners)] = object_id
        entry = Entry(object_id, 0, is_given=False, sight=Sight.of(Frame(0, PICTURE), box(*corners)))
        entries.append(entry if class_id is None else entry.voted(class_id, 0.9))
    return Masks.from_labels(labels, range(1, len(boxes) + 1)), Roster(next_id=len(boxes) + 1).with_entries(entries)


def born_over(detection: torch.Tensor, *, class_id: int = 0, tracked_class: int | None = 0, **changes: float) -> int:
    masks, roster = entered((10, 10, 30, 30), class_id=tracked_class)
    decision, _ = look([(detection, 0.9, class_id)], masks, roster, 10, DiscoveryRules(match_overlap=1.0, **changes))
    return len(decision.born)


def test_a_detection_mostly_on_a_visible_object_is_nobody_new() -> None:
    assert born_over(box(10, 10, 20, 20)) == 0
    assert born_over(box(20, 10, 39, 30)) == 0
    assert born_over(box(21, 10, 39, 30)) == 1
    assert born_over(box(21, 10, 39, 30), max_covered=0.4) == 0


def test_a_detection_around_an_object_of_its_class_is_nobody_new_if_the_object_is_a_large_part_of_it() -> None:
    assert born_over(box(5, 5, 35, 37)) == 0
    assert born_over(box(5, 5, 35, 37), class_id=1) == 1
    assert born_over(box(5, 5, 35, 37), class_id=1, tracked_class=None) == 0
    assert born_over(box(0, 0, 50, 40)) == 1


def test_two_detections_of_one_object_are_not_both_matched() -> None:
    masks, roster = entered((10, 10, 30, 30), (40, 10, 60, 30))
    seen = [(box(10, 10, 30, 30), 0.7, 0), (box(11, 10, 31, 30), 0.9, 0), (box(41, 11, 60, 30), 0.6, 0)]
    decision, _ = look(seen, masks, roster, 10, DiscoveryRules())
    assert {object_id: one.score for object_id, one in decision.matched.items()} == {1: pytest.approx(0.7), 2: pytest.approx(0.6)}
    assert decision.born == ()
    assert decision.roster.entries[1].num_votes == 2


def test_a_detection_of_another_class_is_of_an_object_only_if_it_overlaps_it_more() -> None:
    masks, roster = entered((10, 10, 30, 30))
    for x, class_id, is_match in ((20, 0, True), (20, 1, False), (14, 1, True)):  # overlaps of 0.33, 0.33 and 0.67
        decision, _ = look([(box(x, 10, x + 20, 30), 0.9, class_id)], masks, roster, 10, DiscoveryRules())
        assert (list(decision.matched) == [1]) == is_match
    rivals = [(box(20, 10, 40, 30), 0.9, 1), (box(21, 10, 41, 30), 0.8, 0)]
    assert look(rivals, masks, roster, 10, DiscoveryRules(match_overlap=0.1))[0].matched[1].class_id == 0


def test_a_mask_that_began_with_a_part_gives_way_to_a_surer_detection_of_the_whole() -> None:
    masks, roster = entered((10, 10, 30, 20))
    roster = roster.with_entries([replace(roster.entries[1], mask_score=0.6)])
    whole = box(10, 10, 30, 30)
    decision, after = look([(whole, 0.75, 0)], masks, roster, 10, DiscoveryRules())
    assert (decision.disputed, decision.refreshed) == ((1,), (1,))
    assert torch.equal(after.labels() == 1, whole)
    assert decision.roster.entries[1].mask_score == pytest.approx(0.75)
    for score, seen, changes in ((0.65, whole, {}), (0.75, box(10, 10, 30, 24), {}), (0.75, whole, {"dispute_below": 0.0})):
        assert look([(seen, score, 0)], masks, roster, 10, DiscoveryRules(**changes))[0].refreshed == ()
    given = roster.with_entries([replace(roster.entries[1], mask_score=1.0)])
    assert look([(whole, 1.0, 0)], masks, given, 10, DiscoveryRules())[0].refreshed == ()


def test_the_tracker_says_who_came_back_whatever_the_colours() -> None:
    masks, roster = entered((10, 10, 30, 30), (40, 10, 60, 30))
    probs = torch.zeros((3, *HW))
    probs[0] = 1
    back = box(2, 30, 22, 46)
    probs[2][back], probs[0][back] = 0.3, 0.7
    unlike = replace(roster.entries[2], sight=replace(roster.entries[2].sight, colours=torch.zeros_like(roster.entries[2].sight.colours)))
    for entries, expected in (([roster.entries[1]], (1,)), ([roster.entries[1], unlike], (2,))):
        known = replace(roster, entries={entry.object_id: entry for entry in entries})
        shown = Masks(probs, masks.object_ids) if len(entries) == 2 else Masks(probs[[0, 1]] / probs[[0, 1]].sum(0), (1,))
        decision, _ = look([(back, 0.9, 0)], shown, known, 60, DiscoveryRules())
        assert decision.returned == expected
        assert decision.born == ()


def test_one_who_comes_back_much_larger_is_somebody_else() -> None:
    flat = Frame(60, torch.full((3, *HW), 90, dtype=torch.uint8))
    entry = Entry(1, 0, is_given=False, sight=Sight.of(replace(flat, index=0), box(10, 10, 14, 14))).voted(0, 0.9)
    roster, rules = Roster(next_id=2).with_entries([entry]), DiscoveryRules()
    for width, expected in ((10, (1,)), (11, ())):
        findings = findings_of(detections_of([(box(30, 10, 30 + width, 22), 0.9, 0)], HW), rules)
        assert decide(flat, NOBODY, findings, roster, rules).returned == expected


def test_an_object_whose_absence_was_stated_does_not_come_back_in_that_frame() -> None:
    _, roster = entered((10, 10, 30, 30))
    rules = DiscoveryRules()
    findings = findings_of(detections_of([(box(10, 10, 30, 30), 0.9, 0)], HW), rules)
    decision = decide(Frame(60, PICTURE), Masks(torch.cat((torch.ones(1, *HW), torch.zeros(1, *HW))), (1,)), findings, roster, rules, settled=(1,))
    assert decision.returned == ()
    assert decision.born == (2,)


def test_given_objects_are_never_refreshed_in_their_frame() -> None:
    masks, roster = entered((10, 10, 30, 30))
    unsure = Masks(masks.probs, masks.object_ids, (0.1,))
    findings = findings_of(detections_of([(box(8, 8, 30, 30), 0.9, 0)], HW), DiscoveryRules())
    assert decide(Frame(9, PICTURE), unsure, findings, roster, DiscoveryRules()).refreshed == (1,)
    assert decide(Frame(9, PICTURE), unsure, findings, roster, DiscoveryRules(), settled=(1,)).refreshed == ()
    assert decide(Frame(9, PICTURE), masks, findings, roster, DiscoveryRules()).refreshed == ()


def test_a_doubtful_detection_does_not_refresh() -> None:
    masks, roster = entered((10, 10, 30, 30))
    unsure = Masks(masks.probs, masks.object_ids, (0.1,))
    assert look([(box(8, 8, 30, 30), 0.4, 0)], unsure, roster, 9, DiscoveryRules())[0].refreshed == ()


def test_ids_end_at_what_a_mask_file_holds() -> None:
    roster = Roster(next_id=MAX_OBJECT_ID)
    seen = [(box(2, 2, 20, 20), 0.9, 0), (box(30, 2, 50, 20), 0.8, 0)]
    decision, _ = look(seen, NOBODY, roster, 0, DiscoveryRules())
    assert decision.born == (MAX_OBJECT_ID,)
    assert decision.roster.is_full


def test_small_weak_and_unwanted_detections_are_left_out() -> None:
    seen = [(box(0, 0, 2, 1), 0.9, 0), (box(0, 0, 9, 9), 0.24, 0), (box(20, 0, 29, 9), 0.9, 1), (box(40, 0, 49, 9), 0.26, 2)]
    found = findings_of(detections_of(seen, HW), DiscoveryRules(), classes={0, 2})
    assert [(one.class_id, one.area) for one in found] == [(2, 81)]


def test_where_a_detector_judges_its_masks_that_is_what_counts() -> None:
    found = replace(detections_of([(box(0, 0, 9, 9), 0.9, 0), (box(20, 0, 29, 9), 0.8, 1)], HW), mask_scores=torch.tensor([0.2, 0.7]))
    assert [(one.class_id, one.score) for one in findings_of(found, DiscoveryRules())] == [(1, pytest.approx(0.7))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, "--every 0 finds nothing"),
        ({"max_objects": 0}, "--max-objects 0 finds nothing"),
        ({"min_score": 1.5}, "--min-score 1.5 is out of range; give 0 to 1"),
        ({"alike": float("nan")}, "alike nan is out of range"),
        ({"lost_after": -1}, "lost_after -1 is out of range"),
    ],
)
def test_rules_that_make_no_sense_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DiscoveryRules(**change)
