import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from davis_roots import given_frames, predicted_frames, write_labels, write_root
from PIL import Image
from rich.console import Console

from rotoscope.datasets.davis import read_davis
from rotoscope.errors import InputError, OutputError
from rotoscope.evaluation.davis import ClipScores, find_predictions, score_clips
from rotoscope.evaluation.report import as_dict, plot_png, prepare_folder, table, write_csv, write_plots

GOLDEN = Path(__file__).parent / "golden_scores.json"


@pytest.fixture
def scores(tmp_path: Path) -> list[ClipScores]:
    """The clip whose scores test_davis_scores.py computes by hand."""
    root = write_root(tmp_path / "davis", {"[wide]$x": given_frames()})
    write_labels(tmp_path / "out" / "[wide]$x", predicted_frames())
    (tmp_path / "out" / "[wide]$x" / "00004.png").unlink()
    return list(score_clips(find_predictions(read_davis(root), tmp_path / "out")))


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 9) + 0.0 if isinstance(value, float) else value


def test_the_json_object_is_the_golden_one(scores: list[ClipScores]) -> None:
    said = json.loads(json.dumps(as_dict(scores, fps=2.5), allow_nan=False))
    assert rounded(said) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_without_clips_there_is_no_report() -> None:
    with pytest.raises(InputError, match="no objects to score"):
        as_dict([])


def test_the_table_has_a_line_per_object_and_the_mean_over_objects(scores: list[ClipScores]) -> None:
    text = io.StringIO()
    Console(file=text, width=120).print(table(scores))
    lines = [line.replace("│", " ").split() for line in text.getvalue().splitlines()]
    figures = {tuple(line[:2]): line[2:] for line in lines if line and line[0] == "[wide]$x"}
    assert figures["[wide]$x", "1"] == ["0.493", "0.444", "0.333", "0.167", "0.542", "0.667", "-0.125"]
    assert figures["[wide]$x", "mean"][:2] == ["0.580", "0.556"]
    assert ["all", "mean", "0.580"] in [line[:3] for line in lines]


def test_csv_has_the_figures_and_those_per_frame(scores: list[ClipScores], tmp_path: Path) -> None:
    paths = write_csv(tmp_path / "deep" / "scores.csv", scores)
    assert [path.name for path in paths] == ["scores.csv", "scores-frames.csv"]
    figures, frames = (list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in paths)
    assert [(line["clip"], line["object"]) for line in figures] == [("[wide]$x", "1"), ("[wide]$x", "2"), ("[wide]$x", "mean"), ("all", "mean")]
    assert float(figures[0]["j_decay"]) == scores[0].objects[0].j.summary.decay
    assert [line["j"] for line in frames[:5]] == ["1.0", "1.0", "0.0", str(8 / 24), ""]
    assert {line["frame"] for line in frames} == set(scores[0].frame_names)


def test_plots_are_pictures_named_after_the_clips(scores: list[ClipScores], tmp_path: Path) -> None:
    (path,) = write_plots(tmp_path / "plots", scores)
    assert path == tmp_path / "plots" / "[wide]$x.png"
    with Image.open(path) as picture:
        assert picture.size == (900, 500)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert plot_png(scores[0]) == path.read_bytes()


def test_the_report_leaves_pyplot_alone_and_matplotlib_unloaded_until_it_plots() -> None:
    code = (
        "import sys, rotoscope.evaluation.report as report; from rotoscope.evaluation.davis import ClipScores, ObjectScores, Series\n"
        "from rotoscope.evaluation.measures import Summary\n"
        "assert not {'matplotlib', 'torch'} & sys.modules.keys()\n"
        "series = Series((None, 0.5, None), Summary(0.5, 0.0, 0.0))\n"
        "report.plot_png(ClipScores('a', ('0', '1', '2'), (ObjectScores(1, series, series),)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_results_that_cannot_be_written_say_so(scores: list[ClipScores], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be a folder for results"):
            write_plots(folder, scores)
    with pytest.raises(OutputError, match="cannot be a folder for results"):
        write_csv(tmp_path / "file" / "scores.csv", scores)
    with pytest.raises(OutputError, match="could not be written"):
        prepare_folder(tmp_path / ("x" * 300))
