from typing import Any

import pytest
from coco_parts import annotation, detection, instances, two_images

from rotoscope.evaluation.coco import CocoScores, evaluate_coco
from rotoscope.evaluation.coco.average_precision import OVERLAPS, Kind

BOX = (10, 10, 20, 20)
kinds = pytest.mark.parametrize("kind", ["segm", "bbox"])


def of_class(scores: CocoScores, name: str) -> Any:
    return next(one for one in scores.categories if one.name == name)


@kinds
def test_figures_of_a_small_case_are_those_counted_by_hand(kind: Kind) -> None:
    scores = evaluate_coco(*two_images(), kind)
    cat, dog = of_class(scores, "cat"), of_class(scores, "dog")
    assert [one.category_id for one in scores.categories] == [3, 7]
    assert cat.ap == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)  # one of two found at precision 1, the second behind a false alarm
    assert dog.ap == pytest.approx(51 * 1 / 2 / 101)  # half of them found, at precision 1/2
    assert (cat.ar, dog.ar) == (1, 0.5)
    assert (cat.num_objects, dog.num_objects) == (2, 2)
    assert (scores.ap, scores.ap_by_overlap[0]) == pytest.approx(((cat.ap + dog.ap) / 2,) * 2)
    assert (cat.ap50, cat.ap75) == pytest.approx((cat.ap, cat.ap))
    assert scores.num_images == 2
    assert scores.num_predictions == 5


@kinds
def test_sizes_are_told_apart_and_an_empty_one_has_no_figure(kind: Kind) -> None:
    scores = evaluate_coco(*two_images(), kind)
    assert scores.ap_by_size == {"small": pytest.approx((1 + 0) / 2), "medium": pytest.approx((1 + 1) / 2), "large": None}
    assert scores.ar_by_size == {"small": 0.5, "medium": 1, "large": None}
    assert scores.ar_by_count == {1: pytest.approx((1 + 0) / 2), 10: 0.75, 100: 0.75}
    assert scores.stats[:3] == (scores.ap, scores.ap_by_overlap[0], scores.ap_by_overlap[OVERLAPS.index(0.75)])
    assert len(scores.stats) == 12


@kinds
def test_the_best_overlap_that_is_just_the_threshold_counts(kind: Kind) -> None:
    scores = evaluate_coco([detection(1, 3, (10, 10, 20, 10))], instances(annotation(1, 3, BOX)), kind)
    assert scores.ap_by_overlap == (1,) + 9 * (0,)


@kinds
def test_detections_on_a_crowd_of_their_class_do_not_count(kind: Kind) -> None:
    truth = instances(annotation(1, 3, BOX), annotation(1, 3, (40, 40, 50, 50), iscrowd=1))
    in_crowd = [detection(1, 3, (50, 50, 10, 10), 0.9), detection(1, 3, (70, 70, 10, 10), 0.8)]
    assert evaluate_coco([detection(1, 3, BOX), *in_crowd], truth, kind).ap == 1
    of_another_class = [{**one, "category_id": 7} for one in in_crowd]
    scores = evaluate_coco([detection(1, 3, BOX), *of_another_class], truth, kind)
    assert (scores.ap, of_class(scores, "dog").ap) == (1, None)  # a class without objects has no figure
    truth["annotations"][1]["iscrowd"] = 0
    assert evaluate_coco([detection(1, 3, BOX), *in_crowd], truth, kind).ap < 0.3


def test_an_id_of_0_and_ids_given_twice_lose_no_object() -> None:
    truth = instances(annotation(1, 3, BOX, id=0), annotation(2, 3, BOX, id=0))
    assert evaluate_coco([detection(1, 3, BOX), detection(2, 3, BOX)], truth).ap == 1


def test_the_area_of_a_detected_mask_is_its_own_with_or_without_a_box() -> None:
    truth = instances(annotation(1, 3, BOX))
    wrong = detection(1, 3, (40, 40, 5, 5), 0.9, bbox=[0, 0, 110, 95])  # by its box a large object, which would not count against small ones
    for bbox in (wrong["bbox"], None):
        assert evaluate_coco([{**wrong, "bbox": bbox}, detection(1, 3, BOX)], truth).ap_by_size["small"] == pytest.approx(0.5)


def test_masks_and_boxes_may_disagree() -> None:
    off = detection(1, 3, BOX, bbox=[60, 60, 20, 20])
    truth = instances(annotation(1, 3, BOX))
    assert (evaluate_coco([off], truth, "segm").ap, evaluate_coco([off], truth, "bbox").ap) == (1, 0)


@kinds
def test_no_predictions_find_nothing(kind: Kind) -> None:
    scores = evaluate_coco([], instances(annotation(1, 3, BOX)), kind)
    assert scores.ap == 0
    assert scores.ar_by_count[100] == 0
    assert scores.notes == ("2 of 2 images have no predictions; they are scored all the same",)


@kinds
def test_crowds_alone_have_no_figure(kind: Kind) -> None:
    scores = evaluate_coco([detection(1, 3, BOX)], instances(annotation(1, 3, BOX, iscrowd=1)), kind)
    assert (scores.ap, set(scores.stats)) == (None, {None})


@kinds
def test_the_order_of_the_file_changes_nothing(kind: Kind) -> None:
    found, truth = two_images()
    turned = {**truth, "annotations": truth["annotations"][::-1], "images": truth["images"][::-1]}
    assert evaluate_coco(found[::-1], turned, kind).stats == evaluate_coco(found, truth, kind).stats


def test_what_is_given_is_left_as_it_is() -> None:
    found, truth = two_images()
    evaluate_coco(found, truth, "segm")
    assert (found, truth) == two_images()
