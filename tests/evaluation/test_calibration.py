from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.errors import InputError
from rotoscope.evaluation.calibration import fit, plot, reliability

shares = st.floats(0, 1, allow_nan=False)


def test_a_fit_reads_the_truth_off_exact_pairs():
    raw = np.linspace(0, 1, 201)
    assert fit(raw, raw**2) == pytest.approx(np.linspace(0, 1, 11) ** 2, abs=1e-3)


def test_violators_are_pooled_into_their_mean():
    assert fit([0.0, 0.4, 0.6, 1.0], [0.0, 0.8, 0.2, 1.0], num_knots=3) == pytest.approx((0.0, 0.5, 1.0))


@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(shares, shares), min_size=1, max_size=30))
def test_a_fit_never_falls_and_stays_within_what_was_seen(pairs):
    raw, overlaps = zip(*pairs, strict=True)
    knots = fit(raw, overlaps)
    assert all(later >= earlier for earlier, later in pairwise(knots))
    assert min(overlaps) - 1e-4 <= knots[0]
    assert knots[-1] <= max(overlaps) + 1e-4


def test_fitted_confidences_are_more_reliable_than_raw_ones():
    random = np.random.default_rng(0)
    overlaps = random.random(500)
    raw = np.sqrt(overlaps)
    fitted = np.interp(raw, np.linspace(0, 1, 11), fit(raw, overlaps))
    assert reliability(raw, overlaps).error > 0.1
    assert reliability(fitted, overlaps).error < 0.02


def test_reliability_counts_every_result_once():
    measured = reliability([0.0, 0.05, 1.0, 0.95], [0.5, 0.5, 1.0, 0.0])
    assert measured.counts.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert measured.overlap[0] == pytest.approx(0.5)
    assert np.isnan(measured.overlap[5])
    assert measured.error == pytest.approx((abs(0.025 - 0.5) + abs(0.975 - 0.5)) / 2)


def test_the_plot_is_a_picture(tmp_path):
    plot(reliability([0.2, 0.9], [0.3, 0.8]), tmp_path / "reliability.png", title="a model")
    assert (tmp_path / "reliability.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(("raw", "overlaps"), [([], []), ([0.5], [0.5, 0.6]), ([1.5], [0.5]), ([0.5], [float("nan")])])
def test_pairs_that_are_none_are_refused(raw, overlaps):
    with pytest.raises(InputError, match="confidence"):
        fit(raw, overlaps)
