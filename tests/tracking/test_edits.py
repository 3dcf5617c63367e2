from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rotoscope.errors import InputError
from rotoscope.tracking.edits import add_pixels, brush_pixels, checked_region, erase_pixels, from_json, to_json
from rotoscope.types import Box, Clicks, Masks, Scribble

HW = (20, 30)
POINTS = st.lists(st.tuples(st.floats(-5, 35, width=32), st.floats(-5, 25, width=32)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(POINTS, st.floats(0.3, 9))
def test_a_brush_covers_exactly_the_pixels_near_its_line(points, radius: float) -> None:
    path = torch.tensor(points, dtype=torch.float32)
    centres = torch.stack(torch.meshgrid(torch.arange(20) + 0.5, torch.arange(30) + 0.5, indexing="ij")[::-1], dim=-1).double()
    steps = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    ends = list(pairwise(path)) or [(path[0], path[0])]
    dense = torch.cat([start.double() + steps * (end - start).double() for start, end in ends])
    distance = torch.cdist(centres.reshape(-1, 2), dense).amin(dim=1).reshape(HW)
    if not bool((distance <= radius).any()):
        return
    found = brush_pixels(path, radius, HW)
    assert bool(found[distance <= radius].all())
    assert not bool(found[distance > radius + 0.02].any())


def test_adding_and_erasing_leave_all_other_pixels_alone() -> None:
    masks = Masks(torch.rand((3, *HW)).softmax(dim=0), (4, 9))
    where = torch.zeros(HW, dtype=torch.bool)
    where[3:7, 5:9] = True
    added, erased = add_pixels(masks, 2, where), erase_pixels(masks, [9], where)
    assert added.object_ids == (4, 9, 2)
    assert bool((added.labels()[where] == 2).all())
    assert torch.equal(added.probs[:3, ~where], masks.probs[:, ~where])
    assert not bool((erased.labels()[where] == 9).any())
    assert torch.equal(erased.probs[:, ~where], masks.probs[:, ~where])
    assert torch.allclose(erased.probs.sum(dim=0), torch.ones(HW))
    assert bool((erase_pixels(masks, [4, 9], where).labels()[where] == 0).all())


def test_strokes_come_back_from_json_as_they_were() -> None:
    clicks = Clicks(3, 2, torch.tensor([[1.1, 2.7], [0.3, 1e-7]]), torch.tensor([True, False]))
    again = from_json(to_json(clicks))
    assert isinstance(again, Clicks)
    assert torch.equal(again.points, clicks.points)
    assert torch.equal(again.positive, clicks.positive)
    line = from_json(to_json(Scribble(0, 1, torch.tensor([[0.1, 3.3]]), positive=False, width_pixels=5.5)))
    assert isinstance(line, Scribble)
    assert (line.positive, line.width_pixels) == (False, 5.5)
    box = from_json(to_json(Box(1, 1, torch.tensor([0.1, 0.2, 3.3, 4.4]))))
    assert isinstance(box, Box)
    assert torch.equal(box.xyxy, torch.tensor([0.1, 0.2, 3.3, 4.4]))


def test_regions_are_cut_to_the_frame() -> None:
    assert checked_region((-5, 0.4, 17.6, 90), HW) == (0, 0, 18, 20)
    for wrong in ((0, 0, 10, 20), (25, 0, 60, 20), (0, 0, float("nan"), 20)):
        with pytest.raises(InputError, match="region"):
            checked_region(wrong, HW)
