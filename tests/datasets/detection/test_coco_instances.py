import json
from typing import Any

import numpy as np
import pytest
from detection_data import HEIGHT, SQUARES, WIDTH, instances, square, write_coco

from rotoscope.datasets.detection.coco_instances import read_coco_instances
from rotoscope.datasets.detection.samples import DetectionSet, read_objects
from rotoscope.errors import InputError, MaskError


def read(tmp_path, content: dict[str, Any] | None = None) -> DetectionSet:
    path = write_coco(tmp_path, content)
    return read_coco_instances(path, [tmp_path / "train2017"])


def with_annotation(**changes: Any) -> dict[str, Any]:
    """A large set whose first annotation differs."""
    content = instances(200)
    content["annotations"][0] |= changes
    return content


def test_classes_come_in_the_order_of_their_category_ids(tmp_path):
    assert read(tmp_path).class_names == ("green", "red")


def test_the_objects_of_an_image_have_masks_boxes_and_classes(tmp_path):
    shown = read_objects(read(tmp_path).samples[0])
    assert shown.rgb.shape == (HEIGHT, WIDTH, 3)
    assert shown.class_ids.tolist() == [1, 0]
    assert shown.boxes.tolist() == [list(map(float, corners)) for corners in SQUARES]
    for mask, (x0, y0, x1, y1) in zip(shown.masks, SQUARES, strict=True):
        assert mask[y0:y1, x0:x1].all()
        assert mask.sum() == (x1 - x0) * (y1 - y0)


def test_images_without_objects_stay(tmp_path):
    found = read(tmp_path)
    assert len(found.samples) == 3
    assert read_objects(found.samples[2]).masks.shape == (0, HEIGHT, WIDTH)
    assert "1 without objects" in str(found)


def test_ids_may_be_texts(tmp_path):
    content = json.loads(json.dumps(instances()))
    for image in content["images"]:
        image["id"] = str(image["id"])
    for one in content["annotations"]:
        one["category_id"] = str(one["category_id"])
    assert len(read(tmp_path, content).samples[0].annotations) == 2


def test_crowds_come_last_and_missing_fields_are_no_fault(tmp_path):
    content = instances()
    content["annotations"][0]["iscrowd"] = 1
    for field in ("iscrowd", "area", "bbox"):
        del content["annotations"][1][field]
    shown = read_objects(read(tmp_path, content).samples[0])
    assert shown.num_crowds == 1
    assert shown.class_ids.tolist() == [0, 1]
    assert shown.boxes[0].tolist() == list(SQUARES[1])


@pytest.mark.parametrize("packed", [False, True])
def test_run_lengths_are_read(tmp_path, packed):
    counts: Any = [0, HEIGHT * 10, HEIGHT * (WIDTH - 10)]
    if packed:
        counts = "0P?PU2"  # 0, 480 and 2208 in characters of six bits
    content = instances()
    content["annotations"][0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": counts}
    del content["annotations"][0]["bbox"]
    shown = read_objects(read(tmp_path, content).samples[0])
    assert shown.masks[0].sum() == HEIGHT * 10
    assert shown.boxes[0].tolist() == [0, 0, 10, HEIGHT]


def test_run_lengths_of_another_size_are_an_error_that_names_the_image(tmp_path):
    content = instances()
    content["annotations"][0]["segmentation"] = {"size": [3, 4], "counts": [0, 12]}
    with pytest.raises(MaskError, match=r"1\.png: run lengths are of 4x3"):
        read_objects(read(tmp_path, content).samples[0])


def test_a_polygon_without_its_outer_list_is_read(tmp_path):
    content = instances()
    content["annotations"][0]["segmentation"] = square(*SQUARES[0])
    assert read_objects(read(tmp_path, content).samples[0]).masks[0].sum() == 20 * 24


@pytest.mark.parametrize(
    "segmentation", [None, [], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5, float("nan")]], [["a"] * 6], {"size": [3]}, "text"]
)
def test_a_broken_outline_is_left_out_and_counted(tmp_path, segmentation):
    found = read(tmp_path, with_annotation(segmentation=segmentation))
    assert found.skipped == {"annotations without a usable outline": 1}
    assert len(found.samples[0].annotations) == 1
    assert "1 annotations without a usable outline" in str(found)


def test_broken_polygons_beside_whole_ones_cost_nothing(tmp_path):
    found = read(tmp_path, with_annotation(segmentation=[[1, 2], square(*SQUARES[0])]))
    assert not found.skipped
    assert read_objects(found.samples[0]).masks[0].sum() == 20 * 24


@pytest.mark.parametrize("bbox", [[1, 1, 0, 0], [-20, 3, 5, 5], [1, 2, 3], "none", [1, 2, float("inf"), 3]])
def test_a_box_without_area_gives_way_to_that_of_the_mask(tmp_path, bbox):
    shown = read_objects(read(tmp_path, with_annotation(bbox=bbox)).samples[0])
    assert shown.boxes[0].tolist() == list(SQUARES[0])


def test_an_object_beyond_the_image_is_left_out(tmp_path):
    shown = read_objects(read(tmp_path, with_annotation(segmentation=[square(100, 100, 120, 120)])).samples[0])
    assert len(shown.boxes) == 1


def test_an_unknown_category_is_counted(tmp_path):
    found = read(tmp_path, with_annotation(category_id=99))
    assert found.skipped == {"annotations of a category that the file does not list": 1}


def test_many_unknown_categories_are_refused_with_an_example(tmp_path):
    with pytest.raises(InputError, match=r"2 of 7 .* more than 1%: 2 annotations of a category .* \(annotation 10 of image 1: category 7\)"):
        read(tmp_path, instances(categories=[{"id": 3, "name": "green"}]))


def test_a_missing_image_is_counted(tmp_path):
    path = write_coco(tmp_path, instances(200))
    (tmp_path / "train2017" / "5.png").unlink()
    found = read_coco_instances(path, [tmp_path / "train2017"])
    assert found.skipped == {"images missing": 1}
    assert len(found.samples) == 199


def test_no_image_at_all_is_an_error_that_says_where_they_were_looked_for(tmp_path):
    path = write_coco(tmp_path)
    with pytest.raises(InputError, match=r"none of the images .* \(1\.png, 2\.png, 3\.png\) is in .*elsewhere"):
        read_coco_instances(path, [tmp_path / "elsewhere"])


def test_annotations_of_images_that_are_not_listed_are_counted(tmp_path):
    assert read(tmp_path, with_annotation(image_id=4711)).skipped == {"annotations of images that the file does not list": 1}


def test_images_may_be_named_with_a_folder(tmp_path):
    content = instances(2)
    content["images"][0]["file_name"] = "sub/1.png"
    found = read(tmp_path, content)
    assert found.samples[0].image_path == tmp_path / "train2017" / "sub" / "1.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "'images' must be a list"),
        ('{"images": [{"id": 1}], "categories": [], "annotations": []}', "with id and file_name"),
        ('{"images": [{"id": 1, "file_name": "a.png"}], "categories": [], "annotations": []}', "lists no categories"),
    ],
)
def test_a_file_that_is_no_instances_file_is_refused(tmp_path, text, message):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_coco_instances(path, [tmp_path])


def test_a_damaged_image_is_an_error_that_names_it(tmp_path):
    found = read(tmp_path)
    found.samples[0].image_path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"1\.png"):
        read_objects(found.samples[0])


def test_masks_are_bits_of_the_size_of_the_image(tmp_path):
    shown = read_objects(read(tmp_path).samples[0])
    assert shown.masks.dtype == np.bool_
    assert shown.masks.shape[1:] == shown.rgb.shape[:2]
