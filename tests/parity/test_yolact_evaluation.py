"""AP against pycocotools and the official YOLACT evaluator, on 7,000 real detections of two models in 100 images.

`coco_detections.json.xz` is the published detections, packed again; the ground truth in it is made of a third model's detections, some of them called
crowds, so that the figures are those of no data set. `coco_expected.json` and `rle.npz` are what the two evaluators and pycocotools made of them.
"""

import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rotoscope.evaluation.coco import CocoScores, OfficialRules, evaluate_coco, evaluate_official
from rotoscope.evaluation.coco.average_precision import scores_of
from rotoscope.evaluation.coco.files import GroundTruth, Predictions, read_ground_truth, read_predictions
from rotoscope.evaluation.coco.official_yolact import _overlaps
from rotoscope.evaluation.coco.shapes import Kind, box_of, compare
from rotoscope.video.rle import decode_mask, encode_mask, mask_area, mask_box

FOLDER = Path(__file__).parent / "data" / "yolact"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "coco_expected.json").read_text(encoding="utf-8"))
MODELS = ("yolact_base", "yolact_darknet53")
OFFICIAL_NAMES = {"segm": "mask", "bbox": "box"}
COCO_TOLERANCE = 1e-6
OFFICIAL_TOLERANCE = 0.01  # percent: the official table has two decimals

cases = pytest.mark.parametrize(("model", "kind"), [(model, kind) for model in MODELS for kind in ("segm", "bbox")])


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return json.loads(lzma.decompress((FOLDER / "coco_detections.json.xz").read_bytes()))


@pytest.fixture(scope="module")
def truth(content: dict[str, Any]) -> GroundTruth:
    return read_ground_truth(content)


@pytest.fixture(scope="module")
def predictions(content: dict[str, Any], truth: GroundTruth) -> dict[str, Predictions]:
    return {model: read_predictions(content["detections"][model], truth) for model in MODELS}


def largest_error(scores: CocoScores, expected: dict[str, Any]) -> float:
    of_classes = {str(one.category_id): one.ap for one in scores.categories if one.ap is not None}
    assert of_classes.keys() == expected["per_category_AP"].keys()
    errors = [abs(of_classes[name] - value) for name, value in expected["per_category_AP"].items()]
    errors += np.abs(np.subtract(scores.stats, expected["stats12"])).tolist()
    errors += np.abs(np.subtract(scores.ap_by_overlap, expected["per_iou_AP"])).tolist()
    return max(errors)


@cases
def test_every_figure_is_that_of_pycocotools(truth: GroundTruth, predictions: dict[str, Predictions], model: str, kind: Kind) -> None:
    scores = evaluate_coco(predictions[model], truth, kind)
    assert largest_error(scores, EXPECTED[model][kind]) <= COCO_TOLERANCE
    assert sum(one.num_objects for one in scores.categories) == 518 - 47  # crowds are not to be found
    assert scores.notes == ()


def test_crowds_taken_for_objects_would_be_noticed(truth: GroundTruth, predictions: dict[str, Predictions]) -> None:
    without = replace(truth, instances=tuple(replace(one, is_crowd=False) for one in truth.instances))
    expected = EXPECTED["yolact_base"]["segm"]["stats12"][0]
    assert abs(evaluate_coco(predictions["yolact_base"], without).ap - expected) > 0.01


def test_the_area_of_the_box_for_that_of_the_mask_would_be_noticed(truth: GroundTruth, predictions: dict[str, Predictions]) -> None:
    comparison = compare(truth, predictions["yolact_base"], "segm")
    of_boxes = tuple(replace(shape, area=float(np.prod(box_of(shape.instance)[2:]))) for shape in comparison.detected)
    wrong = scores_of(replace(comparison, detected=of_boxes))
    assert abs(wrong.ap_by_size["small"] - EXPECTED["yolact_base"]["segm"]["stats12"][3]) > 0.01
    assert wrong.ap == pytest.approx(EXPECTED["yolact_base"]["segm"]["stats12"][0], abs=COCO_TOLERANCE)


@cases
@pytest.mark.parametrize(("match_crowds", "key"), [(False, "official_crowd_label_minus1"), (True, "official_crowd_with_class")])
def test_the_official_evaluator_s_table_is_met(
    truth: GroundTruth, predictions: dict[str, Predictions], model: str, kind: Kind, match_crowds: bool, key: str
) -> None:
    name = OFFICIAL_NAMES[kind]
    scores = evaluate_official(predictions[model], truth, kind, rules=OfficialRules(match_crowds=match_crowds))
    table = EXPECTED[model][key][name]
    assert [100 * value for value in (scores.ap, *scores.ap_by_overlap)] == pytest.approx(list(table.values()), abs=OFFICIAL_TOLERANCE)
    annotated_only = evaluate_official(
        predictions[model], truth, kind, rules=OfficialRules(match_crowds=match_crowds, absent_classes_count=False)
    )  # these are stored in full
    assert [100 * value for value in annotated_only.ap_by_overlap] == pytest.approx(EXPECTED[model][f"{key}_gt_classes_only"][name], abs=1e-9)


@pytest.mark.parametrize("changed", [{"match_crowds": True}, {"absent_classes_count": False}, {"overlap_must_exceed": False}])
def test_a_rule_of_coco_in_the_official_evaluator_would_be_noticed(
    truth: GroundTruth, predictions: dict[str, Predictions], changed: dict[str, bool]
) -> None:
    scores = evaluate_official(predictions["yolact_base"], truth, rules=OfficialRules(**changed))
    assert abs(100 * scores.ap - EXPECTED["yolact_base"]["official_crowd_label_minus1"]["mask"]["all"]) > OFFICIAL_TOLERANCE


def test_with_every_rule_of_coco_the_official_evaluator_gives_its_figure(truth: GroundTruth, predictions: dict[str, Predictions]) -> None:
    rules = OfficialRules(
        match_crowds=True, absent_classes_count=False, overlap_must_exceed=False, unannotated_images_count=True, drop_tiny_objects=False
    )
    scores = evaluate_official(predictions["yolact_base"], truth, "bbox", rules=rules)
    assert scores.ap == pytest.approx(EXPECTED["yolact_base"]["bbox"]["stats12"][0], abs=1e-4)  # the levels of recall are rounded otherwise


@pytest.fixture(scope="module")
def encoded(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [one["segmentation"] for one in content["detections"]["yolact_base"]]


def test_areas_and_boxes_of_3380_masks_are_those_of_pycocotools(encoded: list[dict[str, Any]]) -> None:
    with np.load(FOLDER / "rle.npz") as stored:
        assert [mask_area(one) for one in encoded] == stored["area"].tolist()
        assert np.array_equal([mask_box(one) for one in encoded], stored["tight_xywh"])


def test_real_masks_are_decoded_and_encoded_to_the_same_text(encoded: list[dict[str, Any]]) -> None:
    with np.load(FOLDER / "rle.npz") as stored:
        for one, area in zip(encoded[::20], stored["area"][::20], strict=True):
            mask = decode_mask(one)
            assert mask.sum() == area
            assert encode_mask(mask) == one


@pytest.mark.parametrize(("kind", "key"), [("segm", "iou_first_image_f64"), ("bbox", "iou_bbox_first_image_f64")])
def test_overlaps_are_those_of_pycocotools_crowds_included(truth: GroundTruth, predictions: dict[str, Predictions], kind: Kind, key: str) -> None:
    comparison = compare(truth, predictions["yolact_base"], kind)
    first = min(shape.instance.image_id for shape in comparison.annotated)
    detected, annotated = ([shape for shape in shapes if shape.instance.image_id == first] for shapes in (comparison.detected, comparison.annotated))
    with np.load(FOLDER / "rle.npz") as stored:
        assert [shape.instance.is_crowd for shape in annotated] == stored["iscrowd_first_image"].astype(bool).tolist()
        assert np.abs(_overlaps(detected, annotated) - stored[key]).max() < 1e-12
        everyone = [replace(shape, instance=replace(shape.instance, is_crowd=True)) for shape in annotated]
        assert np.abs(_overlaps(detected, everyone) - stored[key]).max() > 0.01
