import json
import os
import signal
from pathlib import Path

import pytest
from detect_fixtures import put_picture, put_video
from PIL import Image

from rotoscope.cli.__main__ import main
from rotoscope.cli.detect import parse_settings
from rotoscope.errors import InputError
from rotoscope.models.checkpoints import write_checkpoint
from rotoscope.models.yolact import VARIANTS, YolactNetwork
from rotoscope.testing import filled


def run(*arguments: object) -> int:
    return main(["detect", *map(str, arguments)])


def test_detecting_says_what_it_found(colours, photos: Path, tmp_path: Path, capsys) -> None:
    assert run(photos, "-o", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert said.out.startswith("3 objects in 3 images: 2 person, 1 hot dog\n")
    assert "images/s" in said.out
    assert "in the network alone, with yolact-lite" in said.out
    assert said.err == f"note: files of {photos} that are no images by their names, and were passed over: 1\n"


def test_the_output_folder_is_called_detections_unless_named(colours, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("photos", "--no-overlay") == 0
    assert sorted(path.name for path in (tmp_path / "detections").iterdir()) == [".rotoscope", "detections.json", "images.json", "summary.json"]


def test_json_is_a_line_per_image_and_then_the_summary(colours, photos: Path, tmp_path: Path, capsys) -> None:
    (photos / "img10.png").write_bytes(b"no image")
    assert run(photos, "-o", tmp_path / "out", "--json") == 2
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines[0] == {
        "id": 1, "file_name": "img1.png", "width": 64, "height": 48,
        "detections": [{"class": "person", "category_id": 1, "bbox": [4, 8, 16, 16], "score": 0.9}],
    }  # fmt: skip
    assert lines[2]["skipped"].startswith(str(photos / "img10.png"))
    assert (lines[3]["complete"], len(lines), said.err) == (True, 4, "")


def test_unreadable_images_are_counted_and_the_exit_code_is_2(colours, photos: Path, tmp_path: Path, capsys) -> None:
    for number in range(5):
        (photos / f"bad{number}.jpg").write_bytes(b"no image")
    assert run(photos, "-o", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "warning: 5 of 8 images could not be read: bad0.jpg, bad1.jpg, bad2.jpg, ...; summary.json says why" in said.err
    assert "3 objects in 3 images" in said.out
    only_bad = tmp_path / "bad"
    only_bad.mkdir()
    (only_bad / "a.png").write_bytes(b"no image")
    assert run(only_bad, "-o", tmp_path / "none") == 2
    assert "0 objects in 0 images\nnothing was looked at" in capsys.readouterr().out
    assert json.loads((tmp_path / "none" / "detections.json").read_text()) == []


def test_an_interrupt_finishes_the_image_and_says_how_to_resume(colours, tmp_path: Path, capsys, monkeypatch) -> None:
    video, output = put_video(tmp_path / "clip.mp4"), tmp_path / "out"
    real = colours.detect

    def interrupting(frame):
        if frame.index == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(frame)

    monkeypatch.setattr(colours, "detect", interrupting)
    assert run(video, "-o", output) == 130
    assert "--resume" in capsys.readouterr().err
    assert len(json.loads((output / "images.json").read_text())["images"]) == 5
    monkeypatch.setattr(colours, "detect", real)
    assert run(video, "-o", output, "--resume") == 0
    assert "18 objects in 12 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume", "--overwrite"], "exclude each other"),
        (["--score", "2"], "the least score is 2.0"),
        (["--top-k", "0"], "the best 0"),
        (["--batch", "0"], "--batch 0"),
        (["--classes", "person,unicorn"], "no class 'unicorn'"),
        (["--classes", ""], "no class ''"),
        (["--set", "size=3"], "'size=3' sets nothing of 'yolact-lite'; write FIELD=VALUE with one of class_names"),
        (["--set", "image_size=large"], "'image_size=large' is no value of image_size, which is"),
        (["--model", "no-such"], "there is no model 'no-such'"),
        (["--ground-truth", "none.json"], "none.json cannot be read"),
        (["nowhere.jpg"], "there is no image nowhere.jpg"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(colours, photos: Path, tmp_path: Path, capsys, more, message) -> None:
    assert run(photos, "-o", tmp_path / "out", *more) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_tracker_is_no_detector(photos: Path, tmp_path: Path, capsys) -> None:
    assert run(photos, "-o", tmp_path / "out", "--model", "mast-lite") == 2
    assert "its task is 'track'; models that detect: yolact-base" in capsys.readouterr().err


def test_weights_that_are_missing_say_where_to_get_them(photos: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("ROTOSCOPE_WEIGHTS", str(tmp_path))
    assert run(photos, "-o", tmp_path / "out", "--model", "yolact-base") == 2
    assert "yolact_base_54_800000.pth" in capsys.readouterr().err


def test_settings_are_read_as_their_fields_are() -> None:
    settings = parse_settings("yolact-lite", ["image_size=400", "suppression=classic", "overlap_threshold=0.4", "only_classes=person", "top_k=9"])
    assert settings == {"image_size": 400, "suppression": "classic", "overlap_threshold": 0.4, "only_classes": ("person",), "top_k": 9}
    assert parse_settings("whatever", []) == {}
    with pytest.raises(InputError, match="no value of suppression"):
        parse_settings("yolact-lite", ["suppression=soft"])


def test_settings_and_thresholds_reach_the_model(colours, photos: Path, tmp_path: Path) -> None:
    assert run(photos, "-o", tmp_path / "out", "--set", "image_size=320", "--score", "0.5", "--classes", " person", "--device", "cpu") == 0
    assert colours.settings == {"weights": None, "device": "cpu", "min_score": 0.5, "only_classes": ("person",), "image_size": 320}
    assert run(photos, "-o", tmp_path / "out", "--set", "image_size=320", "--resume", "--score", "0.5", "--classes", "person") == 0


@pytest.mark.parametrize(
    ("mode", "hw"), [("L", (48, 64)), ("1", (1, 1)), ("CMYK", (48, 64)), ("I;16", (48, 64)), ("RGBA", (48, 64)), ("RGB", (5, 2000))]
)
def test_pictures_of_every_kind_go_through_the_command(colours, tmp_path: Path, mode: str, hw: tuple[int, int]) -> None:
    path = tmp_path / f"odd.{'tif' if mode == 'CMYK' else 'png'}"
    Image.new(mode, hw[::-1]).save(path)
    assert run(path, "-o", tmp_path / "out", "--instances") == 0
    (entry,) = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert (entry["height"], entry["width"]) == hw
    assert (tmp_path / "out" / "overlay" / "odd.jpg").is_file()


def test_boxes_refer_to_the_upright_picture(colours, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: the square at (4, 8) of 64x48 comes to lie at (48 - 8 - 16, 4)
    with Image.open(put_picture(tmp_path / "a.png")) as image:
        image.save(tmp_path / "phone.png", exif=exif)
    assert run(tmp_path / "phone.png", "-o", tmp_path / "out") == 0
    (result,) = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert result["bbox"] == [24, 4, 16, 16]
    assert result["segmentation"]["size"] == [64, 48]


def synthetic_weights(path: Path) -> Path:
    """Weights of yolact-lite that find something in any picture."""
    state = YolactNetwork(VARIANTS["yolact-lite"]).state_dict()
    tensors = {key: filled(key, tuple(tensor.shape), str(tensor.dtype)) for key, tensor in state.items()}
    write_checkpoint(path, tensors, model="yolact-lite", official=False)
    return path


def test_a_real_network_runs_end_to_end(photos: Path, tmp_path: Path) -> None:
    weights = synthetic_weights(tmp_path / "synthetic.safetensors")
    arguments = ("--weights", weights, "--set", "image_size=128", "--score", "0", "--top-k", "3", "--device", "cpu", "--batch", "2")
    assert run(photos, "-o", tmp_path / "out", *arguments) == 0
    results = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(results) == 9
    assert {one["category_id"] for one in results} <= {1, 2}
    assert all(one["segmentation"]["size"] == [48, 64] for one in results)
    assert all(0 <= x <= x + width <= 64 and 0 <= y <= y + height <= 48 for x, y, width, height in (one["bbox"] for one in results))
