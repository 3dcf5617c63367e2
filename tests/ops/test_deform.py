"""Deformable convolution: against a plain one, against a scalar transcription of the paper's formula, and its gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.ops import deform
from rotoscope.ops.deform import Window, deform_conv2d

Pair = tuple[int, int]


def drawn(hw: Pair, window: Window, *, batch: int = 1, channels: Pair = (2, 3), spread: float = 1.5, seed: int = 0) -> dict[str, Tensor]:
    """Inputs in double precision whose offsets leave the map here and there."""
    random = torch.Generator().manual_seed(seed)
    taps, out = window.size[0] * window.size[1], window.output_hw(hw)
    shapes = {"x": (batch, channels[0], *hw), "offsets": (batch, 2 * taps, *out), "modulation": (batch, taps, *out)}
    shapes |= {"weight": (channels[1], channels[0], *window.size), "bias": (channels[1],)}
    made = {name: torch.randn(shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}
    return made | {"offsets": spread * made["offsets"], "modulation": made["modulation"].sigmoid()}


def placing(window: Window) -> dict[str, Pair]:
    return {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}


def by_formula(x: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor, window: Window) -> Tensor:
    """Sum over the taps of weight * modulation * x(place), x between the cells by the bilinear kernel max(0, 1 - |d|) (DCN v1, eq. 3 and 4)."""
    height, width = window.output_hw((x.shape[2], x.shape[3]))
    result = bias[None, :, None, None].repeat(x.shape[0], 1, height, width)
    for n in range(x.shape[0]):
        for row in range(height):
            for column in range(width):
                for tap in range(window.size[0] * window.size[1]):
                    i, j = divmod(tap, window.size[1])
                    y = row * window.stride[0] - window.padding[0] + i * window.dilation[0] + float(offsets[n, 2 * tap, row, column])
                    z = column * window.stride[1] - window.padding[1] + j * window.dilation[1] + float(offsets[n, 2 * tap + 1, row, column])
                    read = sum(
                        (1 - abs(y - q)) * (1 - abs(z - p)) * x[n, :, q, p]
                        for q in (math.floor(y), math.floor(y) + 1)
                        for p in (math.floor(z), math.floor(z) + 1)
                        if 0 <= q < x.shape[2] and 0 <= p < x.shape[3]
                    )
                    result[n, :, row, column] += weight[:, :, i, j] @ (modulation[n, tap, row, column] * (read + x.new_zeros(x.shape[1])))
    return result


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
windows = st.builds(Window, size=pairs, stride=pairs, padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), dilation=pairs)


@settings(deadline=None, max_examples=30)
@given(window=windows, hw=st.tuples(st.integers(7, 11), st.integers(7, 11)), batch=st.integers(1, 2), seed=st.integers(0, 99))
def test_without_offsets_it_is_a_plain_convolution(window, hw, batch, seed):
    given_ = drawn(hw, window, batch=batch, seed=seed)
    plain = given_ | {"offsets": torch.zeros_like(given_["offsets"]), "modulation": torch.ones_like(given_["modulation"])}
    expected = F.conv2d(given_["x"], given_["weight"], given_["bias"], **placing(window))
    torch.testing.assert_close(deform_conv2d(**plain, **placing(window)), expected)


@settings(deadline=None, max_examples=5)
@given(window=windows, seed=st.integers(0, 99))
def test_it_is_the_formula_of_the_paper(window, seed):
    given_ = drawn((7, 7), window, seed=seed)
    torch.testing.assert_close(deform_conv2d(**given_, **placing(window)), by_formula(**given_, window=window))


def test_a_whole_offset_reads_the_cell_below_it() -> None:
    x = torch.arange(20.0).view(1, 1, 4, 5)
    down = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    moved = deform_conv2d(x, down, torch.ones(1, 1, 4, 5), torch.ones(1, 1, 1, 1))
    assert torch.equal(moved[0, 0], torch.cat((x[0, 0, 1:], torch.zeros(1, 5))))


@pytest.mark.parametrize("chunk", [1, 60, 1 << 20])
def test_the_parts_do_not_show(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    given_ = drawn((6, 5), window, batch=2)
    whole = deform_conv2d(**given_, **placing(window))
    monkeypatch.setattr(deform, "_CHUNK", chunk)
    torch.testing.assert_close(deform_conv2d(**given_, **placing(window)), whole, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("window", [Window((3, 3), (1, 1), (1, 1), (1, 1)), Window((3, 2), (2, 1), (2, 0), (2, 1))])
def test_its_gradients_are_those_of_small_changes(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    given_ = drawn((3, 3), window)
    names = ("x", "offsets", "modulation", "weight", "bias")
    inputs = tuple(given_[name].requires_grad_() for name in names)
    assert torch.autograd.gradcheck(lambda *values: deform_conv2d(*values, **placing(window)), inputs)
    monkeypatch.setattr(deform, "_CHUNK", 40)  # in parts, along a random direction only: it is slow
    assert torch.autograd.gradcheck(lambda *values: deform_conv2d(*values, **placing(window)), inputs, fast_mode=True)


def test_what_is_read_is_not_kept_for_the_way_back() -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    given_ = {name: value.float().requires_grad_() for name, value in drawn((24, 24), window, channels=(16, 4)).items()}
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        deform_conv2d(**given_, **placing(window))
    assert max(kept, default=0) < 24 * 24 * 9 * 16  # the columns of the whole map


def test_half_precision_costs_rounding_only() -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    exact = {name: value.bfloat16().float().requires_grad_() for name, value in drawn((8, 9), window, channels=(4, 4)).items()}
    half = {name: value.detach().bfloat16().requires_grad_() for name, value in exact.items()}
    first, second = deform_conv2d(**exact, **placing(window)), deform_conv2d(**half, **placing(window))
    assert second.dtype == torch.bfloat16
    torch.testing.assert_close(second.float(), first, atol=0.1, rtol=0.05)
    second.sum().backward()
    assert all(value.grad is not None and bool(value.grad.isfinite().all()) for value in half.values())


def test_it_can_be_trained_in_mixed_precision() -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    given_ = {name: value.float().requires_grad_() for name, value in drawn((5, 5), window).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = deform_conv2d(**given_ | {"x": given_["x"].bfloat16()}, **placing(window))
    result.float().sum().backward()
    assert given_["offsets"].grad is not None


def test_inputs_that_do_not_fit_are_refused() -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    given_ = drawn((5, 5), window)
    with pytest.raises(InputError, match=r"18, 5, 5"):
        deform_conv2d(**given_ | {"offsets": given_["offsets"][:, :9]}, **placing(window))
    with pytest.raises(InputError, match="window of 9 taps"):
        deform_conv2d(**given_, stride=(2, 2), padding=(1, 1))
