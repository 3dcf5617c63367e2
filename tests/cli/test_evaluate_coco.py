import json
from pathlib import Path
from typing import Any

import pytest
from coco_parts import annotation, detection, instances, two_images, write_json

from rotoscope.cli.__main__ import main


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    found, truth = two_images()
    predictions, ground_truth = write_json(tmp_path / "out.json", found), write_json(tmp_path / "gt.json", truth)
    return ["evaluate", "coco", "--predictions", str(predictions), "--ground-truth", str(ground_truth)]


def test_json_is_one_object_with_masks_and_boxes(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert list(said) == ["evaluator", "segm", "bbox", "notes"]
    assert said["segm"]["ap"] == pytest.approx(0.5437, abs=1e-4)
    assert err == ""


@pytest.mark.parametrize(("options", "kinds"), [(["--kind", "bbox"], ["bbox"]), (["--kind", "segm"], ["segm"]), ([], ["segm", "bbox"])])
@pytest.mark.parametrize("evaluator", ["coco", "official"])
def test_kind_and_evaluator_choose(
    files: list[str], capsys: pytest.CaptureFixture[str], options: list[str], kinds: list[str], evaluator: str
) -> None:
    assert main([*files, "--json", "--evaluator", evaluator, *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [name for name in said if name in ("segm", "bbox")] == kinds
    assert said["evaluator"] == evaluator
    assert ("stats" in said[kinds[0]]) == (evaluator == "coco")


def test_predictions_without_masks_are_scored_by_their_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, truth = two_images()
    bare = write_json(tmp_path / "out.json", [{name: value for name, value in one.items() if name != "segmentation"} for one in found])
    given = write_json(tmp_path / "gt.json", truth)
    assert main(["evaluate", "coco", "--predictions", str(bare), "--ground-truth", str(given)]) == 0
    assert "boxes AP" in capsys.readouterr().out


def test_the_table_comes_with_notes_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = (10, 10, 20, 20)
    truth = write_json(tmp_path / "gt.json", instances(annotation(1, 3, box)))
    found = write_json(tmp_path / "out.json", [detection(1, 3, box), detection(8, 3, box)])
    folder = tmp_path / "a" / "report"
    arguments = ["evaluate", "coco", "--predictions", str(found), "--ground-truth", str(truth), "-o", str(folder)]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert any(line.split()[:4] == ["IoU", "0.50:0.95", "1", "1.000"] for line in out.splitlines())
    assert f"note: {found}: 1 predictions are on images that {truth} does not have; they are skipped" in err
    assert f"wrote the figures to {folder}" in err
    assert {path.name for path in folder.iterdir()} == {"summary.json", "scores.csv"}
    assert main(arguments) == 2
    assert "holds results already (summary.json); choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("predictions", "ground_truth", "options", "said"),
    [
        (None, None, [], "cannot be read"),
        ({"annotations": []}, None, [], "is it the ground truth?"),
        ([], None, ["-o", "{file}"], "cannot be a folder for results"),
        ([3], None, [], "out.json: [0] is 3, not an object with fields"),
        ([{**detection(1, 3, (1, 1, 9, 9)), "score": None}], None, [], "out.json: [0]: the score is None"),
        ([{**detection(1, 3, (1, 1, 9, 9)), "bbox": None}], None, ["--kind", "bbox"], "out.json: [0] has no bbox"),
        ([detection(1, 3, (1, 1, 9, 9))], {"images": []}, [], "gt.json is not an instances file of COCO"),
        ([detection("1", 3, (1, 1, 9, 9))], None, [], "image_id '1' is text"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], predictions: Any, ground_truth: Any, options: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("")
    if predictions is None:
        (tmp_path / "out.json").unlink()
    else:
        write_json(tmp_path / "out.json", predictions)
    if ground_truth is not None:
        write_json(tmp_path / "gt.json", ground_truth)
    assert main([*files, *(option.format(file=tmp_path / "file") for option in options)]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
