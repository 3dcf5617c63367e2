"""A run of detections: what lies in the folder, when it is stopped, killed, resumed, replaced."""

import json
from pathlib import Path

import numpy as np
import pytest
from detect_fixtures import GREEN, RED, picture, put_picture, put_video
from PIL import Image

from rotoscope.errors import InputError, OutputError, PropagationError
from rotoscope.jobs import detect_writers
from rotoscope.jobs.detect_folder import own_categories
from rotoscope.jobs.detect_work import DetectRequest, DetectRun
from rotoscope.jobs.detect_writers import Wanted
from rotoscope.models.yolact.classes import COCO_CLASSES
from rotoscope.video.read import open_clip
from rotoscope.video.rle import decode_mask


def request(*inputs: Path, output: Path, **changes) -> DetectRequest:
    return DetectRequest(**{"inputs": inputs, "output": output, **changes})


def read(output: Path, name: str):
    return json.loads((output / name).read_text())


def files_of(output: Path) -> list[str]:
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file() and ".rotoscope" not in path.parts)


def without_times(output: Path) -> list:
    summary = {key: value for key, value in read(output, "summary.json").items() if key not in ("seconds", "fps", "network_fps", "inputs")}
    return [read(output, "detections.json"), read(output, "images.json"), summary]


def stop_after(run: DetectRun, count: int) -> None:
    reports = run.reports()
    for _ in range(count):
        next(reports)
    reports.close()


def test_a_run_writes_coco_results_and_what_they_refer_to(colours, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    reports = list(DetectRun(request(photos, output=output)).reports())
    assert files_of(output) == [
        "detections.json", "images.json", "overlay/img1.jpg", "overlay/img10.jpg", "overlay/img2.jpg", "summary.json",
    ]  # fmt: skip
    results, images, summary = (read(output, name) for name in ("detections.json", "images.json", "summary.json"))
    assert [(one["image_id"], one["category_id"], one["bbox"], one["score"]) for one in results] == [
        (1, 1, [4, 8, 16, 16], 0.9), (2, 1, [30, 8, 16, 16], 0.9), (2, 2, [8, 28, 16, 16], 0.6),
    ]  # fmt: skip
    assert np.array_equal(decode_mask(results[2]["segmentation"]), (picture(30, 8) == GREEN).all(axis=2))
    assert images["images"][1] == {"id": 2, "file_name": "img2.png", "width": 64, "height": 48}
    assert [(one["id"], one["name"]) for one in images["categories"]] == [(1, "person"), (2, "hot dog")]
    assert images["annotations"] == []
    assert (summary["complete"], summary["num_images"], summary["num_detections"], summary["skipped"]) == (True, 3, 3, [])
    assert summary["classes"] == {"person": 2, "hot dog": 1}
    assert summary["network_fps"] > summary["fps"] > 0
    assert [[one["class"] for one in report.detections] for report in reports] == [["person"], ["person", "hot dog"], []]


def test_nothing_found_anywhere_is_a_valid_result(colours, tmp_path: Path) -> None:
    run = DetectRun(request(put_picture(tmp_path / "gray.png", None), output=tmp_path / "out", wanted=Wanted(instances=True, cutouts=True)))
    list(run.reports())
    assert read(tmp_path / "out", "detections.json") == []
    assert len(read(tmp_path / "out", "images.json")["images"]) == 1
    assert run.summary["num_detections"] == 0
    assert not (tmp_path / "out" / "instances").exists()


def test_instances_are_masks_and_cutouts(colours, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    list(DetectRun(request(photos, output=output, wanted=Wanted("none", instances=True, cutouts=True))).reports())
    assert files_of(output) == [
        "detections.json", "images.json", "instances/img1/00_person_0.90.png", "instances/img1/00_person_0.90_cutout.png",
        "instances/img2/00_person_0.90.png", "instances/img2/00_person_0.90_cutout.png",
        "instances/img2/01_hot-dog_0.60.png", "instances/img2/01_hot-dog_0.60_cutout.png", "summary.json",
    ]  # fmt: skip
    with Image.open(output / "instances/img2/01_hot-dog_0.60.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), (picture(30, 8) == GREEN).all(axis=2) * 255)
    with Image.open(output / "instances/img2/00_person_0.90_cutout.png") as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", (16, 16))
        assert (np.asarray(cutout) == (*RED, 255)).all()


def test_a_video_gives_an_overlay_video_and_an_entry_per_frame(colours, tmp_path: Path) -> None:
    output = tmp_path / "out"
    video = put_video(tmp_path / "clip.mp4")
    list(DetectRun(request(video, output=output, batch=5, wanted=Wanted(instances=True))).reports())
    assert "overlay/clip.webm" in files_of(output)
    assert "instances/clip/00007/01_hot-dog_0.60.png" in files_of(output)
    drawn = open_clip(output / "overlay" / "clip.webm")
    assert (drawn.num_frames, drawn.hw) == (12, (192, 256))  # small pictures are drawn four times as large
    images = read(output, "images.json")["images"]
    assert images[3] == {
        "id": 4, "file_name": "clip/00003.png", "width": 64, "height": 48, "video": "clip", "frame_index": 3, "time_seconds": pytest.approx(0.12),
    }  # fmt: skip
    assert len(read(output, "detections.json")) == 12 + 6


def test_overlays_may_be_mp4_and_very_long_pictures_are_png(colours, tmp_path: Path) -> None:
    Image.new("RGB", (66_000, 2)).save(tmp_path / "line.png")
    list(DetectRun(request(tmp_path / "line.png", put_video(tmp_path / "clip.mp4", 3), output=tmp_path / "out", wanted=Wanted("h264"))).reports())
    assert files_of(tmp_path / "out")[2:4] == ["overlay/clip.mp4", "overlay/line.png"]


def test_colours_go_by_rank_in_images_and_by_class_in_videos(colours, tmp_path: Path, monkeypatch) -> None:
    drawn = []
    real = detect_writers.draw_objects
    monkeypatch.setattr(
        detect_writers, "draw_objects", lambda image, objects: (drawn.append([one.colour for one in objects]), real(image, objects))[1]
    )
    list(DetectRun(request(put_picture(tmp_path / "a.png", None, 8), output=tmp_path / "image")).reports())
    list(DetectRun(request(put_video(tmp_path / "a.mp4", 7), output=tmp_path / "video")).reports())
    assert drawn[0] == [(128, 0, 0)]  # a hot dog, but the first of its image
    assert drawn[1] == [(128, 0, 0)]
    assert drawn[7] == [(128, 0, 0), (0, 128, 0)]


def test_unreadable_images_are_counted_and_the_rest_is_done(colours, photos: Path, tmp_path: Path) -> None:
    (photos / "img2.png").write_bytes((photos / "img2.png").read_bytes()[:60])
    run = DetectRun(request(photos, output=tmp_path / "out", batch=4))
    reports = list(run.reports())
    assert [report.skipped is None for report in reports] == [True, False, True]
    assert run.summary["complete"]
    assert [one["file_name"] for one in run.summary["skipped"]] == ["img2.png"]
    assert [image["id"] for image in read(tmp_path / "out", "images.json")["images"]] == [1, 3]
    assert colours.batches == [2]


@pytest.mark.parametrize("count", [1, 4, 9, 14])
def test_a_stopped_run_resumes_to_the_same_results(colours, photos: Path, tmp_path: Path, count: int) -> None:
    (photos / "img3.png").write_bytes(b"no image")
    inputs = (photos, put_video(tmp_path / "clip.mp4"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    wanted = Wanted(instances=True)
    list(DetectRun(request(*inputs, output=whole, wanted=wanted)).reports())
    stop_after(DetectRun(request(*inputs, output=parts, wanted=wanted)), count)
    assert not read(parts, "summary.json")["complete"]
    assert len(read(parts, "images.json")["images"]) == count - (count > 2)
    rest = list(DetectRun(request(*inputs, output=parts, wanted=wanted, existing="resume")).reports())
    assert len(rest) == 16 - count
    assert without_times(parts) == without_times(whole)
    assert files_of(parts) == files_of(whole)
    clips = [open_clip(output / "overlay" / "clip.webm") for output in (whole, parts)]
    assert [clip.num_frames for clip in clips] == [12, 12]
    for first, second in zip(*(clip.frames() for clip in clips), strict=True):
        assert (first.image.int() - second.image.int()).abs().float().mean() < 1


def test_a_run_killed_in_the_middle_of_a_line_resumes_to_the_same_results(colours, photos: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(DetectRun(request(photos, output=whole)).reports())
    stop_after(DetectRun(request(photos, output=parts)), 2)
    lines = parts / ".rotoscope" / "detections.jsonl"
    lines.write_bytes(lines.read_bytes()[:-30])
    (parts / "summary.json").unlink()
    list(DetectRun(request(photos, output=parts, existing="resume")).reports())
    assert without_times(parts) == without_times(whole)


def test_resuming_a_finished_run_does_nothing(colours, photos: Path, tmp_path: Path) -> None:
    list(DetectRun(request(photos, output=tmp_path / "out")).reports())
    colours.batches.clear()
    run = DetectRun(request(photos, output=tmp_path / "out", existing="resume"))
    assert list(run.reports()) == []
    assert (run.summary["num_images"], colours.batches) == (3, [])


def test_a_run_is_replaced_on_request_only_and_foreign_files_stay(colours, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    list(DetectRun(request(photos, output=output, wanted=Wanted(instances=True))).reports())
    (output / "overlay" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds a run already"):
        list(DetectRun(request(photos, output=output)).reports())
    with pytest.raises(InputError, match=r"score was 0\.15, is 0\.5"):
        list(DetectRun(request(photos, output=output, score=0.5, existing="resume")).reports())
    list(DetectRun(request(photos / "img1.png", output=output, existing="overwrite")).reports())
    assert files_of(output) == ["detections.json", "images.json", "overlay/img1.jpg", "overlay/mine.txt", "summary.json"]
    assert len(read(output, "images.json")["images"]) == 1


def test_two_runs_on_one_folder_are_refused(colours, photos: Path, tmp_path: Path) -> None:
    first = DetectRun(request(photos, output=tmp_path / "out")).reports()
    next(first)
    with pytest.raises(OutputError, match="another run is writing"):
        list(DetectRun(request(photos, output=tmp_path / "out", existing="resume")).reports())
    first.close()


def test_a_full_disk_leaves_what_is_valid_and_can_be_resumed(colours, photos: Path, tmp_path: Path, monkeypatch) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    list(DetectRun(request(photos, output=whole)).reports())
    real = detect_writers.write_image

    def failing(path: Path, drawn: np.ndarray) -> None:
        if path.name == "img10.jpg":
            message = "the disk is full"
            raise OutputError(message)
        real(path, drawn)

    monkeypatch.setattr(detect_writers, "write_image", failing)
    with pytest.raises(OutputError, match="the disk is full"):
        list(DetectRun(request(photos, output=output)).reports())
    assert not read(output, "summary.json")["complete"]
    assert len(read(output, "images.json")["images"]) == 2
    monkeypatch.setattr(detect_writers, "write_image", real)
    list(DetectRun(request(photos, output=output, existing="resume")).reports())
    assert without_times(output) == without_times(whole)


def test_a_model_that_fails_names_the_picture(colours, photos: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(frame: object) -> None:
        message = "out of memory\nlong story"
        raise RuntimeError(message)

    monkeypatch.setattr(colours, "detect", fail)
    with pytest.raises(PropagationError, match=r"the model failed on img1\.png \(out of memory\)"):
        list(DetectRun(request(photos, output=tmp_path / "out")).reports())


def test_ids_come_from_a_ground_truth_on_request(colours, photos: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": [{"id": 71, "file_name": "img2.png"}], "categories": [{"id": 58, "name": "hot dog"}]}))
    run = DetectRun(request(photos, output=tmp_path / "out", ground_truth=truth))
    list(run.reports())
    assert [(one["image_id"], one["category_id"]) for one in read(tmp_path / "out", "detections.json")] == [(71, 58)]
    assert [image["id"] for image in read(tmp_path / "out", "images.json")["images"]] == [71]
    assert len(run.notes) == 3


def test_the_model_is_told_what_nobody_wants(colours, photos: Path, tmp_path: Path) -> None:
    DetectRun(request(photos, output=tmp_path / "out", score=0.3, classes=("person",)))
    assert colours.settings == {"weights": None, "device": "auto", "min_score": 0.3, "only_classes": ("person",)}
    DetectRun(request(photos, output=tmp_path / "out", classes=("hot dog",), settings={"min_score": 0.01}))  # not a class of yolact-lite as it ships
    assert colours.settings == {"weights": None, "device": "auto", "min_score": 0.01}


@pytest.mark.parametrize(
    ("changes", "message"), [({"batch": 0}, "--batch 0"), ({"max_frames": 0}, "--max-frames 0"), ({"score": -0.1}, "least score")]
)
def test_numbers_out_of_range_are_refused(colours, photos: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DetectRun(request(photos, output=tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_coco_s_classes_have_coco_s_ids() -> None:
    categories = own_categories(COCO_CLASSES)
    assert (categories.id_of(0), categories.id_of(COCO_CLASSES.index("hot dog")), categories.id_of(79)) == (1, 58, 90)
    assert own_categories(("cat", "person")).ids == (1, 2)
    assert own_categories(()).id_of(4) == 5
