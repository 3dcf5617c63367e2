"""Searches through painted clips: who is found, who stays who."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from looking import HW, ColourTracker, LabelDetector, Seen, detections_of, moving, painted, search, shown

from rotoscope.errors import InputError, PropagationError
from rotoscope.models import registry
from rotoscope.models.yolact import VARIANTS, YolactDetector, fresh_network
from rotoscope.testing import moving_shapes
from rotoscope.tracking.class_names import class_names_of
from rotoscope.tracking.discover import Discoverer, follow
from rotoscope.tracking.matching import DiscoveryRules
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Detections, Frame, Masks, Propagator

LEFT, RIGHT = (4, 6, 18, 20), (40, 24, 56, 42)


def test_a_search_is_a_propagator() -> None:
    assert isinstance(Discoverer(ColourTracker().start(), LabelDetector(torch.zeros(1, *HW))), Propagator)


def test_what_is_seen_in_the_first_frame_is_followed_with_class_score_and_first_frame() -> None:
    frames, truth = painted([moving(LEFT, 8, dx=1), moving(RIGHT, 8, dx=-1)])
    results = search(frames, LabelDetector(truth), every=4)
    for index, result in results.items():
        assert torch.equal(result.masks.labels(), truth[index])
        assert [(one.object_id, one.class_id, one.class_name, one.first_frame) for one in result.objects] == [(1, 0, "ball", 0), (2, 1, "box", 0)]
        assert all(one.score == pytest.approx(0.9) and not one.is_given for one in result.objects)


def test_the_detector_looks_at_the_first_frame_and_every_so_many() -> None:
    frames, truth = painted([moving(LEFT, 11)])
    detector = LabelDetector(truth)
    search(frames, detector, every=4)
    assert detector.looks == [0, 4, 8]


def test_frames_that_a_clip_lacks_do_not_put_looks_off() -> None:
    frames, truth = painted([moving(LEFT, 11)])
    detector = LabelDetector(truth)
    search([frame for frame in frames if frame.index not in (4, 5)], detector, every=4)
    assert detector.looks == [0, 6, 10]


def test_somebody_who_comes_late_gets_a_new_id_at_the_next_look() -> None:
    frames, truth = painted([moving(LEFT, 12), moving(RIGHT, 12, within=range(5, 12))])
    results = search(frames, LabelDetector(truth), every=4)
    assert results[7].masks.object_ids == (1,)
    assert results[8].masks.object_ids == (1, 2)
    assert shown(results[11], truth[11]) == {1: 1, 2: 2}
    assert results[11].objects[1].first_frame == 8


def test_nothing_to_see_gives_empty_masks_for_every_frame_and_a_note() -> None:
    frames, truth = painted([[None] * 7])
    tracker = ColourTracker().start()
    discoverer = Discoverer(tracker, LabelDetector(truth), DiscoveryRules(every=3))
    results = list(follow(frames, discoverer))
    assert [frame.index for frame, _ in results] == list(range(7))
    assert all(masks.object_ids == () and not masks.labels().any() for _, masks in results)
    assert tracker.log == []
    assert discoverer.objects == ()
    assert "no object was found: the detector saw nothing" in discoverer.notes[0]


def test_detections_in_later_frames_only_are_enough() -> None:
    frames, truth = painted([moving(LEFT, 12, within=range(6, 12))])
    results = search(frames, LabelDetector(truth), every=4)
    assert all(results[index].masks.object_ids == () for index in range(8))
    assert all(shown(results[index], truth[index]) == {1: 1} for index in range(8, 12))


def away_and_back(num_frames: int = 30, *, back_at: tuple[int, int, int, int] = (36, 26, 50, 40)) -> tuple[list[Frame], torch.Tensor]:
    """Object 1 leaves after frame 5 and comes back elsewhere in frame 26; object 2 stays."""
    there, again = moving(LEFT, num_frames, within=range(6)), moving(back_at, num_frames, within=range(26, num_frames))
    return painted([[one or other for one, other in zip(there, again, strict=True)], moving((20, 4, 34, 18), num_frames)])


def test_somebody_who_comes_back_gets_the_old_id() -> None:
    frames, truth = away_and_back()
    results = search(frames, LabelDetector(truth), every=3)
    assert shown(results[20], truth[20]) == {2: 2}
    assert results[20].masks.object_ids == (1, 2)
    assert shown(results[29], truth[29]) == {1: 1, 2: 2}
    assert results[29].objects[0].first_frame == 0


def test_somebody_else_does_not_get_the_id_of_one_who_left() -> None:
    frames, truth = painted([moving(LEFT, 30, within=range(6)), moving((20, 4, 34, 18), 30), moving(RIGHT, 30, within=range(26, 30))])
    for one_class in (True, False):
        results = search(frames, LabelDetector(truth, one_class=one_class), every=3)
        assert shown(results[29], truth[29]) == {2: 2, 3: 3}


def test_another_class_in_the_same_colours_is_somebody_else() -> None:
    frames, truth = away_and_back()

    def see(index: int, seen: list[Seen]) -> list[Seen]:
        return [(mask, score, 3 if index > 20 and class_id == 0 else class_id) for mask, score, class_id in seen]

    assert shown(search(frames, LabelDetector(truth, see), every=3)[29], truth[29]) == {2: 2, 3: 1}


def test_one_who_is_hidden_for_a_moment_is_not_taken_for_a_look_alike_far_away() -> None:
    hidden = [None if 5 <= index < 12 else LEFT for index in range(16)]
    frames, truth = painted([hidden, moving((44, 28, 58, 42), 16, within=range(6, 16))], [(220, 40, 40)] * 2)
    results = search(frames, LabelDetector(truth, one_class=True), every=4)
    assert shown(results[11], truth[11]) == {2: 2}
    assert shown(results[15], truth[15]) == {1: 1, 2: 2}


def test_objects_that_cross_keep_their_ids() -> None:
    frames, truth = painted([moving((2, 10, 16, 26), 24, dx=2), moving((46, 14, 60, 30), 24, dx=-2)])
    results = search(frames, LabelDetector(truth, one_class=True), every=3)
    assert sorted(shown(results[0], truth[0]).values()) == [1, 2]
    assert shown(results[20], truth[20]) == shown(results[0], truth[0])
    assert len(results[23].objects) == 2


def test_parts_wholes_and_duplicates_of_one_object_make_one_object() -> None:
    frames, truth = painted([moving(LEFT, 13), moving((20, 6, 34, 20), 13)])

    def see(index: int, seen: list[Seen]) -> list[Seen]:
        (mask, _, class_id), (other, *_) = seen
        left = mask & (torch.arange(HW[1])[None] < 11)
        shifted = torch.roll(mask, 1, dims=0)
        more = [(left, 0.8, class_id), (mask & ~left, 0.7, class_id), (mask | other, 0.6, class_id), (shifted, 0.85, 3)]
        return [*seen, *more] if index else seen

    results = search(frames, LabelDetector(truth, see), every=4)
    assert results[12].masks.object_ids == (1, 2)
    assert torch.equal(results[12].masks.labels(), truth[12])


def test_two_halves_and_a_duplicate_in_the_first_frame_are_settled_best_first() -> None:
    frames, truth = painted([moving(LEFT, 5)])

    def see(index: int, seen: list[Seen]) -> list[Seen]:
        mask, _, class_id = seen[0]
        left = mask & (torch.arange(HW[1])[None] < 11)
        return [(left, 0.6, class_id), (mask & ~left, 0.7, class_id), (torch.roll(mask, 1, dims=1), 0.8, 2), *seen]

    results = search(frames, LabelDetector(truth, see), every=2)
    assert results[4].masks.object_ids == (1,)
    assert torch.equal(results[4].masks.labels(), truth[4])


def test_false_alarms_that_flicker_are_never_born() -> None:
    frames, truth = painted([moving(LEFT, 40)])
    places = torch.Generator().manual_seed(5)

    def see(index: int, seen: list[Seen]) -> list[Seen]:
        alarm = torch.zeros(HW, dtype=torch.bool)
        x, y = int(torch.randint(0, 50, (1,), generator=places)), 24 + int(torch.randint(0, 10, (1,), generator=places))
        alarm[y : y + 6 + index % 7, x : x + 8] = True
        return [*seen, (alarm, 0.3, 1 + index % 3)]

    assert search(frames, LabelDetector(truth, see), every=2)[39].masks.object_ids == (1,)


def test_one_in_doubt_is_born_when_it_is_seen_again_and_only_once() -> None:
    frames, truth = painted([moving(LEFT, 20, dx=1)])
    results = search(frames, LabelDetector(truth, score=0.3), every=4)
    assert [len(results[index].objects) for index in (3, 4, 8, 12, 19)] == [0, 1, 1, 1, 1]
    assert results[19].objects[0].score == pytest.approx(0.3)


def test_one_in_doubt_that_is_missed_at_the_next_look_must_begin_again() -> None:
    frames, truth = painted([moving(LEFT, 20)])
    results = search(frames, LabelDetector(truth, lambda index, seen: seen if index % 8 == 0 else [], score=0.3), every=4)
    assert results[19].masks.object_ids == ()


def test_scores_below_half_are_never_believed() -> None:
    frames, truth = painted([moving(LEFT, 20)])
    discoverer = Discoverer(ColourTracker().start(), LabelDetector(truth, score=0.2), DiscoveryRules(every=2))
    assert all(masks.object_ids == () for _, masks in follow(frames, discoverer))
    frames, truth = painted([moving(LEFT, 20)])
    discoverer = Discoverer(ColourTracker().start(), LabelDetector(truth, lambda index, seen: seen if index == 0 else [], score=0.3))
    list(follow(frames, discoverer))
    assert "was sure or new enough" in discoverer.notes[0]


def test_the_best_are_taken_where_there_are_too_many() -> None:
    frames, truth = painted([moving((2 + 12 * i, 4, 10 + 12 * i, 16), 5) for i in range(5)])
    scores = {0: 0.6, 1: 0.9, 2: 0.7, 3: 0.95, 4: 0.55}
    detector = LabelDetector(truth, lambda index, seen: [(mask, scores[class_id], class_id) for mask, _, class_id in seen])
    discoverer = Discoverer(ColourTracker().start(), detector, DiscoveryRules(every=2, max_objects=3))
    _, masks = list(follow(frames, discoverer))[-1]
    assert [one.class_id for one in discoverer.objects] == [3, 1, 2]
    assert masks.object_ids == (1, 2, 3)
    assert "more than the 3 objects" in discoverer.notes[0]


def test_only_wanted_classes_are_found() -> None:
    frames, truth = painted([moving(LEFT, 5), moving(RIGHT, 5)])
    results = search(frames, LabelDetector(truth), classes={1})
    assert shown(results[4], truth[4]) == {1: 2}


def test_the_class_is_that_of_most_votes_and_the_score_their_mean() -> None:
    frames, truth = painted([moving(LEFT, 9)])
    says = {0: (0.6, 2), 3: (0.9, 0), 6: (0.6, 0)}
    results = search(frames, LabelDetector(truth, lambda index, seen: [(seen[0][0], *says[index])]), every=3)
    assert [results[index].objects[0].class_name for index in (0, 3, 6)] == ["cone", "ball", "ball"]
    assert results[8].objects[0].score == pytest.approx(0.7)


class Wavering(ColourTracker):
    """A tracker that cuts objects down to their left edge, and knows that it is unsure."""

    def start(self, *, max_memory_bytes: int | None = None) -> Propagator:
        inner = super().start()

        class Pass:
            def predict(self, frame: Frame) -> Masks:
                labels = inner.predict(frame).labels()
                labels[:, 12:] = 0
                masks = Masks.from_labels(labels, (1,))
                return Masks(masks.probs, masks.object_ids, (0.2,))

            def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
                inner.remember(frame, masks, given=given)

            def state(self) -> dict[str, torch.Tensor]:
                return inner.state()

            def restore(self, state: Mapping[str, torch.Tensor]) -> None:
                inner.restore(state)

        return Pass()


@pytest.mark.parametrize(("refresh_below", "is_fresh"), [(0.5, True), (0.0, False)])
def test_an_unsure_tracker_gets_a_fresh_mask_without_keeping_the_frame_for_good(refresh_below: float, is_fresh: bool) -> None:
    frames, truth = painted([moving(LEFT, 5)])
    discoverer = Discoverer(Wavering().start(), LabelDetector(truth), DiscoveryRules(every=4, refresh_below=refresh_below))
    results = {frame.index: masks for frame, masks in follow(frames, discoverer)}
    assert not torch.equal(results[3].labels(), truth[3])
    assert torch.equal(results[4].labels(), truth[4]) == is_fresh
    assert results[4].object_ids == (1,)


def test_a_first_look_that_caught_half_of_somebody_is_put_right_for_good() -> None:
    frames, truth = painted([moving(LEFT, 10)])

    def see(index: int, seen: list[Seen]) -> list[Seen]:
        mask, _, class_id = seen[0]
        return [(mask & (torch.arange(HW[1])[None] < 11), 0.6, class_id)] if index == 0 else [(mask, 0.8 + 0.01 * index, class_id)]

    tracker = ColourTracker(reach=1).start()  # objects do not grow
    discoverer = Discoverer(tracker, LabelDetector(truth, see), DiscoveryRules(every=3))
    results = {frame.index: masks for frame, masks in follow(frames, discoverer)}
    assert [int(results[index].labels().sum()) for index in (0, 2, 3, 9)] == [98, 98, 196, 196]
    assert [index for index, _, given in tracker.log if given] == [0, 3]


def test_only_frames_with_somebody_new_are_remembered_as_given() -> None:
    frames, truth = away_and_back()
    tracker = ColourTracker().start()
    list(follow(frames, Discoverer(tracker, LabelDetector(truth), DiscoveryRules(every=3))))
    assert [index for index, _, given in tracker.log if given] == [0]


def given_masks(labels: torch.Tensor, *ids: int) -> Masks:
    return Masks.from_labels(torch.where(torch.isin(labels, torch.tensor(ids)), labels, 0).to(torch.int32) * 7, [7 * one for one in ids])


def test_given_objects_keep_their_ids_and_newcomers_get_higher_ones() -> None:
    frames, truth = painted([moving(LEFT, 9), moving(RIGHT, 9), moving((24, 30, 34, 44), 9, within=range(3, 9))])
    results = search(frames, LabelDetector(truth), every=4, given={0: given_masks(truth[0], 1)})
    assert shown(results[8], truth[8]) == {7: 1, 8: 2, 9: 3}
    first = results[8].objects[0]
    assert (first.is_given, first.score, first.class_name) == (True, 1.0, "ball")
    assert not results[8].objects[1].is_given


def test_an_object_that_is_given_later_wins_over_one_that_was_found() -> None:
    frames, truth = painted([moving(LEFT, 9), moving(RIGHT, 9)])
    results = search(frames, LabelDetector(truth), every=4, given={5: given_masks(truth[5], 2)})
    assert shown(results[4], truth[4]) == {15: 1, 16: 2}
    assert shown(results[8], truth[8]) == {15: 1, 14: 2}


def test_an_object_that_was_declared_absent_and_never_seen_is_not_described() -> None:
    frames, truth = painted([moving(LEFT, 3)])
    results = search(frames, LabelDetector(truth), given={0: Masks.from_labels(truth[0], (1, 5))})
    assert [one.object_id for one in results[2].objects] == [1]


def test_predicting_twice_gives_the_same_and_looks_once() -> None:
    frames, truth = painted([moving(LEFT, 5)])
    detector = LabelDetector(truth)
    discoverer = Discoverer(ColourTracker().start(), detector)
    first, again = discoverer.predict(frames[0]), discoverer.predict(frames[0])
    assert torch.equal(first.probs, again.probs)
    assert detector.looks == [0]
    assert discoverer.objects == ()


def test_masks_from_elsewhere_may_be_remembered_too() -> None:
    frames, truth = painted([moving(LEFT, 5), moving(RIGHT, 5)])
    discoverer = Discoverer(ColourTracker().start(), LabelDetector(truth))
    discoverer.remember(frames[0], given_masks(truth[0], 1), given=True)
    results = [discoverer.discovered(frame, masks) for frame, masks in follow(frames[1:], discoverer)]
    assert shown(results[-1], truth[-1]) == {7: 1, 8: 2}


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 8, 13, 26, 27])
def test_a_search_that_is_saved_and_restored_goes_on_as_if_nothing_had_been(cut: int) -> None:
    frames, truth = away_and_back()

    def noisy() -> LabelDetector:
        return LabelDetector(truth, lambda index, seen: [(mask, 0.4 if class_id == 1 else 0.8, class_id) for mask, _, class_id in seen])

    whole = search(frames, noisy(), every=3)
    before = Discoverer(ColourTracker().start(), noisy(), DiscoveryRules(every=3))
    list(follow(frames[:cut], before))
    after = Discoverer(ColourTracker().start(), noisy(), DiscoveryRules(every=3))
    after.restore({name: tensor.clone() for name, tensor in before.state().items()})
    for frame, masks in follow(frames[cut:], after):
        result = after.discovered(frame, masks)
        assert torch.equal(result.masks.probs, whole[frame.index].masks.probs)
        assert result.objects == whole[frame.index].objects


def test_a_state_that_is_none_is_refused() -> None:
    discoverer = Discoverer(ColourTracker().start(), LabelDetector(torch.zeros(1, *HW)))
    with pytest.raises(InputError, match="not the state of a search"):
        discoverer.restore({"memory": torch.zeros(3)})


def test_a_second_pass_the_other_way_goes_on_with_the_same_objects_and_no_id_twice() -> None:
    early, late = moving((24, 2, 34, 14), 12, within=range(8)), moving((24, 30, 34, 44), 12, within=range(9, 12))
    frames, truth = painted([moving(LEFT, 12), moving(RIGHT, 12), early, late])
    detector, rules = LabelDetector(truth), DiscoveryRules(every=2)
    given = {6: given_masks(truth[6], 1)}
    back = Discoverer(ColourTracker().start(), detector, rules, given=given)
    results = {frame.index: masks for frame, masks in follow(frames[6::-1], back)}
    forth = Discoverer(ColourTracker().start(), detector, rules, given=given)
    forth.restore(back.handed_over())
    assert detector.looks == [6, 4, 2, 0]
    onward = {frame.index: masks for frame, masks in follow(frames[6:], forth)}
    assert detector.looks[4:] == [8, 10]
    assert torch.equal(onward[6].labels(), results[6].labels())
    everything = {index: forth.discovered(frames[index], masks) for index, masks in (results | onward).items()}
    assert shown(everything[0], truth[0]) == {7: 1, 8: 2, 9: 3}
    assert shown(everything[11], truth[11]) == {7: 1, 8: 2, 10: 4}
    assert [one.first_frame for one in forth.objects] == [0, 0, 0, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: Detections(d.boxes, d.scores * float("nan"), d.class_ids, d.masks), "scores that are not finite on frame 0"),
        (lambda d: Detections(d.boxes, d.scores, d.class_ids, d.masks[:, :20]), r"masks of \[1, 20, 64\] for frame 0 of \[48, 64\]"),
    ],
)
def test_a_detector_that_gives_nonsense_stops_the_search_at_the_frame(change, message: str) -> None:
    frames, truth = painted([moving(LEFT, 3)])

    class Broken(LabelDetector):
        def detect(self, frame: Frame) -> Detections:
            return change(super().detect(frame))

    with pytest.raises(PropagationError, match=message):
        search(frames, Broken(truth))


def test_a_tracker_that_gives_nonsense_stops_the_search_at_the_frame() -> None:
    frames, truth = painted([moving(LEFT, 3)])
    tracker = ColourTracker().start()
    real = tracker.predict
    tracker.predict = lambda frame: Masks(real(frame).probs * float("nan"), (1,))
    with pytest.raises(PropagationError, match="not finite on frame 1"):
        list(follow(frames, Discoverer(tracker, LabelDetector(truth))))


def test_names_of_classes_come_from_the_detector_or_its_settings() -> None:
    class Silent:
        def detect(self, frame: Frame) -> Detections:
            return detections_of([(torch.ones(frame.hw, dtype=torch.bool), 0.9, 5)], frame.hw)

    class Configured(Silent):
        config = LabelDetector

    assert class_names_of(Silent()) == ()
    assert class_names_of(Configured()) == LabelDetector.class_names
    frames, _ = painted([moving(LEFT, 1)])
    assert search(frames, Silent())[0].objects[0].class_name == "class 5"


def test_the_tracker_that_ships_follows_what_is_found_as_if_somebody_had_given_it() -> None:
    images, truth = moving_shapes(num_frames=4, hw=(48, 64), num_objects=2, seed=2)
    frames = [Frame(index, image) for index, image in enumerate(images)]
    late = truth.clone()
    late[:2][late[:2] == 2] = 0
    tracker = registry.load("mast-lite", device="cpu")
    discoverer = Discoverer(tracker.start(), LabelDetector(late), DiscoveryRules(every=2))
    found = {frame.index: masks for frame, masks in follow(frames, discoverer)}
    assert [masks.object_ids for masks in found.values()] == [(1,), (1,), (1, 2), (1, 2)]
    second = Masks.from_labels(torch.where(found[2].labels() == 2, 2, 0).to(torch.int32))
    given = {0: Masks.from_labels(late[0]), 2: second}
    for frame, masks in propagate(frames, tracker.start(), given):
        assert torch.equal(masks.probs, found[frame.index].probs)


def test_yolact_may_look_though_it_has_learnt_nothing() -> None:
    config = replace(VARIANTS["yolact-lite"], image_size=64)
    detector = YolactDetector(fresh_network(config, seed=1).eval(), config)
    frames, _ = painted([moving(LEFT, 4, dx=1)])
    results = search(frames, detector, every=2, min_score=0.0, max_objects=3)
    assert 0 < len(results[3].objects) <= 3
    assert {one.class_name for one in results[3].objects} <= set(config.class_names)
