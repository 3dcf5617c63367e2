import pytest
from coco_parts import HW, annotation, detection, instances, rectangle, two_images

from rotoscope.evaluation.coco import OfficialRules, evaluate_coco, evaluate_official
from rotoscope.evaluation.coco.average_precision import Kind
from rotoscope.evaluation.coco.official_yolact import SMALLEST_SIDE

BOX = (10, 10, 20, 20)
kinds = pytest.mark.parametrize("kind", ["segm", "bbox"])


@kinds
def test_without_special_cases_the_figure_is_coco_s(kind: Kind) -> None:
    official, coco = evaluate_official(*two_images(), kind), evaluate_coco(*two_images(), kind)
    assert official.ap_by_overlap == pytest.approx(coco.ap_by_overlap)
    assert [one.ap for one in official.categories] == pytest.approx([one.ap for one in coco.categories])
    assert official.evaluator == "official"
    assert official.ar_by_count == official.ap_by_size == official.ar_by_size == {}


@kinds
def test_an_overlap_of_just_the_threshold_is_not_enough(kind: Kind) -> None:
    half, truth = [detection(1, 3, (10, 10, 20, 10))], instances(annotation(1, 3, BOX))
    assert evaluate_official(half, truth, kind).ap == 0
    assert evaluate_official(half, truth, kind, rules=OfficialRules(overlap_must_exceed=False)).ap_by_overlap[0] == 1


@kinds
def test_in_single_precision_some_thresholds_are_exceeded_by_themselves(kind: Kind) -> None:
    eleven_of_twenty, truth = [detection(1, 3, (10, 10, 20, 11))], instances(annotation(1, 3, BOX))
    assert evaluate_official(eleven_of_twenty, truth, kind).ap_by_overlap[:3] == (1, 1, 0)


@kinds
def test_detections_on_a_crowd_are_wrong_unless_crowds_have_classes(kind: Kind) -> None:
    truth = instances(annotation(1, 3, BOX), annotation(1, 3, (40, 40, 50, 50), iscrowd=1))
    found = [detection(1, 3, (50, 50, 10, 10), 0.9), detection(1, 3, BOX)]
    assert evaluate_official(found, truth, kind).ap == pytest.approx(0.5)
    assert evaluate_official(found, truth, kind, rules=OfficialRules(match_crowds=True)).ap == 1


@kinds
def test_a_class_that_is_nowhere_counts_once_it_is_detected(kind: Kind) -> None:
    truth, found = instances(annotation(1, 3, BOX)), [detection(1, 3, BOX), detection(1, 7, BOX)]
    assert evaluate_official(found[:1], truth, kind).ap == 1
    assert evaluate_official(found, truth, kind).ap == 0.5
    assert evaluate_official(found, truth, kind, rules=OfficialRules(absent_classes_count=False)).ap == 1


@kinds
def test_images_without_annotations_are_not_looked_at(kind: Kind) -> None:
    truth, found = instances(annotation(1, 3, BOX)), [detection(2, 3, BOX, 0.9), detection(1, 3, BOX, 0.8)]
    assert evaluate_official(found, truth, kind).ap == 1
    assert evaluate_official(found, truth, kind, rules=OfficialRules(unannotated_images_count=True)).ap == pytest.approx(0.5)


@pytest.mark.parametrize("box", [None, [50, 50, 40, 40]])
def test_tiny_annotated_objects_are_not_there(box: list[int] | None) -> None:
    height, width = 1000, 1200
    truth = instances(annotation(1, 3, BOX), annotation(1, 3, BOX))
    truth["images"] = [{"id": 1, "height": height, "width": width}]
    narrow = int(SMALLEST_SIDE * width)
    for one, shape in zip(truth["annotations"], ((100, 100, 200, 200), (500, 500, narrow, 90)), strict=True):
        one.update(segmentation=rectangle(*shape, hw=(height, width)), bbox=list(shape))
    found = [detection(1, 3, BOX, segmentation=rectangle(100, 100, 200, 200, hw=(height, width)))]
    truth["annotations"][1]["bbox"] = box
    kept = box is not None  # the stated box decides, where there is one
    assert evaluate_official(found, truth).ap == pytest.approx(51 / 101 if kept else 1)
    assert evaluate_official(found, truth, rules=OfficialRules(drop_tiny_objects=False)).ap == pytest.approx(51 / 101)
    assert narrow + 1 > SMALLEST_SIDE * width
    assert HW[0] < height


@kinds
def test_an_object_is_found_once(kind: Kind) -> None:
    found = [detection(1, 3, BOX, 0.9), detection(1, 3, BOX, 0.8)]
    scores = evaluate_official(found, instances(annotation(1, 3, BOX), annotation(2, 3, BOX)), kind)
    assert scores.ap == pytest.approx(51 / 101)


@kinds
def test_crowds_alone_and_no_predictions_do_not_stop_it(kind: Kind) -> None:
    crowd = instances(annotation(1, 3, BOX, iscrowd=1))
    assert evaluate_official([detection(1, 3, BOX)], crowd, kind).ap == 0  # the official code stops
    assert evaluate_official([], crowd, kind).ap is None
    assert evaluate_official([], instances(annotation(1, 3, BOX)), kind).ap == 0
