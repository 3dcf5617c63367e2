import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from davis_roots import given_frames, write_labels, write_root

from rotoscope.cli.__main__ import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_root(tmp_path / "davis", {"cat": given_frames(), "dog": given_frames()})
    shutil.move(root / "Annotations", root / "Annotations_unsupervised")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_labels(tmp_path / "out" / "cat", [frame * 5 for frame in given_frames()])
    write_labels(tmp_path / "out" / "dog", [np.where(frame == 1, frame, 0).astype(np.uint8) for frame in given_frames()])
    return tmp_path / "out"


def run(root: Path, out: Path, *options: str) -> int:
    return main(["evaluate", "davis17-unsupervised", "--data", str(root), "--predictions", str(out), *options])


def test_json_has_the_scores_and_the_proposals(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, out, "--json") == 0
    printed, err = capsys.readouterr()
    said = json.loads(printed)
    assert said["clips"]["cat"]["j_and_f"] == 1
    assert said["clips"]["cat"]["objects"]["2"]["proposal"] == 10
    assert said["clips"]["dog"]["objects"]["2"]["proposal"] is None
    assert said["j"] == pytest.approx((1 + 1 + 1 + 2 / 5) / 4)
    assert err == ""


def test_the_table_and_the_csv_have_a_line_per_object(root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, out, "--clips", "dog", "--workers", "1", "--csv", str(tmp_path / "scores.csv")) == 0
    printed, err = capsys.readouterr()
    assert any(line.split()[:2] == ["all", "mean"] for line in printed.splitlines())
    assert "note:" not in err
    lines = list(csv.DictReader((tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert [(one["object"], one["j"]) for one in lines if one["clip"] == "dog"] == [("1", "1.0"), ("2", "0.4"), ("mean", "0.7")]


def test_another_folder_of_annotations_is_told(root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move(root / "Annotations_unsupervised", root / "Annotations")
    assert run(root, out) == 0
    assert f"note: {root} has no Annotations_unsupervised" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "predictions", "options", "said"),
    [
        ("nowhere", "out", [], "nowhere does not exist; give a DAVIS root"),
        ("davis", "nowhere", [], "nowhere is not a folder; give the folder with the predicted masks"),
        ("davis", "out", ["--clips", "cow"], "there are: cat, dog"),
        ("davis", "crowded", ["--clips", "cat"], "clip 'cat' has 24 proposals; at most 20"),
        ("davis", "small", ["--clips", "cat"], "the prediction of frame 00000 is 6x5"),
        ("davis", "short", ["--clips", "cat"], "have no prediction"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    root: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, predictions: str, options: list[str], said: str
) -> None:
    crowded = [frame.copy() for frame in given_frames()]
    crowded[0][:2] = np.arange(1, 25).reshape(2, 12)
    write_labels(tmp_path / "crowded" / "cat", crowded)
    write_labels(tmp_path / "small" / "cat", [frame[::2, ::2].copy() for frame in given_frames()])
    write_labels(tmp_path / "short" / "cat", given_frames()[:4])
    assert run(tmp_path / data, tmp_path / predictions, *options) == 2
    printed, err = capsys.readouterr()
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert printed == ""
