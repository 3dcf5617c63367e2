import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rotoscope.errors import InputError
from rotoscope.evaluation.measures import _boundary_f, boundary, boundary_f, boundary_radius, jaccard, jaccard_and_boundary_f, summarize

few = settings(deadline=None, max_examples=40)
shapes = array_shapes(min_dims=2, max_dims=2, max_side=14)
pairs = shapes.flatmap(lambda shape: st.tuples(*[arrays(np.bool_, shape)] * 2))


def square(top: int, left: int, side: int = 20, hw: tuple[int, int] = (96, 128)) -> np.ndarray:
    mask = np.zeros(hw, dtype=np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def boundary_by_definition(mask: np.ndarray) -> np.ndarray:
    edges = np.zeros_like(mask)
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edges[y, x] = any(mask[y, x] != mask[other] for other in neighbours if other[0] < height and other[1] < width)
    return edges


def f_by_definition(predicted: np.ndarray, truth: np.ndarray, radius: int) -> float:
    a, b = np.argwhere(predicted), np.argwhere(truth)
    if len(a) == 0 or len(b) == 0:
        return float(len(a) == len(b))
    near = ((a[:, None] - b[None]) ** 2).sum(axis=2) <= radius**2
    precision, recall = near.any(axis=1).mean(), near.any(axis=0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@few
@given(pairs)
def test_measures_are_shares_and_a_mask_matches_itself(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    assert 0 <= jaccard(a, b) <= 1
    assert 0 <= boundary_f(a, b) <= 1
    assert jaccard(a, a) == boundary_f(a, a) == 1
    assert jaccard(a, b) == jaccard(b, a)
    assert boundary_f(a, b) == pytest.approx(boundary_f(b, a))


@few
@given(pairs)
def test_j_is_intersection_over_union_of_the_whole_frame(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    assert jaccard(a, b) == ((a & b).sum() / (a | b).sum() if (a | b).any() else 1)


@few
@given(pairs)
def test_the_boundary_is_where_a_later_neighbour_differs(pair: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(boundary(pair[0]), boundary_by_definition(pair[0]))


@few
@given(pairs, st.integers(1, 6))
def test_f_matches_boundary_pixels_within_a_disk(pair: tuple[np.ndarray, np.ndarray], radius: int) -> None:
    assert _boundary_f(*pair, radius) == pytest.approx(f_by_definition(*pair, radius), abs=1e-12)


@few
@given(pairs, st.sampled_from([(0, 0), (3, 5), (90, 120), (486, 30), (486, 986), (0, 986)]))
def test_looking_only_at_the_objects_changes_no_number(pair: tuple[np.ndarray, np.ndarray], corner: tuple[int, int]) -> None:
    frames = np.zeros((2, 500, 1000), dtype=np.bool_)
    for frame, mask in zip(frames, pair, strict=True):
        frame[corner[0] : corner[0] + mask.shape[0], corner[1] : corner[1] + mask.shape[1]] = mask
    radius = boundary_radius(frames[0].shape)
    assert radius == 9
    whole = _boundary_f(boundary(frames[0]), boundary(frames[1]), radius)
    assert jaccard_and_boundary_f(*frames) == (jaccard(*pair), whole)


def test_both_empty_is_right_and_one_empty_is_wrong() -> None:
    empty, some = np.zeros((96, 128), dtype=np.bool_), square(10, 10)
    assert jaccard(empty, empty) == boundary_f(empty, empty) == 1
    assert jaccard(empty, some) == boundary_f(empty, some) == 0
    assert jaccard(some, empty) == boundary_f(some, empty) == 0


def test_an_object_that_fills_the_frame_has_no_boundary() -> None:
    full = np.ones((96, 128), dtype=np.bool_)
    assert not boundary(full).any()
    assert boundary_f(full, full) == 1
    assert boundary_f(square(10, 10), full) == 0


def test_scores_fall_as_a_mask_moves_away() -> None:
    moved = [square(30, 30 + shift) for shift in (0, 2, 3, 5, 8, 12)]
    j, f = [[measure(mask, moved[0]) for mask in moved] for measure in (jaccard, boundary_f)]
    assert j == sorted(j, reverse=True)
    assert len(set(j)) == len(j)
    assert f == sorted(f, reverse=True)
    assert f[:2] == [1, 1]  # two pixels are within the tolerance of a frame of this size
    assert len(set(f)) == len(f) - 1
    assert jaccard(square(30, 60), square(30, 30)) == 0


@pytest.mark.parametrize(("shift", "matched"), [(2, True), (3, False)])
def test_the_tolerance_is_the_radius_and_no_more(shift: int, matched: bool) -> None:
    line = square(40, 10, side=1, hw=(96, 128))  # diagonal 160: radius 2; one pixel gives a boundary of 2 x 2
    moved = square(40, 10 + shift + 1, side=1, hw=(96, 128))  # nearest boundary pixels are `shift` apart
    assert boundary_radius((96, 128)) == 2
    assert (boundary_f(moved, line) > 0) == matched


@pytest.mark.parametrize(("hw", "radius"), [((480, 854), 8), ((480, 640), 7), ((1080, 1920), 18), ((60, 80), 1)])
def test_the_radius_is_a_share_of_the_diagonal(hw: tuple[int, int], radius: int) -> None:
    assert boundary_radius(hw) == radius


def test_void_pixels_are_left_out() -> None:
    truth, predicted = square(10, 10), square(10, 10) | square(40, 40)
    void = square(40, 40)
    assert jaccard(predicted, truth) == 0.5
    assert jaccard(predicted, truth, void) == boundary_f(predicted, truth, void) == 1


def test_masks_of_different_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"sizes \(10, 12\), \(12, 10\) cannot be compared"):
        jaccard(np.zeros((10, 12), dtype=np.bool_), np.zeros((12, 10), dtype=np.bool_))
    with pytest.raises(InputError, match="cannot be compared"):
        boundary_f(np.zeros(10, dtype=np.bool_), np.zeros(10, dtype=np.bool_))


def test_mean_recall_and_decay_of_a_series_computed_by_hand() -> None:
    summary = summarize([1.0, 0.8, 0.6, 0.5, 0.4, 0.2, 0.1, 0.0])
    assert summary.mean == pytest.approx(0.45)
    assert summary.recall == 3 / 8  # 0.5 is not above 0.5
    # ends of the quarters: 1, 2.75, 4.5, 6.25, 8, rounded with halves up: 1, 3, 5, 6, 8; the first is frames 1 to 3, the last 6 to 8
    assert summary.decay == pytest.approx((1.0 + 0.8 + 0.6) / 3 - (0.2 + 0.1 + 0.0) / 3)


def test_a_steady_series_does_not_decay() -> None:
    for length in (1, 2, 3, 48):
        summary = summarize([0.7] * length)
        assert (summary.mean, summary.recall, summary.decay) == (pytest.approx(0.7), 1, pytest.approx(0))


def test_decay_is_right_for_long_clips() -> None:
    falling = np.linspace(1, 0, 1001)
    assert summarize(falling.tolist()).decay == pytest.approx(0.75, abs=1e-9)


def test_an_empty_series_is_refused() -> None:
    with pytest.raises(InputError, match="at least three frames"):
        summarize([])


def test_the_diagonal_is_measured_as_a_number_not_an_integer() -> None:
    assert boundary_radius((300, 400)) == math.ceil(0.008 * 500) == 4
