import json
from pathlib import Path

import numpy as np
import pytest

from rotoscope.errors import InputError
from rotoscope.jobs.work import TrackRequest, TrackRun
from rotoscope.jobs.youtube_vis import as_youtube_vis, check_youtube_vis
from rotoscope.video.rle import decode_mask

VIDEO = {"id": 1, "height": 4, "width": 6, "length": 4, "file_names": [f"clip/{index:05d}.jpg" for index in range(4)]}


def labels(*ids: int) -> np.ndarray:
    """Each id has two columns, of three rows."""
    found = np.zeros((4, 6), dtype=np.int32)
    for place, object_id in enumerate(ids):
        found[:3, 2 * place : 2 * place + 2] = object_id
    return found


def row(object_id: int, class_id: int | None, score: float = 0.5) -> dict[str, object]:
    return {"id": object_id, "class_id": class_id, "score": score}


def test_a_track_has_a_mask_a_box_and_an_area_for_each_frame_or_nothing() -> None:
    frames = [(0, labels(3, 7)), (1, labels(0, 7)), (3, labels(0, 0, 3))]
    content = as_youtube_vis(VIDEO, ("person", "dog"), [row(3, 1, 0.75), row(7, 0)], frames)
    assert content["videos"] == [VIDEO]
    assert content["categories"] == [{"id": 1, "name": "person", "supercategory": "object"}, {"id": 2, "name": "dog", "supercategory": "object"}]
    dog, person = content["annotations"]
    assert {key: dog[key] for key in ("id", "video_id", "category_id", "score", "iscrowd", "height", "width", "length")} == {
        "id": 3, "video_id": 1, "category_id": 2, "score": 0.75, "iscrowd": 0, "height": 4, "width": 6, "length": 4
    }  # fmt: skip
    assert dog["bboxes"] == [[0, 0, 2, 3], None, None, [4, 0, 2, 3]]
    assert dog["areas"] == [6, None, None, 6]
    assert person["areas"] == [6, 6, None, None]
    for (index, found), track, object_id in ((frames[0], dog, 3), (frames[2], dog, 3), (frames[1], person, 7)):
        assert np.array_equal(decode_mask(track["segmentations"][index]), found == object_id)
    assert json.loads(json.dumps(content)) == content


@pytest.mark.parametrize(
    ("classes", "class_ids", "names", "categories"),
    [
        ((), (None, None), ["object"], [1, 1]),
        (("person",), (None, 0), ["person", "object"], [2, 1]),
        ((), (2, 0), ["class 0", "class 1", "class 2"], [3, 1]),
        (("person",), (1, None), ["person", "class 1", "object"], [2, 3]),
    ],
)
def test_objects_without_a_class_and_classes_without_a_name_have_categories_too(classes, class_ids, names, categories) -> None:
    content = as_youtube_vis(VIDEO, classes, [row(1, class_ids[0]), row(2, class_ids[1])], [(0, labels(1, 2))])
    assert [one["name"] for one in content["categories"]] == names
    assert [one["category_id"] for one in content["annotations"]] == categories


def test_an_object_that_no_frame_shows_is_left_out() -> None:
    content = as_youtube_vis(VIDEO, (), [row(1, None), row(2, None)], [(0, labels(2))])
    assert [one["id"] for one in content["annotations"]] == [2]


def test_any_run_can_be_written(smear, clip_folder: Path, first_mask: Path, tmp_path: Path) -> None:
    path = tmp_path / "tracks.json"
    list(TrackRun(TrackRequest(str(clip_folder), {0: first_mask}, tmp_path / "out", overlay="none", youtube_vis=path)).records())
    content = json.loads(path.read_text())
    assert content["videos"][0]["file_names"][11] == "clip/00011.jpg"
    assert [(one["id"], one["score"], one["areas"][0]) for one in content["annotations"]] == [(1, 1.0, 48), (4, 1.0, 48)]


def test_a_file_that_cannot_be_written_is_refused_before_any_work(smear, clip_folder, first_mask, tmp_path) -> None:
    check_youtube_vis(None)
    check_youtube_vis(tmp_path / "tracks.json")
    with pytest.raises(InputError, match="is a folder; name a file"):
        check_youtube_vis(tmp_path)
    with pytest.raises(InputError, match="in a folder that does not exist"):
        TrackRun(TrackRequest(str(clip_folder), {0: first_mask}, tmp_path / "out", youtube_vis=tmp_path / "nowhere" / "tracks.json"))
    assert not (tmp_path / "out").exists()
