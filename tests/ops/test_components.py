import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.ops.components import connected_parts, small_parts, without_strays


def flood_fill(present: Tensor) -> list[set[tuple[int, int]]]:
    left = {(int(row), int(column)) for row, column in present.nonzero()}
    parts = []
    while left:
        part, border = set(), {left.pop()}
        while border:
            part |= border
            around = {(row + down, column + right) for row, column in border for down in (-1, 0, 1) for right in (-1, 0, 1)}
            border = around & left
            left -= border
        parts.append(part)
    return parts


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 999))
def test_parts_are_those_of_a_flood_fill(height: int, width: int, seed: int) -> None:
    present = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < 0.4
    numbers = connected_parts(present)
    found = [{(int(row), int(column)) for row, column in (numbers == number).nonzero()} for number in numbers.unique() if number > 0]
    assert sorted(map(sorted, found)) == sorted(map(sorted, flood_fill(present)))


def test_a_winding_part_is_one_part() -> None:
    present = torch.ones(9, 9, dtype=torch.bool)
    present[1::4, :-1] = False
    present[3::4, 1:] = False
    assert len(connected_parts(present).unique()) == 2


def test_small_parts_are_those_below_the_share() -> None:
    amounts = torch.zeros(10, 20)
    amounts[:, :5], amounts[2:4, 8:11], amounts[6:9, 14:19] = 1.0, 1.0, 1.0  # 50, 6 and 15
    small = small_parts(amounts, threshold=0.4, share=0.2)
    assert torch.equal(small.nonzero().amin(0), torch.tensor([2, 8]))
    assert int(small.sum()) == 6


def test_nothing_above_the_threshold_has_no_small_parts() -> None:
    assert not bool(small_parts(torch.full((4, 4), 0.3), threshold=0.4, share=0.2).any())


def test_strays_become_background_and_large_parts_stay() -> None:
    probs = torch.zeros(3, 21, 31)
    probs[1, 2:12, 2:12] = 0.9
    probs[1, 16:18, 24:26] = 0.9  # 4 of 104 cells
    probs[2, 14:20, 2:8] = 0.8
    probs[0] = 1 - probs[1:].sum(dim=0)
    cleaned = without_strays(probs, share=0.1)
    torch.testing.assert_close(cleaned[1, 2:12, 2:12], probs[1, 2:12, 2:12])
    torch.testing.assert_close(cleaned[2], probs[2])
    assert float(cleaned[1, 13:, 20:].max()) == 0
    torch.testing.assert_close(cleaned.sum(dim=0), torch.ones(21, 31))
    assert torch.equal(without_strays(probs, share=0.01), probs)
