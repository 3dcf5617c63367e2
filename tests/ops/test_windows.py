import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.ops import windows
from rotoscope.ops.windows import OffsetTerms, windowed_attention


def brute_force(query: Tensor, key: Tensor, value: Tensor, terms: OffsetTerms) -> Tensor:
    """The formula of the docstring, cell by cell."""
    n, heads, height, width, channels = query.shape
    radius = math.isqrt(terms.key.shape[1]) // 2
    offsets = [(y, x) for y in range(-radius, radius + 1) for x in range(-radius, radius + 1)]
    read = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=query.dtype)
    for b, h, y, x in torch.cartesian_prod(*map(torch.arange, (n, heads, height, width))).tolist():
        inside = [(o, y + dy, x + dx) for o, (dy, dx) in enumerate(offsets) if 0 <= y + dy < height and 0 <= x + dx < width]
        asked = query[b, h, y, x]
        scores = [asked @ key[b, h, v, u] / channels**0.5 + asked @ terms.key[h, o] + terms.bias[h, o] for o, v, u in inside]
        weights = torch.stack(scores).softmax(dim=0)
        for weight, (o, v, u) in zip(weights, inside, strict=True):
            read[b, h, y, x] += weight * (value[b, h, v, u] + (0 if terms.value is None else terms.value[h, o]))
    return read


def random_case(heads: int, height: int, width: int, *, radius: int, with_values: bool) -> tuple[Tensor, Tensor, Tensor, OffsetTerms]:
    window, channels = (2 * radius + 1) ** 2, 3
    query, key = (torch.randn(1, heads, height, width, channels, dtype=torch.float64) for _ in range(2))
    value = torch.randn(1, heads, height, width, 2, dtype=torch.float64)
    offset_value = torch.randn(heads, window, 2, dtype=torch.float64) if with_values else None
    terms = OffsetTerms(torch.randn(heads, window, channels, dtype=torch.float64), torch.randn(heads, window, dtype=torch.float64), offset_value)
    return query, key, value, terms


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 2), st.booleans(), st.integers(1, 4))
def test_it_is_the_formula_for_any_grid_and_tile(heads, height, width, radius, with_values, tile):
    case = random_case(heads, height, width, radius=radius, with_values=with_values)
    before = windows._TILE_HW
    windows._TILE_HW = (tile, 5 - tile)
    try:
        read, weights = windowed_attention(*case, return_weights=True)
    finally:
        windows._TILE_HW = before
    assert torch.allclose(read, brute_force(*case))
    assert weights is not None
    assert torch.allclose(weights.sum(dim=-1), torch.ones(1, heads, height, width, dtype=torch.float64))


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 2), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_a_dense_map_over_a_small_grid_gives_the_same(heads, height, width, radius):
    case = random_case(heads, height, width, radius=radius, with_values=False)
    small, tiled = windowed_attention(*case)[0], windowed_attention(*case, return_weights=True)[0]
    assert torch.allclose(small, tiled)
    assert torch.allclose(windows._attend_densely(*case), brute_force(*case))


def test_gradients_reach_everything_on_a_small_grid_too():
    query, key, value, terms = random_case(2, 3, 4, radius=1, with_values=False)
    inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value, terms.key, terms.bias)]
    assert torch.autograd.gradcheck(lambda *tensors: windowed_attention(*tensors[:3], OffsetTerms(*tensors[3:]))[0], inputs)


def test_weights_are_only_made_when_asked_for():
    assert windowed_attention(*random_case(1, 2, 2, radius=1, with_values=False))[1] is None


def test_gradients_reach_everything():
    query, key, value, terms = random_case(2, 4, 5, radius=1, with_values=True)
    inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value, *terms)]

    def read(*tensors: Tensor) -> Tensor:
        return windowed_attention(*tensors[:3], OffsetTerms(*tensors[3:]))[0]

    assert torch.autograd.gradcheck(read, inputs)


def test_no_map_over_all_pairs_of_cells_is_made():
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    height, width = 40, 40
    query, key, value = (torch.randn(1, 1, height, width, 4) for _ in range(3))
    terms = OffsetTerms(torch.randn(1, 225, 4), torch.randn(1, 225))
    with Watch():
        windowed_attention(query, key, value, terms)
    assert largest < (height * width) ** 2 / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reduced_precision_stays_finite(dtype):
    query, key, value, terms = random_case(1, 9, 9, radius=3, with_values=True)
    terms = OffsetTerms(*(tensor.to(dtype) for tensor in terms))
    read, _ = windowed_attention(query.to(dtype) * 100, key.to(dtype) * 100, value.to(dtype), terms)
    assert bool(torch.isfinite(read).all())
