from pathlib import Path

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from rotoscope.datasets.davis import read_label_map
from rotoscope.datasets.davis_scribbles import DavisScribbles, Line, read_scribbles, to_scribbles, write_scribbles
from rotoscope.errors import InputError
from rotoscope.evaluation import robot
from rotoscope.evaluation.robot import (
    draw_corrections,
    error_regions,
    first_lines,
    frames_by_need,
    longest_paths,
    opened,
    region_paths,
    shares,
    skeleton,
    smoothed,
)
from rotoscope.ops.scribbles import line_pixels

HW = (36, 52)


def blobs(seed: int, hw: tuple[int, int] = HW, *, num_objects: int = 2) -> NDArray[np.uint8]:
    """A map of ids with smooth random borders, and some noise that no line should be drawn through."""
    random = np.random.default_rng(seed)
    labels = np.zeros(hw, dtype=np.uint8)
    for object_id in range(1, num_objects + 1):
        field = cv2.GaussianBlur(random.standard_normal(hw), (0, 0), 4)
        labels[field > 0.05] = object_id
    speckle = random.random(hw) < 0.01
    labels[speckle] = random.integers(0, num_objects + 1, int(speckle.sum()))
    return labels


def disc(radius: float, hw: tuple[int, int] = HW) -> NDArray[np.bool_]:
    y, x = np.ogrid[: hw[0], : hw[1]]
    return (y - hw[0] // 2) ** 2 + (x - hw[1] // 2) ** 2 <= radius**2


def drawn_pixels(line: Line, hw: tuple[int, int]) -> NDArray[np.int64]:
    """The pixels (x, y) that a reader of DAVIS lines makes of one: cut, and joined."""
    (scribble, *_) = to_scribbles([line], [1], hw)
    return line_pixels(scribble.path.long()).numpy()


def pieces(mask: NDArray[np.bool_], connectivity: int = 8) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)[0] - 1


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_lines_lie_inside_the_error_region_of_their_object(given_seed: int, predicted_seed: int, thorough: bool) -> None:
    truth, predicted = blobs(given_seed), blobs(20_000 + predicted_seed)
    lines = draw_corrections(truth, predicted, (1, 2), 7, thorough=thorough)
    assert lines
    for line in lines:
        assert line.frame_index == 7
        x, y = drawn_pixels(line, HW).T
        assert (truth[y, x] == line.object_id).all()
        assert (predicted[y, x] != line.object_id).all()
    assert lines == draw_corrections(truth, predicted, (1, 2), 7, thorough=thorough)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_error_regions_share_out_all_wrong_pixels(given_seed: int, predicted_seed: int) -> None:
    truth, predicted = blobs(given_seed), blobs(predicted_seed)
    truth[:2] = 255
    regions = error_regions(truth, predicted, (1, 2))
    np.testing.assert_array_equal(sum(region.astype(int) for region in regions.values()), (truth != predicted) & (truth != 255))


def test_what_is_right_gets_no_line() -> None:
    truth = blobs(3)
    assert error_regions(truth, truth, (1, 2)) == {}
    assert draw_corrections(truth, truth, (1, 2), 0) == []
    assert draw_corrections(truth, truth, (1, 2), 0, thorough=True) == []
    assert region_paths(np.zeros(HW, dtype=np.bool_), thorough=True) == []


def test_a_false_positive_is_crossed_as_what_is_there_in_truth() -> None:
    truth, predicted = np.zeros(HW, dtype=np.uint8), np.zeros(HW, dtype=np.uint8)
    truth[10:20, 10:30] = 2
    predicted[10:20, 10:50] = 1
    assert [line.object_id for line in draw_corrections(truth, predicted, (1, 2), 0)] == [0, 2]


def test_regions_of_other_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="predict at the size of the annotations"):
        error_regions(np.zeros((4, 5), dtype=np.uint8), np.zeros((5, 4), dtype=np.uint8), (1,))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_a_skeleton_is_thin_and_has_the_pieces_and_holes_of_its_region(seed: int) -> None:
    region = blobs(seed, num_objects=1) > 0
    thin = skeleton(region)
    assert not (thin & ~region).any()
    assert pieces(thin) == pieces(region)
    assert pieces(np.pad(~thin, 1, constant_values=True), 4) == pieces(np.pad(~region, 1, constant_values=True), 4)
    squares = np.lib.stride_tricks.sliding_window_view(thin, (2, 2)).all(axis=(2, 3))
    assert squares.sum() <= 0.05 * thin.sum()


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (9, 1), (2, 2), (5, 5)])
def test_a_region_that_fills_the_frame_keeps_a_skeleton(hw: tuple[int, int]) -> None:
    assert skeleton(np.ones(hw, dtype=np.bool_)).any()


def test_the_skeleton_of_a_bar_is_its_middle_line_and_forks_into_its_corners() -> None:
    bar = np.zeros(HW, dtype=np.bool_)
    bar[10:17, 5:50] = True
    thin = skeleton(bar)
    assert thin[13, 9:46].all()
    assert thin[[10, 10, 16, 16], [5, 49, 5, 49]].all()
    assert thin.sum() < 60


@pytest.mark.parametrize("radius", [4.0, 6.0, 12.5, 16.0])
def test_round_errors_get_a_line_too(radius: float) -> None:
    (path,) = region_paths(disc(radius))
    assert len(path) >= robot.MIN_NODES
    assert disc(radius)[path[:, 1], path[:, 0]].all()
    assert region_paths(disc(1)) == []


def test_the_longest_path_leaves_branches_and_opens_loops() -> None:
    cross = np.zeros(HW, dtype=np.bool_)
    cross[20, 5:45], cross[15:25, 20] = True, True
    (path,) = longest_paths(cross)
    assert sorted(path[:, 0].tolist()) == list(range(5, 45))
    assert set(path[:, 1].tolist()) == {20}
    ring = disc(12) & ~disc(11)
    (path,) = longest_paths(skeleton(ring))
    assert len(path) >= 0.9 * skeleton(ring).sum()
    assert (np.abs(np.diff(path, axis=0)).max(axis=1) == 1).all()


@pytest.mark.parametrize(("length", "found"), [(robot.MIN_NODES - 1, 0), (robot.MIN_NODES, 1)])
def test_pieces_of_fewer_than_four_nodes_get_no_line(length: int, found: int) -> None:
    lines = np.zeros(HW, dtype=np.bool_)
    lines[3, 3 : 3 + length] = True
    assert len(longest_paths(lines)) == found
    assert len(longest_paths(lines, min_nodes=1)) == 1


def test_the_opening_drops_what_is_thin_beside_the_whole() -> None:
    region = disc(15)
    region[2, :] = True
    assert opened(region)[HW[0] // 2, HW[1] // 2]
    assert not opened(region)[2, :5].any()


def test_only_a_thorough_person_draws_through_a_rope() -> None:
    rope = np.zeros((60, 200), dtype=np.bool_)
    rope[30, 10:190] = True
    assert region_paths(rope) == []
    (path,) = region_paths(rope, thorough=True)
    assert len(path) == 180


def test_a_curve_is_smooth_where_there_is_room_and_bends_where_there_is_none() -> None:
    zigzag = np.array([(5 + i, 20 + abs(i % 10 - 5)) for i in range(40)])
    free = smoothed(zigzag, np.ones(HW, dtype=np.bool_))
    assert np.abs(np.diff(free[:, 1])).sum() < np.abs(np.diff(zigzag[:, 1])).sum()
    corner = np.array([(5 + i, 5) for i in range(30)] + [(34, 6 + i) for i in range(30)])
    narrow = np.zeros(HW, dtype=np.bool_)
    narrow[corner[:, 1], corner[:, 0]] = True
    tight = smoothed(corner, narrow[:40])
    assert narrow[tight[:, 1], tight[:, 0]].all()
    for path, ends in ((free, zigzag), (tight, corner)):
        assert path[0].tolist() == ends[0].tolist()
        assert path[-1].tolist() == ends[-1].tolist()
        assert np.abs(np.diff(path, axis=0)).max() == 1


def test_a_path_of_many_pixels_does_not_overflow() -> None:
    path = np.stack((np.arange(1200), np.zeros(1200, dtype=np.int64)), axis=1)
    np.testing.assert_array_equal(smoothed(path, np.ones((1, 1200), dtype=np.bool_)), path)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 1200), st.integers(1, 1200))
def test_shares_name_their_pixels_to_readers_that_cut_and_that_round(height: int, width: int) -> None:
    random = np.random.default_rng(height * width)
    pixels = np.stack((random.integers(0, width, 20), random.integers(0, height, 20)), axis=1)
    points = np.array(shares(pixels, (height, width)))
    assert points.min() >= 0
    assert points.max() <= 1
    scaled = points * (width - 1, height - 1)
    np.testing.assert_array_equal(np.floor(scaled), pixels)
    np.testing.assert_array_equal(np.round(scaled), pixels)


def test_the_worst_frame_comes_first_and_none_twice_before_all_were_had() -> None:
    scores = np.array([[0.9, 0.9], [0.25, 0.5], [0.75, 0.0], [0.5, 0.5]])
    assert frames_by_need(scores, []) == [1, 2, 3, 0]
    assert frames_by_need(scores, [1, 2]) == [3, 0]
    assert frames_by_need(scores, [0, 1, 2, 3]) == [1, 2, 3, 0]


def test_a_start_is_a_line_through_each_object_by_a_seed() -> None:
    frames = [np.zeros(HW, dtype=np.uint8) for _ in range(12)]
    for index in range(3, 9):
        frames[index][4:16, 4:30] = 1
        frames[index][24:34, 20:50] = 2
    frames[10][4:30, 4:30] = 1
    chosen = set()
    for seed in range(12):
        lines = first_lines(frames, (1, 2), seed=seed)
        assert [line.object_id for line in lines] == [1, 2]
        assert lines == first_lines(frames, (1, 2), seed=seed)
        chosen.add(lines[0].frame_index)
    assert len(chosen) > 1
    assert chosen <= set(range(3, 9))


def test_small_and_thin_objects_get_a_first_line_too() -> None:
    labels = np.zeros(HW, dtype=np.uint8)
    labels[5, 5] = 1
    labels[20, 5:50] = 2
    assert {line.object_id for line in first_lines([labels * 0, labels], (1, 2))} == {1, 2}
    with pytest.raises(InputError, match="nothing to draw on"):
        first_lines([labels * 0], (1, 2))


def test_lines_survive_a_file_and_the_form_is_the_official_one(tmp_path: Path) -> None:
    lines = draw_corrections(blobs(1), blobs(2), (1, 2), 3)
    written = DavisScribbles("dog", (*lines, Line(5, 1, ((0.5, 0.25),), 1.5)))
    write_scribbles(tmp_path / "001.json", written, 6)
    assert read_scribbles(tmp_path / "001.json") == written
    with pytest.raises(InputError, match="the clip has frames 0 to 4"):
        write_scribbles(tmp_path / "002.json", written, 5)


@pytest.mark.real_data
def test_official_scribbles_survive_a_round_trip_and_ours_cover_what_theirs_do(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "scribbles-open"
    for path in sorted((folder / "Scribbles").glob("*/001.json")):
        official = read_scribbles(path)
        write_scribbles(tmp_path / path.name, official, 6)
        assert read_scribbles(tmp_path / path.name) == official
        index = official.lines[0].frame_index
        truth = read_label_map(folder / "Annotations" / "480p" / official.sequence / f"{index:05d}.png")
        ours = draw_corrections(truth, np.zeros_like(truth), official.object_ids, index)
        assert {line.object_id for line in ours} == set(official.object_ids)
        for line in ours:
            x, y = drawn_pixels(line, truth.shape).T
            assert (truth[y, x] == line.object_id).all()
