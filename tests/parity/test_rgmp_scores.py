"""Our summaries of J and F against what the authors published: RGMP's official result files, without any video."""

import json
from pathlib import Path

import numpy as np
import pytest

from rotoscope.evaluation import measures
from rotoscope.evaluation.davis import ObjectScores, Series, mean_scores
from rotoscope.evaluation.measures import Summary, summarize

PUBLISHED = json.loads((Path(__file__).parent / "data" / "rgmp" / "published_scores.json").read_text(encoding="utf-8"))
SERIES = [(clip, measure) for clip, measures_of_clip in PUBLISHED["series"].items() for measure in measures_of_clip]
ROUNDING = 1e-6  # the published figures here have six digits


def published_summary(clip: str, measure: str) -> tuple[float, float, float]:
    return tuple(PUBLISHED["sets"]["davis2016_val"]["objects"][clip][measure][0])


@pytest.mark.parametrize(("clip", "measure"), SERIES)
def test_mean_recall_and_decay_of_a_raw_series_are_the_published_ones(clip: str, measure: str) -> None:
    stored = PUBLISHED["series"][clip][measure]
    ours = summarize(stored["per_frame"])
    assert (ours.mean, ours.recall, ours.decay) == pytest.approx(published_summary(clip, measure), abs=ROUNDING)
    assert float(np.std(stored["per_frame"])) == pytest.approx(stored["std"], abs=ROUNDING)  # so the series is the published one


def test_recall_above_zero_as_the_files_have_it_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "RECALL_THRESHOLD", 0.0)
    recall = summarize(PUBLISHED["series"]["bmx-trees"]["J"]["per_frame"]).recall
    assert recall == 1
    assert published_summary("bmx-trees", "J")[1] < 0.7


def test_other_quarters_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "NUM_DECAY_BINS", 5)
    assert abs(summarize(PUBLISHED["series"]["bmx-trees"]["J"]["per_frame"]).decay - published_summary("bmx-trees", "J")[2]) > 1e-3


@pytest.mark.parametrize(("name", "num_objects", "j_and_f"), [("davis2016_val", 20, 0.818), ("davis2017_val", 61, 0.667)])
def test_the_score_of_a_set_is_the_mean_over_its_objects(name: str, num_objects: int, j_and_f: float) -> None:
    stored = PUBLISHED["sets"][name]
    objects = [
        ObjectScores(index + 1, Series((), Summary(*j)), Series((), Summary(*f)))
        for clip in stored["objects"].values()
        for index, (j, f) in enumerate(zip(clip["J"], clip["F"], strict=True))
    ]
    ours = mean_scores(objects)
    assert len(objects) == num_objects
    for mine, theirs in ((ours.j, stored["dataset"]["J"]), (ours.f, stored["dataset"]["F"])):
        assert (mine.mean, mine.recall, mine.decay) == pytest.approx((theirs["mean"], theirs["recall_05"], theirs["decay"]), abs=ROUNDING)
    assert ours.j_and_f == pytest.approx(j_and_f, abs=5e-4)
