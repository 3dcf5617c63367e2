import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rotoscope.errors import InputError
from rotoscope.ops.scribbles import CLICK_PIXELS, draw_strokes, line_pixels
from rotoscope.types import Box, Clicks, Painted, Scribble

HW = (12, 20)


def scribble(*points: tuple[float, float], object_id: int = 1, positive: bool = True, width: float = 1.0) -> Scribble:
    return Scribble(0, object_id, torch.tensor(points, dtype=torch.float32), positive, width)


def click(x: float, y: float, *, positive: bool = True) -> Clicks:
    return Clicks(0, 1, torch.tensor([[float(x), float(y)]]), torch.tensor([positive]))


points = st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(points)
def test_lines_are_connected_and_pass_through_their_points(path) -> None:
    pixels = line_pixels(torch.tensor(path))
    assert pixels[0].tolist() == list(path[0])
    assert pixels[-1].tolist() == list(path[-1])
    assert {tuple(pixel) for pixel in pixels.tolist()} >= set(path)
    if len(pixels) > 1:
        assert bool((pixels.diff(dim=0).abs().amax(dim=1) == 1).all())


@settings(max_examples=60, deadline=None)
@given(points)
def test_each_line_keeps_within_half_a_pixel_of_the_exact_one(path) -> None:
    start, end = torch.tensor(path[0]), torch.tensor(path[-1])
    pixels, delta = line_pixels(torch.stack((start, end))), (end - start).double()
    distance = ((pixels - start) * torch.stack((-delta[1], delta[0]))).sum(dim=1).abs() / delta.abs().max().clamp(min=1)
    assert float(distance.max()) <= 0.5


def test_a_shallow_line_steps_where_bresenham_does() -> None:
    assert line_pixels(torch.tensor([[0, 0], [5, 2]])).tolist() == [[0, 0], [1, 0], [2, 1], [3, 1], [4, 2], [5, 2]]
    assert line_pixels(torch.tensor([[0, 0], [-2, 1]])).tolist() == [[0, 0], [-1, 1], [-2, 1]]  # half a pixel moves on


def test_one_point_is_one_pixel_and_a_pen_makes_it_a_square() -> None:
    assert draw_strokes([scribble((3, 4))], [1], HW)[0, 0].nonzero().tolist() == [[4, 3]]
    wide = draw_strokes([scribble((3, 4), width=3.0)], [1], HW)[0, 0]
    assert int(wide.sum()) == 9
    assert bool(wide[3:6, 2:5].all())
    assert int(draw_strokes([click(10, 5)], [1], HW)[0, 0].sum()) == CLICK_PIXELS**2


def test_a_line_through_one_object_is_off_the_others_and_a_negative_one_is_its_own_affair() -> None:
    maps = draw_strokes([scribble((0, 0), (5, 0)), scribble((0, 9), (5, 9), object_id=2, positive=False)], [1, 2, 3], HW)
    assert maps[:, :, 0, 0].tolist() == [[1, 0], [0, 1], [0, 1]]
    assert maps[:, :, 9, 0].tolist() == [[0, 0], [0, 1], [0, 0]]


def test_where_lines_cross_the_later_one_counts_whatever_its_width() -> None:
    maps = draw_strokes([scribble((2, 0), (2, 8), width=3.0), scribble((2, 4), (9, 4), positive=False)], [1], HW)
    assert maps[0, :, 4, 2].tolist() == [1, 1]  # the pen of the earlier line reaches over its own gap
    thin = draw_strokes([scribble((2, 0), (2, 8)), scribble((2, 4), (9, 4), positive=False)], [1], HW)
    assert thin[0, :, 4, 2].tolist() == [0, 1]


def test_what_runs_out_of_the_frame_is_left_out() -> None:
    maps = draw_strokes([scribble((15, 6), (1e9, 6))], [1], HW)
    assert maps[0, 0].nonzero().tolist() == [[6, x] for x in range(15, 20)]


@pytest.mark.parametrize(
    ("interaction", "message"),
    [
        (scribble((-5, -5), (-9, -5)), "lies outside its 20x12 pixels"),
        (click(20, 3), "lies outside"),
        (scribble((1, 1), object_id=7), "there is no object 7"),
        (Box(0, 1, torch.tensor([0.0, 0, 4, 4])), "a box on frame 0 is neither a line nor a click"),
        (Painted(0, 1, torch.ones(HW, dtype=torch.bool)), "a painted on frame 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(interaction, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_strokes([interaction], [1, 2], HW)


def test_nothing_drawn_is_nothing() -> None:
    assert float(draw_strokes([], [1, 2], HW).sum()) == 0
    assert draw_strokes([], [], HW).shape == (0, 2, *HW)
