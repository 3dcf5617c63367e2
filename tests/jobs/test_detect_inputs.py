"""What is to be looked at: which pictures there are, and what their results are called."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from detect_fixtures import put_picture, put_video
from PIL import Image

from rotoscope.errors import InputError, VideoError
from rotoscope.jobs.detect_folder import read_known_numbers
from rotoscope.jobs.detect_inputs import Inputs, NamedPicture, Place, Unreadable, open_inputs


def rows(inputs: Inputs, start: Place | None = None) -> list[tuple[int, str, str]]:
    return [(one.image_id, one.name, one.file_name) for one in inputs.pictures(start) if isinstance(one, NamedPicture)]


def test_a_folder_gives_its_images_in_natural_order_and_counts_the_rest(photos: Path) -> None:
    inputs = open_inputs([photos])
    assert rows(inputs) == [(1, "img1", "img1.png"), (2, "img2", "img2.png"), (3, "img10", "img10.png")]
    assert inputs.num_pictures == 3
    assert inputs.notes == (f"files of {photos} that are no images by their names, and were passed over: 1",)


def test_images_folders_and_videos_share_one_numbering(photos: Path, tmp_path: Path) -> None:
    image, video = put_picture(tmp_path / "one.jpg"), put_video(tmp_path / "clip.mp4", 3)
    inputs = open_inputs([image, video, photos])
    assert inputs.num_pictures == 7
    assert [row[0] for row in rows(inputs)] == [1, 2, 3, 4, 5, 6, 7]
    assert [row[1] for row in rows(inputs)] == ["one", "clip/00000", "clip/00001", "clip/00002", "photos/img1", "photos/img2", "photos/img10"]
    assert rows(inputs)[2:5:2] == [(3, "clip/00001", "clip/00001.png"), (5, "photos/img1", "photos/img1.png")]
    assert rows(inputs, Place(1, 2)) == rows(inputs)[3:]
    assert rows(open_inputs([image, video, photos], max_frames=1))[1:3] == [
        (2, "clip/00000", "clip/00000.png"),
        (3, "photos/img1", "photos/img1.png"),
    ]


def test_images_of_different_sizes_are_welcome(photos: Path) -> None:
    put_picture(photos / "tall.png").write_bytes(turned(photos / "img1.png"))
    assert [one.frame.hw for one in open_inputs([photos]).pictures()] == [(48, 64)] * 3 + [(64, 48)]


def turned(path: Path) -> bytes:
    file = BytesIO()
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(file, "PNG")
    return file.getvalue()


def test_results_never_share_a_name(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/x.jpg", "b/x.png", "b/X.bmp"):
        put_picture(tmp_path / name)
    direct = open_inputs([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"])
    assert [row[1:] for row in rows(direct)] == [("x", f"{tmp_path}/a/x.png"), ("x-2", f"{tmp_path}/b/x.png")]
    folders = open_inputs([tmp_path / "a", tmp_path / "b"])
    assert [row[1] for row in rows(folders)] == ["a/x", "a/x-2", "b/X", "b/x-2"]
    assert len({row[2] for row in rows(folders)}) == 4
    again = open_inputs([tmp_path / "a", tmp_path / "a"])
    assert len({row[1] for row in rows(again)}) == 4


def test_a_name_cannot_lead_out_of_the_output(tmp_path: Path) -> None:
    put_picture(tmp_path / "a.png").rename(tmp_path / "...png")
    (odd,) = rows(open_inputs([tmp_path / "...png"]))
    assert odd[1] == "image"


def test_an_unreadable_image_keeps_its_number_and_says_why(photos: Path) -> None:
    (photos / "img2.png").write_bytes(b"\x89PNG no more")
    first, second, third = open_inputs([photos]).pictures()
    assert isinstance(second, Unreadable)
    assert (second.place, second.file_name) == (Place(0, 1), "img2.png")
    assert "img2.png is not an image that can be read" in second.reason
    assert [one.image_id for one in (first, third) if isinstance(one, NamedPicture)] == [1, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "there is no image"),
        ("text.jpg", b"text", "is not an image that can be read"),
        ("empty.png", b"", "is not an image that can be read"),
        ("notes.txt", b"text", "is not a video that FFmpeg can read"),
        ("nowhere", None, "there is no file or folder"),
    ],
)
def test_a_file_named_directly_must_be_an_image_or_a_video(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=message):
        open_inputs([tmp_path / name])


def test_nothing_to_look_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing is given"):
        open_inputs([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=r"holds no images \(jpg, .*name the folder"):
        open_inputs([tmp_path / "empty"])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(VideoError, match="cannot be read: Permission denied"):
        open_inputs([tmp_path / "empty"])


def test_a_live_stream_needs_an_end_and_no_company(tmp_path: Path, photos: Path) -> None:
    video = put_video(tmp_path / "clip.mp4", 3)
    stream = f"file://{video}"
    with pytest.raises(InputError, match="say how many frames to take with --max-frames"):
        open_inputs([stream])
    with pytest.raises(InputError, match="give it alone"):
        open_inputs([stream, photos], max_frames=2)
    inputs = open_inputs([stream], max_frames=2)
    assert (inputs.num_pictures, len(rows(inputs))) == (2, 2)


def test_known_images_keep_their_numbers_and_others_are_left_out(photos: Path, tmp_path: Path) -> None:
    inputs = open_inputs([photos], known_ids={"train/img10.png": 77, "img1.png": 5, "elsewhere.png": 6})
    assert rows(inputs) == [(5, "img1", "img1.png"), (77, "img10", "img10.png")]
    assert "images that the ground truth does not list, and that were left out: 1" in inputs.notes
    with pytest.raises(InputError, match="none of the 3 images is listed in the ground truth"):
        open_inputs([photos], known_ids={"x.png": 1})
    with pytest.raises(InputError, match="is a video; --ground-truth goes with images"):
        open_inputs([put_video(tmp_path / "clip.mp4", 2)], known_ids={"x.png": 1})


def test_a_ground_truth_is_read_for_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": [{"id": 4, "file_name": "a.jpg"}], "categories": [{"id": 9, "name": "hot dog"}]}))
    known = read_known_numbers(path)
    assert known.images == {"a.jpg": 4}
    categories, note = known.categories_for(("person", "hot dog"))
    assert categories.ids == (None, 9)
    assert categories.entries() == [{"id": 9, "name": "hot dog", "supercategory": ""}]
    assert note == "the ground truth has no person; such detections are left out of detections.json"
    own, note = known.categories_for(("object",))
    assert own.ids == (1,)
    assert "category ids are the model's own" in note
    path.write_text("[]")
    with pytest.raises(InputError, match="is no ground truth of COCO"):
        read_known_numbers(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_known_numbers(tmp_path / "none.json")
