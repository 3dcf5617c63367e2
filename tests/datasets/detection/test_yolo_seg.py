import pytest
from detection_data import SQUARES, write_yolo

from rotoscope.datasets.detection.samples import read_objects
from rotoscope.datasets.detection.yolo_seg import read_yolo_seg
from rotoscope.errors import InputError

WHOLE = ["0 0.1 0.1 0.4 0.1 0.4 0.5"] * 200


def test_outlines_are_shares_of_the_sides(tmp_path):
    found = read_yolo_seg(write_yolo(tmp_path))
    assert found.class_names == ("red", "green")
    shown = read_objects(found.samples[0])
    assert shown.class_ids.tolist() == [0, 1]
    for mask, box, (x0, y0, x1, y1) in zip(shown.masks, shown.boxes, SQUARES, strict=True):
        assert mask.sum() == (x1 - x0) * (y1 - y0)
        assert box.tolist() == [x0, y0, x1, y1]


def test_an_image_without_labels_shows_no_object(tmp_path):
    found = read_yolo_seg(write_yolo(tmp_path))
    assert len(read_objects(found.samples[1]).boxes) == 0
    assert "1 without objects" in str(found)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.1 0.2 x", "lines that are not numbers"),
        ("2 0.1 0.1 0.4 0.1 0.4 0.5", "lines with a class that is none of 0 to 1"),
        ("0.5 0.1 0.1 0.4 0.1 0.4 0.5", "lines with a class that is none of 0 to 1"),
        ("0 0.5 0.5 0.2 0.2", "lines with a box in place of an outline"),
        ("0 0.1 0.1 0.4", "lines without a usable outline"),
        ("0 0.1 0.1 0.4 0.1 0.4 0.5 0.6", "lines without a usable outline"),
        ("0 0.1 0.1 40 10 40 50", "lines with corners beyond the image"),
        ("0 0.1 0.1 nan 0.1 0.4 0.5", "lines with corners beyond the image"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted(tmp_path, line, reason):
    found = read_yolo_seg(write_yolo(tmp_path, lines=[*WHOLE, line]))
    assert found.skipped == {reason: 1}
    assert len(found.samples[0].annotations) == len(WHOLE)


def test_many_such_lines_are_refused_with_an_example(tmp_path):
    with pytest.raises(InputError, match=r"2 lines with a box in place of an outline \(.*a\.txt:1\)"):
        read_yolo_seg(write_yolo(tmp_path, lines=["0 0.5 0.5 0.2 0.2"] * 2))


def test_no_object_at_all_is_an_error_that_says_where_labels_were_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"labels/train/a\.txt"):
        read_yolo_seg(write_yolo(tmp_path, lines=[]))


@pytest.mark.parametrize("text", ["train: images/train\n", "names: [a, b]\n", "names: {1: a, 2: b}\ntrain: images/train\n"])
def test_an_index_must_state_names_and_images(tmp_path, text):
    index = write_yolo(tmp_path)
    index.write_text(text)
    with pytest.raises(InputError, match="must state"):
        read_yolo_seg(index)


@pytest.mark.parametrize("train", ["images/train", "../images/train", "[images/train]", "./images/train"])
def test_paths_are_found_as_tools_write_them(tmp_path, train):
    index = write_yolo(tmp_path)
    index.write_text(f"train: {train}\nnames: ['red', \"green\"]  # two\n")
    assert len(read_yolo_seg(index).samples) == 2


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    index = write_yolo(tmp_path)
    index.write_text("train: nowhere\nnames: [a, b]\n")
    with pytest.raises(InputError, match="names the folder nowhere"):
        read_yolo_seg(index)
