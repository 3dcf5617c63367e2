"""J, F and their summaries against numbers that official code gave: the metric functions of MAST, and the DAVIS-2017 evaluator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rotoscope.datasets.davis import read_davis
from rotoscope.evaluation import measures
from rotoscope.evaluation.davis import ClipScores, Series, find_predictions, score_clips, score_frame
from rotoscope.evaluation.measures import summarize

DATA = Path(__file__).parent / "data"
FIGURES = json.loads((DATA / "davis" / "figures.json").read_text(encoding="utf-8"))
ROUNDING = 5.01e-7  # the oracle's values per frame have six digits; its means have all


def mast_difference() -> float:
    arrays = np.load(DATA / "mast" / "metrics.npz")
    ours = np.array([score_frame(given, predicted, (1, 2, 3)) for given, predicted in zip(arrays["gt"], arrays["pred"], strict=True)])
    return float(np.abs(ours - np.stack([arrays["J"], arrays["F"]], axis=2)).max())


def test_values_equal_those_of_masts_own_functions() -> None:
    assert mast_difference() <= 1e-9


@pytest.mark.parametrize("tolerance", [0.006, 0.014])
def test_another_tolerance_would_be_seen(monkeypatch: pytest.MonkeyPatch, tolerance: float) -> None:
    monkeypatch.setattr(measures, "BOUNDARY_TOLERANCE", tolerance)  # a radius of one or three pixels instead of two
    assert mast_difference() > 1e-3


def test_a_thicker_boundary_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = measures.boundary
    monkeypatch.setattr(measures, "boundary", lambda mask: thin(mask) | np.roll(thin(mask), 1, axis=0))
    assert mast_difference() > 1e-3


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("measure", ["J", "F"])
def test_summaries_equal_the_official_ones(name: str, measure: str) -> None:
    official = FIGURES[name][measure]
    ours = summarize(official["per_frame"][1:-1])
    assert (ours.mean, ours.recall, ours.decay) == pytest.approx((official["mean"], official["recall"], official["decay"]), abs=1e-6)


def test_scoring_the_first_and_last_frame_would_be_seen() -> None:
    official = FIGURES["dog"]["J"]
    assert abs(summarize(official["per_frame"]).mean - official["mean"]) > 1e-4


def differences(scores: list[ClipScores], oracle: dict[str, dict[str, Any]]) -> Iterator[tuple[float, float]]:
    """For every object and measure the largest difference in a frame, and in mean, recall and decay."""
    for clip in scores:
        for one in clip.objects:
            official = oracle[clip.name].get(str(one.object_id), oracle[clip.name])
            yield difference(one.j, official["J"])
            yield difference(one.f, official["F"])


def difference(series: Series, official: dict[str, Any]) -> tuple[float, float]:
    assert len(series.per_frame) == len(official["per_frame"])
    summary = series.summary
    frames = np.abs(np.subtract(series.per_frame, official["per_frame"])).max()
    figures = np.abs(np.subtract((summary.mean, summary.recall, summary.decay), [official[name] for name in ("mean", "recall", "decay")])).max()
    return float(frames), float(figures)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("root", "predictions", "oracle_file", "num_series"),
    [
        ("davis2016-open", "osvos", "osvos_davis2016_open.json", 20),
        ("multi-open", "shifted", "shifted_longboard.json", 10),
    ],
)
def test_every_frame_equals_the_official_evaluator(shared_data: Path, root: str, predictions: str, oracle_file: str, num_series: int) -> None:
    oracle = json.loads((shared_data / "metric-oracle" / oracle_file).read_text(encoding="utf-8"))
    files = find_predictions(read_davis(shared_data / root), shared_data / "metric-oracle" / predictions)
    found = list(differences(list(score_clips(files, workers=1)), oracle))
    assert len(found) == num_series
    assert max(frames for frames, _ in found) <= ROUNDING
    assert max(figures for _, figures in found) <= 1e-12
