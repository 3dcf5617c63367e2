import json
from pathlib import Path

import pytest
from clip_fixtures import SmearTracker
from davis_roots import given_frames, predicted_frames, write_labels, write_root

from rotoscope.cli import evaluate
from rotoscope.cli.__main__ import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "davis", {"cat": given_frames(), "dog": given_frames()})


@pytest.fixture
def scored(tmp_path: Path, root: Path) -> list[str]:
    """The arguments that score one right and one partly wrong clip."""
    write_labels(tmp_path / "out" / "cat", given_frames())
    write_labels(tmp_path / "out" / "dog", predicted_frames())
    return ["evaluate", "davis", "--predictions", str(tmp_path / "out"), "--ground-truth", str(root)]


def test_json_is_one_object_with_means_and_clips(scored: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*scored, "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["clips"].keys() == {"cat", "dog"}
    assert said["clips"]["cat"]["j_and_f"] == 1
    assert said["clips"]["dog"]["objects"]["1"]["j"] == pytest.approx(4 / 9)
    assert said["j"] == pytest.approx((1 + 1 + 4 / 9 + 2 / 3) / 4)
    assert said["j_and_f"] == pytest.approx((said["j"] + said["f"]) / 2)
    assert said["fps"] is None
    assert err == ""


def test_the_table_comes_with_notes_and_files(scored: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = [frame.copy() for frame in given_frames()]
    frames[2][0, 0] = 9
    write_labels(tmp_path / "out" / "cat", frames)
    files = ["--csv", str(tmp_path / "report" / "scores.csv"), "--plots", str(tmp_path / "plots")]
    assert main([*scored, *files, "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert "recall" in out
    assert any(line.replace("│", " ").split()[:2] == ["all", "mean"] for line in out.splitlines())
    assert "note: clip 'cat': predicted ids [9]" in err
    assert (tmp_path / "report" / "scores.csv").is_file()
    assert (tmp_path / "report" / "scores-frames.csv").is_file()
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["cat.png", "dog.png"]


def test_clips_choose_and_year_merges(scored: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*scored, "--json", "--clips", " dog, ", "--year", "2016"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["clips"]) == ["dog"]
    assert list(said["clips"]["dog"]["objects"]) == ["1"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_model_is_run_and_scored(root: Path, tmp_path: Path, smear: SmearTracker, capsys: pytest.CaptureFixture[str], keep: bool) -> None:
    output = ["--output", str(tmp_path / "kept")] if keep else []
    assert main(["evaluate", "davis", "--model", "default", "--data", str(root), "--json", *output]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["fps"] > 0
    assert said["clips"]["cat"] == said["clips"]["dog"]
    assert 0 < said["j"] < 1
    assert err == ""
    if keep:
        assert main(["evaluate", "davis", "--predictions", str(tmp_path / "kept"), "--ground-truth", str(root), "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert {**again, "fps": 0} == {**said, "fps": 0}


def test_the_speed_of_a_model_is_told(root: Path, smear: SmearTracker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "davis", "--model", "default", "--data", str(root), "--clips", "cat"]) == 0
    assert "frames/s, the loading of the model and the writing of masks not counted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give either --predictions DIR and --ground-truth DIR"),
        (["--predictions", "{out}"], "give either"),
        (["--model", "mast-lite", "--ground-truth", "{root}"], "give either"),
        (["--predictions", "{out}", "--ground-truth", "{root}", "--data", "{root}"], "give either"),
        (["--predictions", "{out}", "--ground-truth", "{root}", "--output", "{out}"], "--weights and --output belong to --model"),
        (["--predictions", "{out}", "--ground-truth", "{out}"], "holds no Annotations folder"),
        (["--predictions", "{root}", "--ground-truth", "{root}", "--clips", "cow"], "there are: cat, dog"),
        (["--predictions", "{out}", "--ground-truth", "{root}", "--csv", "{out}"], "is a folder; give the name of a file"),
        (["--predictions", "{out}", "--ground-truth", "{root}", "--plots", "{file}"], "cannot be a folder for results"),
        (["--model", "no-such-model", "--data", "{root}"], "there is no model 'no-such-model'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(scored: list[str], tmp_path: Path, capsys, options: list[str], said: str) -> None:
    (tmp_path / "file").write_text("")
    places = {"root": tmp_path / "davis", "out": tmp_path / "out", "file": tmp_path / "file"}
    assert main(["evaluate", "davis", *(option.format(**places) for option in options)]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


@pytest.mark.parametrize(("num_frames", "workers"), [(50, 1), (999, 1), (1999, 2), (9000, 2)])
def test_processes_are_started_only_where_they_pay(monkeypatch: pytest.MonkeyPatch, num_frames: int, workers: int) -> None:
    class Files:
        annotation_paths = range(num_frames)

    monkeypatch.setattr(evaluate.os, "cpu_count", lambda: 2)
    assert evaluate._enough_workers([Files()]) == workers
