import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.ops import affinity
from rotoscope.ops.affinity import GaussianKernel, KeyValue, gather_values, largest, read_memory, select_top

CHANNELS, VALUES = 6, 5


def memory_of(sizes: list[int], seed: int = 0) -> list[KeyValue]:
    random = torch.Generator().manual_seed(seed)
    return [KeyValue(torch.randn(size, CHANNELS, generator=random), torch.randn(size, VALUES, generator=random)) for size in sizes]


def whole_matrix(query: Tensor, memory: list[KeyValue], top_k: int | None, log_weight: Tensor | float = 0.0) -> Tensor:
    """The plain way: all similarities at once, all but the k largest of each query cell struck out."""
    keys, values = (torch.cat(parts) for parts in zip(*memory, strict=True))
    logits = query @ keys.T / math.sqrt(CHANNELS) + log_weight
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[1]), dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits.softmax(dim=1) @ values


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a few cells are many pieces."""
    monkeypatch.setattr(affinity, "_QUERIES_AT_ONCE", 4)
    monkeypatch.setattr(affinity, "_MEMORY_AT_ONCE", 10)
    monkeypatch.setattr(affinity, "_GROUP", 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 13), st.one_of(st.none(), st.integers(1, 60)))
def test_reading_in_pieces_gives_what_the_whole_matrix_gives(sizes: list[int], queries: int, top_k: int | None) -> None:
    memory, query = memory_of(sizes), torch.randn(queries, CHANNELS)
    torch.testing.assert_close(read_memory(query, memory, top_k=top_k), whole_matrix(query, memory, top_k), atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 40))
def test_weights_are_a_distribution_over_at_most_k_different_cells(sizes: list[int], top_k: int) -> None:
    selection = select_top(torch.randn(7, CHANNELS), [frame.key for frame in memory_of(sizes)], top_k)
    assert selection.weights.shape == selection.cells.shape == (7, min(top_k, sum(sizes)))
    torch.testing.assert_close(selection.weights.sum(dim=1), torch.ones(7))
    assert bool((selection.weights.diff(dim=1) <= 0).all())
    assert all(len(set(row)) == len(row) and min(row) >= 0 and max(row) < sum(sizes) for row in selection.cells.tolist())


def test_how_the_memory_is_cut_into_frames_changes_nothing() -> None:
    keys, values = memory_of([40])[0]
    query = torch.randn(9, CHANNELS)
    pieces = [KeyValue(key, value) for key, value in zip(keys.split([3, 17, 20]), values.split([3, 17, 20]), strict=True)]
    torch.testing.assert_close(read_memory(query, pieces, top_k=7), read_memory(query, [KeyValue(keys, values)], top_k=7))


def test_a_memory_smaller_than_k_is_read_as_a_whole() -> None:
    memory, query = memory_of([3]), torch.randn(5, CHANNELS)
    torch.testing.assert_close(read_memory(query, memory, top_k=50), read_memory(query, memory, top_k=None))


def test_equal_similarities_still_give_k_cells() -> None:
    memory = [KeyValue(torch.zeros(30, CHANNELS), torch.arange(30.0)[:, None].expand(-1, VALUES).contiguous())]
    selection = select_top(torch.randn(3, CHANNELS), [memory[0].key], 4)
    torch.testing.assert_close(selection.weights, torch.full((3, 4), 0.25))
    torch.testing.assert_close(gather_values(selection, [memory[0].value])[:, 0], selection.cells.float().mean(dim=1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 12))
def test_the_largest_numbers_of_a_row_are_those_of_topk(columns: int, k: int) -> None:
    rows = torch.randn(6, columns).round(decimals=1)  # with ties
    values, places = largest(rows, k)
    assert torch.equal(values, rows.topk(min(k, columns)).values)
    assert torch.equal(rows.gather(1, places), values)


@pytest.mark.parametrize("top_k", [None, 8])
def test_the_kernel_prefers_query_cells_near_the_best_one(top_k: int | None) -> None:
    hw, sigma = (3, 4), 1.5
    query, memory = torch.randn(12, CHANNELS), memory_of([12, 9])
    best = (torch.cat([frame.key for frame in memory]) @ query.T).argmax(dim=1)
    place = torch.stack((torch.arange(12) // 4, torch.arange(12) % 4), dim=1).float()
    squared = torch.cdist(place, place[best]) ** 2
    expected = whole_matrix(query, memory, top_k, -squared / (2 * sigma**2))
    torch.testing.assert_close(read_memory(query, memory, top_k=top_k, kernel=GaussianKernel(sigma, hw)), expected, atol=1e-5, rtol=1e-5)
    plain = read_memory(query, memory, top_k=top_k)
    torch.testing.assert_close(read_memory(query, memory, top_k=top_k, kernel=GaussianKernel(1e6, hw)), plain, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_no_piece_of_the_matrix_is_larger_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = affinity.largest
    monkeypatch.setattr(affinity, "largest", lambda rows, k: (seen.append(tuple(rows.shape)), plain(rows, k))[1])
    select_top(torch.randn(20, CHANNELS), [frame.key for frame in memory_of([7] * 9)], 3)
    assert max(rows for rows, _ in seen) == 4
    assert max(columns for _, columns in seen) < 10 + 7  # a piece is closed by the frame that fills it
    assert sum(rows * columns for rows, columns in seen) == 20 * 63
