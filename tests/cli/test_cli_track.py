import json
import os
import signal
from pathlib import Path

import pytest

from rotoscope.cli import track as track_command
from rotoscope.cli.__main__ import main
from rotoscope.cli.track import chosen_settings, parse_bytes, parse_frames, parse_masks
from rotoscope.errors import InputError, RotoscopeError
from rotoscope.jobs import work


def run(clip: Path, mask: Path, output: Path, *more: str) -> int:
    return main(["track", str(clip), "--mask", str(mask), "-o", str(output), *more])


def test_tracking_says_what_it_made(smear, clip_folder, first_mask, tmp_path, capsys) -> None:
    assert run(clip_folder, first_mask, tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "12 frames at" in said.out
    assert "objects [1, 4]" in said.out
    assert said.err == ""


def test_json_is_a_line_per_frame_and_then_the_summary(smear, clip_folder, first_mask, tmp_path, capsys) -> None:
    assert run(clip_folder, first_mask, tmp_path / "out", "--json", "--max-frames", "3") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["frame_index"] for line in lines[:-1]] == [0, 1, 2]
    assert lines[-1]["complete"] is True
    assert "frames" not in lines[-1]


def test_an_interrupt_finishes_the_frame_and_says_how_to_resume(smear, clip_folder, first_mask, tmp_path, capsys, monkeypatch) -> None:
    real = work.result_of

    def interrupting(frame, masks, *, given):
        if frame.index == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(frame, masks, given=given)

    monkeypatch.setattr(work, "result_of", interrupting)
    assert run(clip_folder, first_mask, tmp_path / "out") == 130
    assert "--resume" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "masks" / "clip").glob("*.png"))) == 5
    monkeypatch.setattr(work, "result_of", real)
    assert run(clip_folder, first_mask, tmp_path / "out", "--resume") == 0
    assert len(list((tmp_path / "out" / "masks" / "clip").glob("*.png"))) == 12


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume", "--overwrite"], "exclude each other"),
        (["--max-memory", "plenty"], "write it like 512MB"),
        (["--frames", "3-9"], "START:STOP"),
        (["--frames", "40:50"], "cover nothing of 12 frames"),
        (["--mask", "77=first.png"], "frame 77"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(smear, clip_folder, first_mask, tmp_path, capsys, more, message) -> None:
    assert run(clip_folder, first_mask, tmp_path / "out", *more) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "expected"), [("512MB", 512 * 2**20), ("1.5g", 3 * 2**29), ("800KiB", 800 * 1024), ("7", 7)])
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "0", "1e9"])
def test_amounts_of_memory_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("frames", "max_frames", "expected"),
    [(None, None, (0, None)), ("5:", None, (5, None)), (":9", None, (0, 9)), ("5:9", 2, (5, 7)), (None, 4, (0, 4)), ("5:9", 100, (5, 9))],
)
def test_ranges_of_frames(frames, max_frames, expected) -> None:
    assert parse_frames(frames, max_frames) == expected


def test_masks_may_be_numbered_or_come_in_a_folder(tmp_path: Path, clip_folder: Path, first_mask: Path) -> None:
    video = str(clip_folder)
    assert parse_masks([str(first_mask), f"30={first_mask}"], video) == {0: first_mask, 30: first_mask}
    folder = tmp_path / "masks"
    folder.mkdir()
    (folder / "00007.png").write_bytes(first_mask.read_bytes())
    assert parse_masks([str(folder)], video) == {7: folder / "00007.png"}
    (clip_folder / "00003.png").unlink()  # a gap in the numbers: the mask goes with the name, not with the position
    assert parse_masks([str(folder)], video) == {6: folder / "00007.png"}
    with pytest.raises(RotoscopeError, match="two masks are given for frame 0"):
        parse_masks([str(first_mask), str(first_mask)], video)


def test_a_camera_is_named_by_its_number(monkeypatch, smear, first_mask, tmp_path) -> None:
    asked = []

    def opened(request):
        asked.append(request.video)
        message = "no camera"
        raise InputError(message)

    monkeypatch.setattr(work, "TrackRun", opened)
    assert main(["track", "0", "--mask", str(first_mask), "-o", str(tmp_path / "out")]) == 2
    assert asked == [0]
    assert track_command.INTERRUPTED == 130


def test_settings_that_were_not_asked_for_are_left_to_the_model() -> None:
    assert chosen_settings("float32", None, compiled=False) == {}
    assert chosen_settings("bfloat16", 800, compiled=True) == {"precision": "bfloat16", "long_edge": 800, "compile": True}
    with pytest.raises(InputError, match="16 or more"):
        chosen_settings("float32", 3, compiled=False)
    assert chosen_settings("float32", None, "0.5, 1", compiled=False) == {"scales": (0.5, 1.0)}
    with pytest.raises(InputError, match="'half' is no list of scales"):
        chosen_settings("float32", None, "half", compiled=False)


def test_a_setting_that_the_model_lacks_is_refused(clip_folder, first_mask, tmp_path, capsys) -> None:
    assert run(clip_folder, first_mask, tmp_path / "out", "--model", "mast-lite", "--precision", "bfloat16") == 2
    assert "'mast-lite' has no setting precision; it has" in capsys.readouterr().err
