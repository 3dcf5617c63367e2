import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rotoscope.ops.scribbles import draw_strokes
from rotoscope.training.interactions import (
    Click,
    Errors,
    Hints,
    box_around,
    curve,
    errors_of,
    inner_click,
    outline,
    random_click,
    scribbles,
    skeleton,
    spoiled_masks,
    standard_click,
)
from rotoscope.types import Clicks

HW = (40, 60)


def rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(HW, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


NOTHING = rectangle(0, 0, 0, 0)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_errors_are_what_lacks_and_what_is_too_much_but_for_void() -> None:
    truth, current = rectangle(0, 0, 10, 10), rectangle(0, 5, 10, 20)
    errors = errors_of(truth, current)
    assert torch.equal(errors.missed, rectangle(0, 0, 10, 5))
    assert torch.equal(errors.excess, rectangle(0, 10, 10, 20))
    assert torch.equal(errors_of(truth, current, counts=rectangle(0, 0, 40, 12)).excess, rectangle(0, 10, 10, 12))


def test_the_standard_click_is_the_deepest_pixel_of_the_largest_error() -> None:
    truth, current = rectangle(10, 10, 21, 21), rectangle(30, 40, 35, 45)
    assert standard_click(errors_of(truth, current)) == Click(15, 15, positive=True)
    assert standard_click(errors_of(NOTHING, current)) == Click(42, 32, positive=False)
    assert standard_click(errors_of(truth, truth)) is None


def test_the_frame_bounds_a_region() -> None:
    click = standard_click(errors_of(rectangle(0, 0, 11, 11), NOTHING))
    assert click == Click(5, 5, positive=True)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_random_and_inner_clicks_lie_on_errors_of_their_sign(seed: int) -> None:
    source = random(seed)
    errors = errors_of(rectangle(5, 5, 20, 20), rectangle(10, 10, 30, 30))
    click = random_click(errors, source)
    assert click is not None
    assert bool((errors.missed if click.positive else errors.excess)[click.y, click.x])
    inner = inner_click(errors.excess, source, positive=False)
    assert inner is not None
    assert not inner.positive
    assert bool(errors.excess[inner.y, inner.x])


def test_without_errors_nobody_clicks() -> None:
    errors = Errors(NOTHING, NOTHING)
    assert random_click(errors, random()) is None
    assert inner_click(NOTHING, random(), positive=True) is None
    assert box_around(NOTHING, random()) is None
    assert all(float(lines.sum()) == 0 for lines in scribbles(errors, random()))


def test_a_box_fits_and_its_sides_move_with_the_jitter() -> None:
    mask = rectangle(10, 20, 30, 50)
    assert box_around(mask, random(), jitter=0.0) == (20, 10, 50, 30)
    boxes = torch.tensor([box_around(mask, random(seed)) for seed in range(40)])
    moves = (boxes - torch.tensor([20, 10, 50, 30])).abs()
    assert bool((moves.max(dim=0).values <= torch.tensor([3, 2, 3, 2])).all())
    assert int(moves.min()) == 0 < int(moves.max())
    x0, y0, x1, y1 = box_around(rectangle(39, 59, 40, 60), random(), jitter=3.0)
    assert 0 <= x0 < x1 <= 60
    assert 0 <= y0 < y1 <= 40


def test_clicks_look_as_they_do_when_a_person_makes_them() -> None:
    hints = Hints.none(1, HW).with_clicks([Click(20, 10, positive=True)]).with_clicks([Click(50, 30, positive=False)])
    real = draw_strokes([Clicks(0, 1, torch.tensor([[20.0, 10.0], [50.0, 30.0]]), torch.tensor([True, False]))], (1,), HW)
    assert torch.equal(torch.stack((hints.positive[0], hints.negative[0])), real[0])


def test_the_later_of_two_hints_on_one_pixel_counts() -> None:
    hints = Hints.none(1, HW).with_clicks([Click(20, 10, positive=True)]).with_clicks([Click(20, 10, positive=False)])
    assert float(hints.positive.sum()) == 0
    assert float(hints.negative.sum()) == 81


def test_a_box_replaces_the_one_before_and_none_leaves_it() -> None:
    hints = Hints.none(2, HW).with_boxes([(0, 0, 5, 5), None]).with_boxes([(10, 10, 12, 13), None])
    assert hints.box.sum(dim=(1, 2)).tolist() == [6, 0]
    assert torch.equal(hints.with_boxes([None, None]).box, hints.box)


@pytest.mark.parametrize("seed", range(12))
def test_lines_stay_inside_the_errors_of_their_sign(seed: int) -> None:
    errors = errors_of(rectangle(2, 2, 30, 25), rectangle(10, 10, 38, 55))
    missed, excess = scribbles(errors, random(seed))
    for lines, region in ((missed, errors.missed), (excess, errors.excess)):
        assert float(lines.sum()) > 0
        assert bool(region[lines > 0].all())
        assert float(lines.sum()) < 0.5 * float(region.sum())


def test_a_speck_is_marked_only_when_it_is_all_there_is() -> None:
    speck, large = rectangle(5, 5, 6, 6), rectangle(20, 20, 35, 50)
    missed, excess = scribbles(Errors(speck, large), random())
    assert float(missed.sum()) == 0 < float(excess.sum())
    assert torch.equal(scribbles(Errors(speck, NOTHING), random())[0] > 0, speck)


def test_a_skeleton_is_the_middle_line_and_an_outline_runs_around() -> None:
    bar = rectangle(10, 5, 21, 55).numpy().astype(np.uint8)
    middle = skeleton(bar)
    assert set(np.flatnonzero(middle.any(axis=1))) <= set(range(12, 19))
    assert middle[15, 12:48].all()
    edge = outline(bar, 0.0)
    assert edge.sum() == 2 * 50 + 2 * 9
    assert outline(bar, 0.9).sum() < edge.sum()
    assert not (curve(bar, random()) & (1 - bar)).any()


def test_spoiled_masks_fall_below_the_overlap_asked_for() -> None:
    truth = torch.stack((rectangle(8, 10, 32, 40), rectangle(8, 10, 32, 40), NOTHING))
    spoiled = spoiled_masks(truth, (0.9, 0.5, 0.5), random(3))
    overlaps = [float((a & b).sum() / (a | b).sum().clamp(min=1)) for a, b in zip(spoiled, truth, strict=True)]
    assert 0.6 < overlaps[0] < 0.9
    assert 0.2 < overlaps[1] < 0.5
    assert not bool(spoiled[2].any())
    assert torch.equal(spoiled, spoiled_masks(truth, (0.9, 0.5, 0.5), random(3)))
