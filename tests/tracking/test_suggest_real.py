"""Suggested frames against evenly spaced ones, on real clips with the true masks as corrections (`scripts/measure_corrections.py` has all ten)."""

from pathlib import Path

import pytest
from measure_corrections import quality, shrunk

from rotoscope.datasets.davis import read_davis
from rotoscope.models import registry

CLIPS = ["blackswan", "bmx-trees", "camel", "car-shadow"]  # the first four of the ten, to be quick


@pytest.mark.real_data
def test_corrections_of_suggested_frames_get_further_on_real_clips(shared_data: Path) -> None:
    tracker = registry.load("mast-lite", device="cpu", short_side=240)
    totals = {"suggested": 0.0, "even": 0.0}
    for clip in read_davis(shared_data / "davis2016-open", clips=CLIPS, with_frames=True):
        frames, truths = shrunk(clip, every=4, short_side=240)
        for way in totals:
            totals[way] += quality(frames, truths, tracker, corrections=3, uniform=way == "even")[-1] / len(CLIPS)
    assert totals["suggested"] > totals["even"] + 0.01
