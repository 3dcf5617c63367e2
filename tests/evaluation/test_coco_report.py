import csv
import json
from io import StringIO
from pathlib import Path

import pytest
from coco_parts import annotation, detection, instances, two_images
from rich.console import Console

from rotoscope.errors import OutputError
from rotoscope.evaluation.coco import CocoScores, evaluate_coco, evaluate_official
from rotoscope.evaluation.coco.report import as_dict, notes, table, write_report


@pytest.fixture
def both() -> list[CocoScores]:
    return [evaluate_coco(*two_images(), "segm"), evaluate_coco(*two_images(), "bbox")]


def lines_of(scores: list[CocoScores], width: int = 80) -> list[str]:
    text = StringIO()
    Console(width=width, file=text).print(table(scores))
    return text.getvalue().splitlines()


def test_the_table_has_a_line_per_overlap_size_count_and_class(both: list[CocoScores]) -> None:
    lines = [line.split() for line in lines_of(both)]
    assert lines[1] == ["objects", "masks", "AP", "masks", "AR", "boxes", "AP", "boxes", "AR"]
    assert ["IoU", "0.50:0.95", "4", "0.544", "0.750", "0.544", "0.750"] in lines
    assert ["IoU", "0.55", "0.544", "0.544"] in lines
    assert ["small", "0.500", "0.500", "0.500", "0.500"] in lines
    assert ["large"] in lines
    assert ["best", "1", "per", "class", "0.500", "0.500"] in lines
    assert ["cat", "2", "0.835", "1.000", "0.835", "1.000"] in lines
    assert all(len(line) <= 80 for line in lines_of(both))


def test_classes_without_objects_are_left_out_of_the_table_but_not_of_the_files(tmp_path: Path) -> None:
    scores = [evaluate_coco([detection(1, 3, (1, 1, 9, 9))], instances(annotation(1, 3, (1, 1, 9, 9))))]
    assert not any("dog" in line for line in lines_of(scores))
    write_report(tmp_path / "new", scores)
    lines = list(csv.DictReader((tmp_path / "new" / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert [(one["name"], one["objects"], one["ap"]) for one in lines if one["group"] == "category"] == [("cat", "1", "1.0"), ("dog", "0", "")]
    assert {one["kind"] for one in lines} == {"segm"}


def test_json_has_every_figure_by_kind(both: list[CocoScores], tmp_path: Path) -> None:
    paths = write_report(tmp_path, both)
    said = json.loads(paths[0].read_text(encoding="utf-8"))
    assert said == json.loads(json.dumps(as_dict(both)))
    assert said["evaluator"] == "coco"
    assert said["segm"]["stats"] == list(both[0].stats)
    assert said["bbox"]["ap"] == said["bbox"]["stats"][0]
    assert said["segm"]["ap75"] == said["segm"]["ap_by_overlap"]["0.75"]
    assert said["segm"]["ar_by_count"] == {"1": 0.5, "10": 0.75, "100": 0.75}
    assert said["segm"]["categories"]["7"]["name"] == "dog"
    assert said["segm"]["ap_by_size"]["large"] is None


def test_the_official_evaluator_has_no_recall_and_no_sizes() -> None:
    scores = [evaluate_official(*two_images())]
    assert "ar_by_count" not in as_dict(scores)["segm"]
    assert as_dict(scores)["evaluator"] == "official"
    lines = [line.split() for line in lines_of(scores)]
    assert lines[1] == ["objects", "masks", "AP"]
    assert not any(line[:1] in (["small"], ["best"]) for line in lines)


def test_a_note_on_both_kinds_is_said_once() -> None:
    truth, found = instances(annotation(1, 3, (1, 1, 9, 9))), [detection(1, 3, (1, 1, 9, 9))]
    both = [evaluate_coco(found, truth, "segm"), evaluate_coco(found, truth, "bbox")]
    assert notes(both) == ["1 of 2 images have no predictions; they are scored all the same"]


def test_a_file_for_a_folder_is_refused(both: list[CocoScores], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be a folder for results"):
        write_report(tmp_path / "file", both)
