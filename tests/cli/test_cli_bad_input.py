"""Bad input through the real command line: one clear line, exit code 2, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from rotoscope.cli.__main__ import main

Make = Callable[[Path], Path]


def image(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def text_called_mp4(folder: Path) -> Path:
    (folder / "clip.mp4").write_text("this is no video")
    return folder / "clip.mp4"


def empty_file(folder: Path) -> Path:
    (folder / "clip.mp4").touch()
    return folder / "clip.mp4"


def sound_only(folder: Path) -> Path:
    path = folder / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def folder_without_images(folder: Path) -> Path:
    (folder / "clip").mkdir()
    (folder / "clip" / "notes.txt").write_text("nothing here")
    return folder / "clip"


def damaged_image(folder: Path) -> Path:
    (folder / "clip").mkdir()
    image(folder / "clip" / "0.png", np.zeros((24, 32, 3), dtype=np.uint8))
    (folder / "clip" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    return folder / "clip"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere.mp4", "nowhere.mp4"),
        (text_called_mp4, "clip.mp4"),
        (empty_file, "empty"),
        (sound_only, "no video"),
        (folder_without_images, "clip"),
    ],
)
def test_a_video_that_is_none(smear, make: Make, message: str, first_mask: Path, tmp_path: Path, capsys) -> None:
    assert_refused(make(tmp_path), first_mask, tmp_path / "out", message, capsys)


def test_a_damaged_image_in_the_middle_is_named_and_what_came_before_stays(smear, first_mask: Path, tmp_path: Path, capsys) -> None:
    assert main(["track", str(damaged_image(tmp_path)), "--mask", str(first_mask), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip()
    assert "1.png" in said
    assert "Traceback" not in said
    assert (tmp_path / "out" / "masks" / "clip" / "0.png").is_file()


def labels(*shape: int) -> np.ndarray:
    pixels = np.zeros(shape, dtype=np.uint8)
    pixels[4:12, 3:9] = 1
    return pixels


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere.png", "nowhere.png"),
        (lambda folder: image(folder / "m.png", labels(20, 30)), "30x20 but the frame is 32x24"),
        (lambda folder: image(folder / "m.png", labels(24, 32) * 0), "is empty"),
        (lambda folder: text_called_mp4(folder).rename(folder / "m.png"), "m.png"),
    ],
)
def test_a_mask_that_cannot_be_used(smear, make: Make, message: str, clip_folder: Path, tmp_path: Path, capsys) -> None:
    assert_refused(clip_folder, make(tmp_path), tmp_path / "out", message, capsys)


def test_a_mask_of_another_size_is_accepted_on_request(smear, clip_folder: Path, tmp_path: Path, capsys) -> None:
    mask = image(tmp_path / "m.png", labels(48, 64))
    assert main(["track", str(clip_folder), "--mask", str(mask), "-o", str(tmp_path / "out"), "--resize-mask"]) == 0
    assert "resized" in capsys.readouterr().err


def test_masks_that_need_a_guess_say_so(smear, clip_folder: Path, tmp_path: Path, capsys) -> None:
    smooth = labels(24, 32).astype(np.uint8) * 255
    smooth[3, 3:9], smooth[12, 3:9], smooth[4:12, 2], smooth[4:12, 9] = 60, 130, 190, 90
    assert main(["track", str(clip_folder), "--mask", str(image(tmp_path / "m.png", smooth)), "-o", str(tmp_path / "out")]) == 0
    assert "note:" in capsys.readouterr().err
    ignored = labels(24, 32)
    ignored[20:] = 255
    arguments = ["track", str(clip_folder), "--mask", str(image(tmp_path / "m.png", ignored)), "-o", str(tmp_path / "out"), "--overwrite"]
    assert main(arguments) == 0
    assert "ignore" in capsys.readouterr().err


def test_ids_with_gaps_are_kept(smear, clip_folder: Path, tmp_path: Path, capsys) -> None:
    pixels = labels(24, 32) * 200
    pixels[14:20, 10:20] = 3
    assert main(["track", str(clip_folder), "--mask", str(image(tmp_path / "m.png", pixels)), "-o", str(tmp_path / "out")]) == 0
    assert "objects [3, 200]" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "masks" / "clip" / "00000.png") as stored:
        assert np.array_equal(np.asarray(stored), pixels)


def test_an_output_folder_that_cannot_be_used(smear, clip_folder: Path, first_mask: Path, tmp_path: Path, capsys) -> None:
    assert main(["track", str(clip_folder), "--mask", str(first_mask), "-o", str(first_mask)]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err
    assert main(["track", str(clip_folder), "--mask", str(first_mask), "-o", "/proc/rotoscope"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"weight": torch.ones(3)}, "which the model does not know"),
        (dict, "holds no named tensors"),
        (lambda: {"state_dict": {"_conv_stem.weight": torch.full((32, 3, 3, 3), float("nan"))}}, "mast-lite"),
    ],
)
def test_weights_that_do_not_fit(content, message: str, clip_folder: Path, first_mask: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "mast-lite.pth"
    torch.save(content(), path)
    assert_refused(clip_folder, first_mask, tmp_path / "out", message, capsys, "--weights", str(path))


def test_weights_that_are_no_checkpoint(clip_folder: Path, first_mask: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"no checkpoint")
    assert_refused(clip_folder, first_mask, tmp_path / "out", "not a checkpoint", capsys, "--weights", str(path))


def test_a_model_or_device_that_does_not_exist(clip_folder: Path, first_mask: Path, tmp_path: Path, capsys) -> None:
    assert_refused(clip_folder, first_mask, tmp_path / "out", "no model 'sam'", capsys, "--model", "sam")
    assert_refused(clip_folder, first_mask, tmp_path / "out", "device 'cuda:77'", capsys, "--device", "cuda:77")


def test_a_live_stream_needs_a_number_of_frames(first_mask: Path, tmp_path: Path, capsys) -> None:
    assert main(["track", "rtsp://127.0.0.1:9/none", "--mask", str(first_mask), "-o", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def assert_refused(video: Path, mask: Path, output: Path, message: str, capsys, *more: str) -> None:
    assert main(["track", str(video), "--mask", str(mask), "-o", str(output), *more]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not output.exists()
