"""The windowed reads against plain ones that build everything: unfolded columns, and the bilinear sampler of torch.

In float64, for the plain softmax over a thousand float32 entries is itself off by up to 4e-5.
"""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from rotoscope.ops import local
from rotoscope.ops.local import dilated_window_offsets, join_parts, shifted_window_part, window_part, windowed_attention, windowed_correlation

SIZES = st.integers(1, 19)


def displacements(radius: int) -> Tensor:
    """(x, y) of each place of a window, row by row."""
    steps = torch.arange(-radius, radius + 1)
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy")).flatten(1)


def columns(maps: Tensor, radius: int, dilation: int = 1) -> Tensor:
    """[c, p * p, h, w]: each cell's window, zero outside the frame."""
    unfolded = F.unfold(maps[None], 2 * radius + 1, dilation=dilation, padding=radius * dilation)
    return unfolded.view(maps.shape[0], -1, *maps.shape[1:])


def sampled_columns(maps: Tensor, offsets: Tensor, radius: int) -> Tensor:
    """[c, p * p, h, w]: each cell's window around a place of its own, between cells interpolated, zero outside."""
    height, width = maps.shape[1:]
    cells = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")).to(maps)
    at = (cells + offsets)[:, None] + displacements(radius).to(maps)[:, :, None, None]
    scale = torch.tensor([max(width - 1, 1), max(height - 1, 1)]).to(maps)
    at = 2 * at.movedim(0, -1) / scale - 1
    return F.grid_sample(maps[None], at.flatten(1, 2)[None], align_corners=True)[0].view(maps.shape[0], -1, height, width)


def plain_attention(query: Tensor, keys: list[Tensor], values: list[Tensor], radius: int, *, masked_outside: bool) -> Tensor:
    logits = torch.cat([(query[:, None] * columns(key, radius)).sum(dim=0) for key in keys])
    if masked_outside:
        logits = logits.masked_fill(columns(torch.ones_like(query[:1]), radius)[0].repeat(len(keys), 1, 1) == 0, -torch.inf)
    return (logits.softmax(dim=0) * torch.cat([columns(value, radius) for value in values], dim=1)).sum(dim=1)


def scene(height: int, width: int, frames: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    random = [torch.randn(4, height, width, dtype=torch.float64) for _ in range(frames + 1)]
    return random[0], random[1:], [torch.rand(3, height, width, dtype=torch.float64) for _ in range(frames)]


@settings(deadline=None, max_examples=15)
@given(SIZES, SIZES, st.integers(1, 4), st.integers(1, 3))
def test_the_correlation_is_that_of_unfolded_columns(height: int, width: int, radius: int, dilation: int) -> None:
    query, (key,), _ = scene(height, width, 1)
    plain = (query[:, None] * columns(key, radius, dilation)).sum(dim=0)
    ours = windowed_correlation(query, key, radius=radius, dilation=dilation)
    assert torch.allclose(ours.flatten(0, 1), plain, atol=1e-10)


@settings(deadline=None, max_examples=20)
@given(SIZES, SIZES, st.integers(1, 3), st.integers(0, 9), st.booleans())
def test_windowed_attention_is_one_softmax_over_all_windows(height: int, width: int, frames: int, radius: int, masked_outside: bool) -> None:
    query, keys, values = scene(height, width, frames)
    ours = windowed_attention(query, keys, values, radius=radius, temperature=0.5, masked_outside=masked_outside)
    assert torch.allclose(ours, plain_attention(query / 0.5, keys, values, radius, masked_outside=masked_outside), atol=1e-10)


@settings(deadline=None, max_examples=10)
@given(SIZES, SIZES, st.integers(1, 3), st.integers(1, 9))
def test_single_precision_is_nearly_as_good(height: int, width: int, frames: int, radius: int) -> None:
    query, keys, values = scene(height, width, frames)
    single = windowed_attention(query.float(), [key.float() for key in keys], [value.float() for value in values], radius=radius)
    assert torch.allclose(single.double(), windowed_attention(query, keys, values, radius=radius), atol=5e-6)


@settings(deadline=None, max_examples=10)
@given(SIZES, SIZES, st.integers(0, 9))
def test_a_distribution_stays_one_where_the_outside_is_masked(height: int, width: int, radius: int) -> None:
    query, keys, values = scene(height, width, 2)
    values = [value.softmax(dim=0) for value in values]
    total = windowed_attention(query, keys, values, radius=radius).sum(dim=0)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-10)
    unmasked = windowed_attention(query, keys, values, radius=radius, masked_outside=False).sum(dim=0)
    assert float(unmasked.max()) <= 1 + 1e-10
    assert radius == 0 or float(unmasked.min()) < 1


@settings(deadline=None, max_examples=15)
@given(SIZES, SIZES, st.integers(1, 4), st.floats(0.1, 60))
def test_a_shifted_window_reads_what_a_sampler_reads(height: int, width: int, radius: int, spread: float) -> None:
    height, width = height + 1, width + 1  # the sampler's scale needs two cells
    query, (key,), (value,) = scene(height, width, 1)
    offsets, other = (torch.randn(2, 2, height, width, dtype=torch.float64) * spread).unbind()
    logits = (query[:, None] * sampled_columns(key, offsets, radius)).sum(dim=0)
    for value_offsets in (None, other):
        held = sampled_columns(value, offsets if value_offsets is None else value_offsets, radius)
        plain = (logits.softmax(dim=0) * held).sum(dim=1)
        part = shifted_window_part(query, key, value, offsets, radius=radius, value_offsets=value_offsets)
        assert torch.allclose(join_parts([part]).view_as(plain), plain, atol=1e-10)


def test_a_shift_by_nothing_is_no_shift() -> None:
    query, (key,), (value,) = scene(11, 14, 1)
    shifted = shifted_window_part(query, key, value, torch.zeros(2, 11, 14, dtype=torch.float64), radius=3)
    plain = window_part(query, key, value, radius=3)
    assert torch.allclose(join_parts([shifted]), join_parts([plain]), atol=1e-10)


def test_windows_far_outside_the_frame_read_nothing() -> None:
    query, (key,), (value,) = scene(9, 9, 1)
    for far in (1e3, -1e3, 1e9):
        read = join_parts([shifted_window_part(query, key, value, torch.full((2, 9, 9), far, dtype=torch.float64), radius=2)])
        assert float(read.abs().max()) == 0


@settings(deadline=None, max_examples=10)
@given(SIZES, SIZES, st.integers(1, 4), st.integers(1, 4))
def test_the_dilated_search_gives_the_mean_displacement(height: int, width: int, radius: int, dilation: int) -> None:
    query, (key,), _ = scene(height, width, 1)
    weights = (query[:, None] * columns(key, radius, dilation)).sum(dim=0).softmax(dim=0)
    plain = dilation * torch.einsum("cn,nhw->chw", displacements(radius).double(), weights)
    assert torch.allclose(dilated_window_offsets(query, key, radius=radius, dilation=dilation), plain, atol=1e-10)


def test_the_dilated_search_finds_a_translation() -> None:
    key = 6 * F.normalize(torch.randn(16, 30, 40), dim=0)
    query = torch.roll(key, (-4, 6), dims=(1, 2))  # what was at (x, y) is now at (x + 6, y - 4)
    inner = dilated_window_offsets(query, key, radius=6, dilation=2)[:, 8:22, 12:28]
    assert torch.allclose(inner, torch.tensor([-6.0, 4.0])[:, None, None].expand_as(inner), atol=0.05)


def test_parts_of_any_size_join_without_overflow() -> None:
    query, keys, values = scene(8, 8, 2)
    huge = windowed_attention(1e4 * query, keys, values, radius=2)
    assert bool(torch.isfinite(huge).all())
    assert torch.allclose(huge, plain_attention(1e4 * query, keys, values, 2, masked_outside=True), atol=1e-10)


def test_the_order_of_the_memory_frames_does_not_matter() -> None:
    query, keys, values = scene(10, 13, 3)
    straight = windowed_attention(query, keys, values, radius=4)
    assert torch.allclose(straight, windowed_attention(query, keys[::-1], values[::-1], radius=4), atol=1e-10)


def test_a_value_may_bring_its_own_outside() -> None:
    query, (key,), _ = scene(6, 7, 1)
    value = torch.rand(2, 6 + 4, 7 + 4, dtype=torch.float64)
    logits = (query[:, None] * columns(key, 2)).sum(dim=0)
    held = F.unfold(value[None], 5).view(2, 25, 6, 7)
    plain = (logits.softmax(dim=0) * held).sum(dim=1)
    assert torch.allclose(join_parts([window_part(query, key, value, radius=2)]).view_as(plain), plain, atol=1e-10)


@pytest.mark.parametrize("masked_outside", [False, True])
@pytest.mark.parametrize("hw", [(9, 10), (3, 17)])
def test_gradients_are_those_of_the_plain_read(hw: tuple[int, int], masked_outside: bool) -> None:
    """With a radius of 2 some cells that pad a tile see nothing at all: they must not poison the gradient."""
    query, keys, values = scene(*hw, 2)
    leaves = [leaf.requires_grad_() for leaf in (query, *keys, *values)]
    weight = torch.randn(3, *hw, dtype=torch.float64)
    results = []
    for read in (windowed_attention, None):
        asked, held = leaves[1:3], leaves[3:]
        if read is not None:
            out = read(leaves[0], asked, held, radius=2, masked_outside=masked_outside)
        else:
            out = plain_attention(leaves[0], asked, held, 2, masked_outside=masked_outside)
        results.append(torch.autograd.grad((out * weight).sum(), leaves))
    assert all(torch.allclose(ours, plain, atol=1e-10) for ours, plain in zip(*results, strict=True))


def test_gradients_flow_through_a_shifted_read_to_the_offsets_too() -> None:
    query, (key,), (value,) = scene(5, 6, 1)
    leaves = [leaf.requires_grad_() for leaf in (query, key, value, 0.3 + torch.rand(2, 5, 6, dtype=torch.float64) * 0.4)]
    plain_logits = (leaves[0][:, None] * sampled_columns(leaves[1], leaves[3], 2)).sum(dim=0)
    plain = (plain_logits.softmax(dim=0) * sampled_columns(leaves[2], leaves[3], 2)).sum(dim=1)
    ours = join_parts([shifted_window_part(*leaves, radius=2)]).view_as(plain)
    weight = torch.randn_like(plain)
    for mine, theirs in zip(torch.autograd.grad((ours * weight).sum(), leaves), torch.autograd.grad((plain * weight).sum(), leaves), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)


def test_scratch_memory_does_not_grow_with_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[int, int] = {}
    products = torch.bmm
    for side in (24, 96, 192):
        seen: list[int] = []
        monkeypatch.setattr(torch, "bmm", lambda a, b, seen=seen: (seen.append(a.shape[0] * a.shape[1] * b.shape[2]), products(a, b))[1])
        query, (key,), (value,) = scene(side, side, 1)
        window_part(query, key, value, radius=4)
        sizes[side] = max(seen)
    assert sizes[192] == sizes[96] == local._TILES_AT_ONCE * 64 * 16**2
    assert sizes[24] < sizes[96]
