"""`rotoscope track --detect` and `--youtube-vis`."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from looking import LabelDetector, Seen, load_stand_ins, moving, painted, write_painted
from PIL import Image

from rotoscope.cli.__main__ import main
from rotoscope.jobs import work

TRACKS = [moving((4, 6, 18, 20), 14), moving((40, 24, 56, 42), 14, within=range(3, 14))]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Object 2 comes late."""
    return write_painted(tmp_path / "clip", TRACKS)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> LabelDetector:
    return load_stand_ins(monkeypatch, TRACKS)


def run(clip: Path, output: Path, *more: str) -> int:
    return main(["track", str(clip), "-o", str(output), "--overlay", "none", *more])


def test_a_video_goes_in_and_nothing_else(detector, clip, tmp_path, capsys) -> None:
    assert run(clip, tmp_path / "out", "--detect", "--every", "4") == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[:3] == [
        "object 1: ball 0.90, 14 frames from 0 to 13",
        "object 2: box 0.90, 10 frames from 4 to 13",
        said.out.splitlines()[2],
    ]
    assert "14 frames at" in said.out
    assert "objects [1, 2]" in said.out
    assert said.err == ""
    assert detector.looks == [0, 4, 8, 12]


def test_classes_scores_and_numbers_of_objects_can_be_limited(detector, clip, tmp_path, capsys) -> None:
    assert run(clip, tmp_path / "one", "--detect", "--every", "4", "--classes", "box, cone") == 0
    assert "object 1: box 0.90, 10 frames" in capsys.readouterr().out
    assert run(clip, tmp_path / "two", "--detect", "--every", "4", "--max-objects", "1") == 0
    said = capsys.readouterr()
    assert "objects [1]" in said.out
    assert "warning: there was more than the 1 objects" in said.err
    assert run(clip, tmp_path / "three", "--detect", "--every", "4", "--min-score", "0.95") == 0
    assert "object 1: ball 0.90, 10 frames from 4 to 13" in capsys.readouterr().out


def test_nothing_found_is_no_failure_and_said_once(detector, clip, tmp_path, capsys) -> None:
    detector.see = lambda index, seen: []
    assert run(clip, tmp_path / "out", "--detect") == 0
    said = capsys.readouterr()
    assert "objects []" in said.out
    assert said.err.count("no object was found: the detector saw nothing") == 1
    assert len(list((tmp_path / "out" / "masks" / "clip").glob("*.png"))) == 14


def test_a_mask_and_the_detector_work_together(detector, clip, tmp_path, capsys) -> None:
    mask = tmp_path / "first.png"
    Image.fromarray((9 * (painted(TRACKS)[1][0] == 1)).to(torch.uint8).numpy()).save(mask)
    assert run(clip, tmp_path / "out", "--mask", str(mask), "--detect", "--every", "4") == 0
    said = capsys.readouterr().out
    assert "object 9: ball 1.00, 14 frames from 0 to 13" in said
    assert "object 10: box 0.90, 10 frames from 4 to 13" in said


def test_json_ends_with_the_summary_and_its_objects(detector, clip, tmp_path, capsys) -> None:
    tracks = tmp_path / "tracks.json"
    assert run(clip, tmp_path / "out", "--detect", "--every", "4", "--json", "--youtube-vis", str(tracks)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["class"] for one in lines[-1]["objects"]] == ["ball", "box"]
    assert lines[2]["objects"] == {"1": {"area_pixels": 196, "confidence": 1.0}}
    content = json.loads(tracks.read_text())
    assert [one["name"] for one in content["categories"]] == list(LabelDetector.class_names)
    assert [one["areas"][3:5] for one in content["annotations"]] == [[196, 196], [None, 288]]


def test_an_interrupted_search_says_how_to_go_on_and_does(detector, clip, tmp_path, capsys, monkeypatch) -> None:
    real = work.result_of

    def interrupting(frame, masks, *, given):
        if frame.index == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return real(frame, masks, given=given)

    search = ["--detect", "--every", "4", "--youtube-vis", str(tmp_path / "tracks.json")]
    monkeypatch.setattr(work, "result_of", interrupting)
    assert run(clip, tmp_path / "out", *search) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "tracks.json").exists()
    monkeypatch.setattr(work, "result_of", real)
    assert run(clip, tmp_path / "out", *search, "--resume") == 0
    assert "object 2: box 0.90, 10 frames from 4 to 13" in capsys.readouterr().out
    assert (tmp_path / "tracks.json").exists()


def test_detections_in_doubt_are_followed_once_they_are_seen_again(detector, clip, tmp_path, capsys) -> None:
    def in_doubt(index: int, seen: list[Seen]) -> list[Seen]:
        return [(mask, 0.3, class_id) for mask, _, class_id in seen]

    detector.see = in_doubt
    assert run(clip, tmp_path / "out", "--detect", "--every", "4") == 0
    assert "object 1: ball 0.30, 10 frames from 4 to 13" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "no mask is given"),
        (["--classes", "ball"], "--classes is for the detector; add --detect"),
        (["--max-objects", "3"], "--max-objects is for the detector; add --detect"),
        (["--detector-weights", "w.pth"], "--detector-weights is for the detector; add --detect"),
        (["--detect", "--every", "0"], "--every 0 finds nothing; give 1 or more"),
        (["--detect", "--min-score", "7"], "--min-score 7.0 is out of range; give 0 to 1"),
        (["--detect", "--classes", ","], "the model has no class ''; its classes are ball, box, cone, disc"),
        (["--detect", "--classes", "sofa"], "the model has no class 'sofa'; its classes are ball, box, cone, disc"),
        (["--detect", "--frames", "30:40"], "cover nothing of 14 frames"),
        (["--detect", "--youtube-vis", "."], "is a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(detector, clip, tmp_path, capsys, more, message) -> None:
    assert run(clip, tmp_path / "out", *more) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--detector", "yolact-nano"], "there is no model 'yolact-nano'"),
        (["--detector", "mast"], "'mast' is not made for this: its task is 'track'; models that detect:"),
        (["--detector", "yolact-base"], "--detector-weights"),
    ],
)
def test_a_detector_that_cannot_be_had_is_explained(clip, tmp_path, capsys, more, message) -> None:
    assert run(clip, tmp_path / "out", "--detect", *more) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
