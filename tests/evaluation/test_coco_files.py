import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from coco_parts import HW, annotation, detection, instances, rectangle, two_images, write_json
from hypothesis import given, settings

from rotoscope.errors import InputError
from rotoscope.evaluation.coco import evaluate_coco
from rotoscope.evaluation.coco.files import read_ground_truth, read_predictions
from rotoscope.evaluation.coco.shapes import compare, kinds_in

BOX = (10, 10, 20, 20)


def with_change(change: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with some fields changed; those of the value `...` are taken away."""
    return {name: value for name, value in {**entry, **change}.items() if value is not ...}


def test_a_file_is_read_with_its_sizes_and_classes(tmp_path: Path) -> None:
    found, content = two_images()
    truth = read_ground_truth(write_json(tmp_path / "gt.json", content))
    predictions = read_predictions(write_json(tmp_path / "out.json", found), truth)
    assert truth.image_sizes == {1: HW, 2: HW}
    assert truth.categories == {7: "dog", 3: "cat"}
    assert [one.category_id for one in truth.instances] == [3, 7, 3, 7]
    assert [one.score for one in predictions.instances] == [0.9, 0.6, 0.5, 0.8, 0.7]
    assert truth.notes == predictions.notes == ()
    assert str(predictions.instances[3].place) == f"{tmp_path / 'out.json'}: [3]"


def test_missing_iscrowd_and_area_are_taken_for_granted_and_told() -> None:
    found, content = two_images()
    plain = instances(*[with_change({"iscrowd": ..., "area": ..., "id": ...}, one) for one in content["annotations"]])
    for kind in ("segm", "bbox"):
        ours, bare = evaluate_coco(found, content, kind), evaluate_coco(found, plain, kind)
        assert bare.stats == ours.stats
        assert bare.notes == (
            "the ground truth: 4 annotations have no iscrowd; they count as single objects",
            "the ground truth: 4 annotations have no area; it is that of their shape",
        )


def test_text_can_name_images_if_both_files_agree() -> None:
    truth = instances(annotation("a/1.jpg", 3, BOX), image_ids=("a/1.jpg", "b"))
    assert evaluate_coco([detection("a/1.jpg", 3, BOX)], truth).ap == 1


def test_whole_numbers_may_be_written_with_a_point_and_numpy_s_are_numbers() -> None:
    truth = instances(annotation(1.0, 3.0, BOX), image_ids=(1,))
    assert evaluate_coco([detection(np.int64(1), 3, BOX, np.float32(0.5))], truth).ap == 1


def test_what_the_ground_truth_does_not_have_is_skipped_and_counted() -> None:
    truth = instances(annotation(1, 3, BOX), annotation(9, 3, BOX))
    scores = evaluate_coco([detection(1, 3, BOX), detection(5, 3, BOX, 0.9), detection(6, 3, BOX), detection(1, 99, BOX, 0.9)], truth)
    assert scores.ap == 1
    assert scores.num_predictions == 1
    assert scores.notes == (
        "the ground truth: 1 annotations are of images that the file does not list; they are skipped",
        "the predictions: 2 predictions are on images that the ground truth does not have; they are skipped",
        "the predictions: 1 predictions are on classes that the ground truth does not have; they are skipped",
        "1 of 2 images have no predictions; they are scored all the same",
    )


@pytest.mark.parametrize("stranger", [detection(5, 3, BOX), detection(1, 0, BOX)])
def test_predictions_of_another_set_are_refused(stranger: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"none of the 1 predictions .* does not have (image 5|class 0)"):
        evaluate_coco([stranger], instances(annotation(1, 3, BOX)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is it the file of predictions"),
        ("3", "which holds one object"),
        ('{"info": {}, "images": []}', "has no list 'annotations' beside info, images"),
        ('{"images": {}, "annotations": [], "categories": []}', "has no list 'images'"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no categories"),
    ],
)
def test_a_file_that_is_no_ground_truth_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "gt.json"
    if text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=said) as caught:
        read_ground_truth(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("images", {"id": ...}, "id is missing"),
        ("images", {"id": None}, "id is None; it must be a whole number or a text"),
        ("images", {"id": [1]}, r"id is \[1\]"),
        ("images", {"id": 2}, "the id 2 is that of another image too"),
        ("images", {"id": "1"}, "some ids of images are numbers and some are text"),
        ("images", {"height": 0}, "an image of 120 x 0 pixels"),
        ("images", {"width": ...}, "an image of None x 100 pixels"),
        ("images", {"width": "120"}, "an image of '120' x 100 pixels"),
        ("categories", {"id": "7"}, "ids of categories must be whole numbers"),
        ("categories", {"id": True}, "id is True"),
        ("categories", {"id": 3}, "the id 3 is that of 'dog' too"),
        ("annotations", {"image_id": ...}, "image_id is missing"),
        ("annotations", {"image_id": 1.5}, "image_id is 1.5"),
        ("annotations", {"image_id": "1"}, "image_id '1' is text, but the ids of .* are numbers such as 1"),
        ("annotations", {"category_id": ...}, "category_id is missing"),
        ("annotations", {"category_id": 10**400}, "category_id is 1000"),
        ("annotations", {"category_id": 99}, r"category_id 99 is not among the categories of the file \(7, 3\)"),
        ("annotations", {"iscrowd": 2}, "iscrowd is 2; it must be 0 or 1"),
        ("annotations", {"iscrowd": "0"}, "iscrowd is '0'"),
    ],
)
def test_a_broken_entry_of_the_ground_truth_is_named(part: str, change: dict[str, Any], said: str) -> None:
    content = instances(annotation(1, 3, BOX))
    content[part][0] = with_change(change, content[part][0])
    with pytest.raises(InputError, match=said) as caught:
        read_ground_truth(content)
    assert "the ground truth" in str(caught.value)
    content[part][0] = "text"
    with pytest.raises(InputError, match=rf"{part}\[0\] is 'text', not an object with fields"):
        read_ground_truth(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": ...}, r"the predictions: \[1\]: the score is None"),
        ({"score": float("nan")}, "the score is nan"),
        ({"score": float("inf")}, "the score is inf"),
        ({"score": "0.5"}, "the score is '0.5'"),
        ({"score": True}, "the score is True"),
        ({"image_id": "1"}, "image_id '1' is text, but the ids of the ground truth are numbers such as 1"),
        ({"image_id": ...}, "image_id is missing"),
        ({"category_id": "3"}, "category_id is '3'"),
        ({"category_id": {}}, "category_id is {}"),
    ],
)
def test_a_broken_prediction_is_named(change: dict[str, Any], said: str) -> None:
    truth = read_ground_truth(instances(annotation(1, 3, BOX)))
    with pytest.raises(InputError, match=said):
        read_predictions([detection(1, 3, BOX), with_change(change, detection(1, 3, BOX))], truth)


def test_a_number_for_an_image_that_is_named_by_text_is_told() -> None:
    truth = read_ground_truth(instances(annotation("a", 3, BOX), image_ids=("a",)))
    with pytest.raises(InputError, match="image_id 1 is a number, but the ids of the ground truth are text such as 'a'"):
        read_predictions([detection(1, 3, BOX)], truth)


@pytest.mark.parametrize("content", [{"results": []}, 3, None, "text"])
def test_what_is_no_list_of_predictions_is_refused(tmp_path: Path, content: Any) -> None:
    truth = read_ground_truth(instances(annotation(1, 3, BOX)))
    with pytest.raises(InputError, match="is not a results file of COCO; it must be a list of image_id"):
        read_predictions(write_json(tmp_path / "out.json", content), truth)


def test_swapped_files_are_noticed() -> None:
    found, content = two_images()
    with pytest.raises(InputError, match="is it the file of predictions"):
        read_ground_truth(found)
    with pytest.raises(InputError, match="is it the ground truth"):
        read_predictions(content, read_ground_truth(content))


NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("segm", {"segmentation": ...}, "has no segmentation; give it one, or score only boxes"),
        ("segm", {"segmentation": []}, "has no segmentation"),
        ("segm", {"segmentation": "text"}, "it must be a list of polygons"),
        ("segm", {"segmentation": [1, 2, 3, 4, 5, 6]}, "it must be a list of polygons"),
        ("segm", {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "a polygon holds 7 numbers; it must hold x and y of each corner"),
        ("segm", {"segmentation": [[1, 2, 3, 4, 5, NAN]]}, "a polygon holds something else than finite numbers"),
        ("segm", {"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "a polygon holds something else"),
        ("segm", {"segmentation": [[[1, 2], [3, 4], [5, 6]]]}, "a polygon holds something else"),
        ("segm", {"segmentation": [[1, 2, 3, 4, 1e9, 6]]}, r"at 1e\+09, far outside of the image of 120x100"),
        ("segm", {"segmentation": [[1, 2, 3, -301, 5, 6]]}, "at -301, far outside"),
        ("segm", {"segmentation": {"counts": "05"}}, "need a size"),
        ("segm", {"segmentation": {"size": [100, 120], "counts": "ZZZ"}}, "damaged"),
        ("segm", {"segmentation": {"size": [100, 120], "counts": [3, 5]}}, "cover 8 pixels"),
        ("segm", {"segmentation": rectangle(1, 1, 5, 5, hw=(120, 100))}, "its mask is 100x120 but image 1 is 120x100"),
        ("bbox", {"bbox": ...}, "has no bbox; give it one, or score only masks"),
        ("bbox", {"bbox": [1, 2, 3]}, r"the box is \[1, 2, 3\]; boxes are \[x, y, width, height\]"),
        ("bbox", {"bbox": [1, 2, 3, NAN]}, "the box is"),
        ("bbox", {"bbox": [10, 10, -5, 5]}, "the box is"),
        ("bbox", {"bbox": "1234"}, "the box is '1234'"),
        ("bbox", {"bbox": 5}, "the box is 5"),
    ],
)
@pytest.mark.parametrize("side", ["annotations", "predictions"])
def test_a_broken_shape_is_named(kind: Any, change: dict[str, Any], said: str, side: str) -> None:
    content, found = instances(annotation(1, 3, BOX)), [detection(1, 3, BOX)]
    entries = content["annotations"] if side == "annotations" else found
    entries[0] = with_change(change, entries[0])
    place = r"the ground truth: annotations\[0\]" if side == "annotations" else r"the predictions: \[0\]"
    with pytest.raises(InputError, match=f"{place}.*{said}"):
        evaluate_coco(found, content, kind)


@pytest.mark.parametrize("area", [-1, "4", NAN])
def test_a_stated_area_that_is_none_is_refused(area: Any) -> None:
    with pytest.raises(InputError, match=r"annotations\[0\]: the area is"):
        evaluate_coco([], instances(annotation(1, 3, BOX, area=area)))


def test_polygons_without_an_area_are_left_out_and_counted() -> None:
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    truth = instances(
        annotation(1, 3, BOX, segmentation=[square, [1, 1, 5, 5], []]),
        annotation(1, 7, BOX, segmentation=[[1, 1, 5, 5]]),
    )
    scores = evaluate_coco([detection(1, 3, BOX)], truth)
    assert scores.ap == 1
    assert [one.num_objects for one in scores.categories] == [1, 0]
    assert "3 polygons have fewer than three corners; they are left out" in scores.notes
    assert "1 objects have no polygon with three corners; they are skipped" in scores.notes


def test_polygons_are_drawn_as_the_coco_tools_do() -> None:
    outline = [[10.4, 10.2, 52.7, 20.9, 30.1, 80.5], [70, 70, 90, 70, 90, 90]]
    truth = read_ground_truth(instances(annotation(1, 3, BOX, segmentation=outline, area=None)))
    comparison = compare(truth, read_predictions([], truth), "segm")
    assert comparison.annotated[0].area == 1572  # pycocotools 2.0.11


def test_images_without_sizes_have_that_of_their_masks() -> None:
    content, found = instances(annotation(1, 3, BOX)), [detection(1, 3, BOX)]
    content["images"] = [{"id": 1}, {"id": 2}]
    assert evaluate_coco(found, content).ap == 1
    found.append(detection(1, 3, BOX, segmentation=rectangle(1, 1, 5, 5, hw=(50, 50))))
    with pytest.raises(InputError, match="its mask is 50x50 but image 1 is 120x100"):
        evaluate_coco(found, content)
    content["annotations"][0]["segmentation"] = [[1, 1, 5, 1, 5, 5]]
    with pytest.raises(InputError, match="its polygons cannot be drawn, because image 1 has no height and width"):
        evaluate_coco(found, content)


def test_nothing_annotated_is_nothing_to_score() -> None:
    with pytest.raises(InputError, match="has no annotated object"):
        evaluate_coco([], instances())


def test_the_kinds_are_those_that_every_prediction_has() -> None:
    truth = read_ground_truth(instances(annotation(1, 3, BOX)))
    full, boxes, masks = detection(1, 3, BOX), with_change({"segmentation": ...}, detection(1, 3, BOX)), detection(1, 3, BOX, bbox=[])
    for entries, kinds in (([], ["segm", "bbox"]), ([full], ["segm", "bbox"]), ([full, boxes], ["bbox"]), ([masks, full], ["segm"])):
        assert kinds_in(read_predictions(entries, truth)) == kinds
    with pytest.raises(InputError, match=r"\[1\] has no segmentation and the predictions: \[0\] no bbox"):
        kinds_in(read_predictions([masks, boxes], truth))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts", "id"]), children),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(field=st.sampled_from(["image_id", "category_id", "score", "bbox", "segmentation", "iscrowd", "area"]), value=anything, truth=st.booleans())
def test_whatever_a_field_holds_is_scored_or_refused(field: str, value: Any, truth: bool) -> None:
    content, found = instances(annotation(1, 3, BOX)), [detection(1, 3, BOX), detection(1, 3, BOX)]
    (content["annotations"] if truth else found)[0][field] = value
    content, found = json.loads(json.dumps([content, found]))
    for kind in ("segm", "bbox"):
        try:
            scores = evaluate_coco(found, content, kind)
        except InputError:
            continue
        assert scores.ap is None or 0 <= scores.ap <= 1
