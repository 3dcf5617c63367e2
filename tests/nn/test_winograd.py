import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn

from rotoscope.nn import winograd
from rotoscope.nn.winograd import WinogradConv


def pair(inputs: int, outputs: int, *, seed: int = 0) -> tuple[WinogradConv, WinogradConv]:
    """The same convolution, direct and by tiles."""
    torch.manual_seed(seed)
    direct = WinogradConv(inputs, outputs).requires_grad_(requires_grad=False)
    tiled = WinogradConv(inputs, outputs).requires_grad_(requires_grad=False)
    tiled.load_state_dict(direct.state_dict())
    tiled.prepare()
    return direct, tiled


@settings(deadline=None, max_examples=25)
@given(
    hw=st.tuples(st.integers(1, 35), st.integers(1, 19)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batch=st.integers(1, 2),
    rectify=st.booleans(),
    seed=st.integers(0, 9),
)
def test_tiles_give_what_the_direct_convolution_gives(hw, channels, batch, rectify, seed):
    direct, tiled = pair(*channels, seed=seed)
    x, added = torch.randn(batch, channels[0], *hw), torch.randn(batch, channels[1], *hw)
    kept = x.clone()
    torch.testing.assert_close(tiled(x, rectify=rectify), direct(x, rectify=rectify), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(tiled(x, rectify=rectify, added=added), direct(x, rectify=rectify) + added, atol=2e-5, rtol=2e-5)
    assert torch.equal(x, kept)


def test_the_direct_form_is_a_plain_convolution_of_the_rectified_input():
    direct, _ = pair(3, 2)
    x = torch.randn(1, 3, 6, 7)
    assert torch.equal(direct(x, rectify=True), F.conv2d(F.relu(x), direct.weight, direct.bias, padding=1))


def test_in_double_precision_tiles_are_exact_to_rounding():
    direct, tiled = (conv.double() for conv in pair(8, 8))
    tiled.tiled = winograd.transform_kernels(direct.weight)
    x = torch.randn(1, 8, 13, 21, dtype=torch.float64)
    torch.testing.assert_close(tiled(x), direct(x), atol=1e-12, rtol=1e-12)


def test_a_wide_convolution_keeps_within_its_error():
    direct, tiled = pair(256, 16)
    x = torch.randn(1, 256, 16, 24).contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(x.double(), direct.weight.double(), direct.bias.double(), padding=1)
    assert float((tiled(x) - exact).abs().max()) < 3e-5 * float(exact.abs().max())
    assert tiled(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("constant", ["_INTO", "_KERNELS", "_OUT_OF"])
def test_a_wrong_matrix_would_be_seen(monkeypatch: pytest.MonkeyPatch, constant: str) -> None:
    rows = [list(row) for row in getattr(winograd, constant)]
    rows[3][2] += 0.01
    monkeypatch.setattr(winograd, constant, tuple(map(tuple, rows)))
    direct, tiled = pair(4, 4)
    x = torch.randn(1, 4, 8, 8)
    assert float((tiled(x) - direct(x)).abs().max()) > 1e-3


def test_preparing_twice_changes_nothing_and_drops_the_kernels():
    direct, tiled = pair(2, 3)
    kernels = tiled.tiled
    tiled.prepare()
    assert tiled.tiled is kernels
    assert tiled.weight.numel() == 0
    assert direct.tiled is None


def test_the_direct_form_can_be_trained():
    conv = WinogradConv(2, 3)
    conv(torch.randn(1, 2, 5, 5), rectify=True, added=torch.randn(1, 3, 5, 5)).sum().backward()
    assert conv.weight.grad is not None
    assert set(conv.state_dict()) == {"weight", "bias"}


def test_tiles_replace_wide_windows_only_and_small_maps_go_past_them():
    parts = nn.Sequential(
        nn.Conv2d(32, 40, 3, padding=1, bias=False),
        nn.Conv2d(40, 32, 3, 2, 1),
        nn.Conv2d(32, 64, 1),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 16, 3, padding=1),
        WinogradConv(16, 48),
        WinogradConv(48, 32),
    ).requires_grad_(requires_grad=False)
    x, small = torch.randn(1, 32, 13, 12), torch.randn(1, 32, 3, 3)
    before, before_small = parts(x), parts(small)
    winograd.tile_convolutions(parts, least_channels=32, least_cells=20)
    tiled = [isinstance(part, WinogradConv) and part.tiled is not None for part in parts]
    assert tiled == [True, False, False, False, False, False, True]
    torch.testing.assert_close(parts(x), before, atol=2e-5, rtol=2e-5)
    assert not torch.equal(parts(x), before)
    assert torch.equal(parts(small), before_small)
