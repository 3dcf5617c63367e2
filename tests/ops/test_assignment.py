from itertools import permutations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.ops.assignment import best_assignment

sizes = st.integers(0, 6)


def total(scores: Tensor, pairs: list[tuple[int, int]]) -> float:
    return sum(scores[row, column].item() for row, column in pairs)


def best_by_trying_all(scores: Tensor) -> float:
    rows, columns = scores.shape
    if rows > columns:
        return best_by_trying_all(scores.T)
    return max(total(scores, list(enumerate(order))) for order in permutations(range(columns), rows))


@settings(deadline=None, max_examples=150)
@given(rows=sizes, columns=sizes, levels=st.sampled_from([2, 5, 10**6]), seed=st.integers(0, 9999))
def test_no_other_assignment_has_a_larger_sum(rows: int, columns: int, levels: int, seed: int) -> None:
    scores = torch.randint(-levels, levels, (rows, columns), generator=torch.Generator().manual_seed(seed)) / levels  # few levels: many ties
    pairs = best_assignment(scores)
    assert len(pairs) == min(rows, columns)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert pairs == sorted(pairs)
    assert total(scores, pairs) == pytest.approx(best_by_trying_all(scores), abs=1e-6)


def test_taking_the_best_pair_first_would_be_noticed() -> None:
    assert best_assignment(torch.tensor([[1.0, 0.9], [0.9, 0.0]])) == [(0, 1), (1, 0)]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 9999), shift=st.floats(-1e3, 1e3))
def test_prices_prove_large_assignments_and_a_constant_changes_nothing(seed: int, shift: float) -> None:
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(40, generator=random)
    scores = torch.rand(40, 40, generator=random, dtype=torch.float64)
    rows, columns = torch.rand(2, 40, generator=random, dtype=torch.float64)
    reduced = -scores
    reduced[torch.arange(40), order] = 0.0  # nothing is above 0 and the hidden pairs are 0: with any prices they stay the best
    assert best_assignment(reduced + rows[:, None] + columns[None] + shift) == list(enumerate(order.tolist()))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_is_assigned_to_nobody(shape: tuple[int, int]) -> None:
    assert best_assignment(torch.zeros(shape)) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="must be finite"):
        best_assignment(torch.tensor([[0.5, value]]))
