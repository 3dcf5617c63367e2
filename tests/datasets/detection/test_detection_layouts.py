import json

import numpy as np
import pytest
from detection_data import instances, write_coco, write_images, write_yolo
from PIL import Image

from rotoscope.datasets.detection.layouts import read_detection_set
from rotoscope.datasets.detection.samples import read_objects
from rotoscope.errors import InputError


def test_a_root_of_coco_is_read_in_its_training_part(tmp_path):
    write_coco(tmp_path)
    write_coco(tmp_path, instances(2), part="val2017")
    assert len(read_detection_set(tmp_path).samples) == 3


def test_a_file_is_read_with_the_images_around_it(tmp_path):
    path = write_coco(tmp_path)
    assert len(read_detection_set(path).samples) == 3


@pytest.mark.parametrize("folder", ["images", "images/default", "."])
def test_images_are_found_where_tools_put_them(tmp_path, folder):
    (tmp_path / "annotations").mkdir()
    write_images(tmp_path / folder, ["1.png", "2.png", "3.png"])
    (tmp_path / "annotations" / "instances_default.json").write_text(json.dumps(instances()))
    assert len(read_detection_set(tmp_path).samples) == 3


@pytest.mark.parametrize("name", ["_annotations.coco.json", "train/_annotations.coco.json"])
def test_an_export_with_the_file_beside_its_images_is_read(tmp_path, name):
    path = tmp_path / name
    write_images(path.parent, ["1.png", "2.png", "3.png"])
    path.write_text(json.dumps(instances()))
    assert read_detection_set(tmp_path).layout == "COCO instances"


def test_several_files_without_a_training_part_are_refused(tmp_path):
    write_coco(tmp_path, part="a")
    write_coco(tmp_path, part="b")
    with pytest.raises(InputError, match=r"instances_a\.json, instances_b\.json"):
        read_detection_set(tmp_path)


def test_a_folder_or_an_index_of_yolo_is_read(tmp_path):
    index = write_yolo(tmp_path)
    assert read_detection_set(tmp_path).samples == read_detection_set(index).samples


def test_images_with_label_maps_have_one_class_and_void_is_a_crowd(tmp_path):
    write_images(tmp_path / "JPEGImages", ["a.jpg"])
    (tmp_path / "SegmentationObject").mkdir()
    labels = np.zeros((48, 56), dtype=np.uint8)
    labels[5:20, 5:20], labels[30:40, 30:50], labels[0, 0] = 1, 2, 255
    Image.fromarray(labels).save(tmp_path / "SegmentationObject" / "a.png")
    found = read_detection_set(tmp_path)
    assert found.class_names == ("object",)
    shown = read_objects(found.samples[0])
    assert shown.boxes.tolist() == [[5, 5, 20, 20], [30, 30, 50, 40], [0, 0, 1, 1]]
    assert shown.class_ids.tolist() == [0, 0, 0]
    assert shown.num_crowds == 1


@pytest.mark.parametrize(("name", "message"), [("nowhere", "there is no file or folder"), ("text.txt", "neither a COCO JSON nor a data.yaml")])
def test_what_is_none_of_these_is_refused(tmp_path, name, message):
    (tmp_path / "text.txt").write_text("a")
    with pytest.raises(InputError, match=message):
        read_detection_set(tmp_path / name)
