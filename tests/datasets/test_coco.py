import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.datasets.coco import Outline, draw_outlines, read_coco
from rotoscope.errors import InputError, MaskError
from rotoscope.video.rle import decode_mask

# Made with pycocotools 2.0.11: encode() of a mask, and the outline drawn by frPyObjects.
PACKED = "=4200000000000000MO11OO11OO11OO11OO11OO11OO11OO11OO11OO11200000000000000000000000000000000000000g3h1"
OFFICIAL_TRIANGLE = np.zeros((10, 16), dtype=bool)
for row, (first, last) in enumerate([(3, 12), (4, 12), (5, 11), (6, 10), (7, 10), (8, 10)], start=2):
    OFFICIAL_TRIANGLE[row, first:last] = True


def square(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def test_packed_run_lengths_are_decoded_as_officially() -> None:
    expected = np.zeros((6, 70), dtype=bool)
    expected[1:5, 2:40], expected[:, 60:] = True, True
    expected[2, 10:20] = False
    assert np.array_equal(decode_mask({"size": [6, 70], "counts": PACKED}), expected)
    assert np.array_equal(decode_mask({"size": [6, 70], "counts": PACKED.encode()}), expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=7))
def test_run_lengths_go_down_the_columns(rows: list[list[bool]]) -> None:
    mask = np.array(rows)
    flat = [False, *mask.T.ravel().tolist()]
    changes = [index for index in range(1, len(flat)) if flat[index] != flat[index - 1]]
    edges = [0, *(index - 1 for index in changes), mask.size]
    counts = [after - before for before, after in pairwise(edges)]
    assert np.array_equal(decode_mask({"size": list(mask.shape), "counts": counts}), mask)


def test_outlines_are_nearly_those_of_the_official_tools() -> None:
    ours = draw_outlines([Outline([[1.5, 1.5, 12.5, 2.0, 9.0, 8.5]], 40, is_crowd=False)], 10, 16) > 0
    assert (ours ^ OFFICIAL_TRIANGLE).sum() <= 6
    assert np.array_equal(draw_outlines([Outline([square(1, 2, 5, 7)], 20, is_crowd=False)], 8, 8) > 0, np.pad(np.ones((5, 4)), ((2, 1), (1, 3))) > 0)


def test_an_outline_may_have_parts_and_leave_the_image() -> None:
    labels = draw_outlines([Outline([square(-5, -5, 2, 2), square(6, 6, 20, 20), square(30, 0, 40, 5)], 9, is_crowd=False)], 8, 8)
    assert labels.sum() == 8
    assert labels[0, 0] == labels[7, 7] == 1


def test_small_objects_lie_over_large_ones_and_crowds_under_all() -> None:
    small, large = Outline([square(1, 1, 3, 3)], 4, is_crowd=False), Outline([square(0, 0, 6, 6)], 36, is_crowd=False)
    crowd = Outline({"size": [8, 8], "counts": [0, 64]}, 64, is_crowd=True)
    for outlines, expected in (([small, large, crowd], (1, 2, 255)), ([crowd, large, small], (2, 1, 255))):
        labels = draw_outlines(outlines, 8, 8)
        assert (labels[2, 2], labels[5, 5], labels[7, 7]) == expected


def test_more_objects_than_labels_are_refused() -> None:
    with pytest.raises(MaskError, match="255 objects; at most 254"):
        draw_outlines([Outline([], 1, is_crowd=False)] * 255, 4, 4)


@pytest.mark.parametrize(("lengths", "size"), [([3, 4], [2, 2]), ([-1, 5], [2, 2])])
def test_run_lengths_of_another_size_are_refused(lengths: list[int], size: list[int]) -> None:
    with pytest.raises(MaskError, match="damaged"):
        decode_mask({"size": size, "counts": lengths})
    with pytest.raises(MaskError, match="run lengths are of 2x2 but the image is 3x3"):
        draw_outlines([Outline({"size": [2, 2], "counts": [0, 4]}, 4, is_crowd=True)], 3, 3)


@pytest.mark.parametrize("content", ["[1]", '{"annotations": [{"image_id": 1}], "images": []}', '{"images": []}', "{"])
def test_a_file_that_is_no_instances_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "instances_train.json").write_text(content)
    with pytest.raises(InputError, match=r"is not an instances file of COCO|cannot be read as JSON"):
        read_coco(tmp_path / "instances_train.json", [tmp_path], name="COCO")


def test_images_that_are_missing_are_named(tmp_path: Path) -> None:
    one = {"image_id": 1, "segmentation": [square(0, 0, 2, 2)], "area": 4}
    path = tmp_path / "instances_train.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [one]}))
    with pytest.raises(InputError, match=r"put them in .*train2017"):
        read_coco(path, [tmp_path / "train2017"], name="COCO")
    with pytest.raises(InputError, match=r"none of the 1 images of .* \(a.jpg\); the two belong to different parts"):
        read_coco(path, [tmp_path], name="COCO")
