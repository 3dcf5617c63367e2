"""Convolutions that predict where they look."""

import pytest
import torch
import torch.nn.functional as F

from rotoscope.nn.deformable import DeformableConv


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_at_the_start_it_is_half_a_plain_convolution(stride: int, dilation: int) -> None:
    layer = DeformableConv(4, 6, stride=stride, dilation=dilation)
    x = torch.randn(2, 4, 9, 12)
    plain = F.conv2d(x, layer.weight / 2, layer.bias, stride, dilation, dilation)
    torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)


def test_all_of_it_learns() -> None:
    layer = DeformableConv(3, 5)
    layer(torch.randn(1, 3, 8, 7)).square().mean().backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in layer.parameters())


def test_it_keeps_the_layout_with_the_channels_last() -> None:
    x = torch.randn(2, 4, 8, 9).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert DeformableConv(4, 6)(x).is_contiguous(memory_format=torch.channels_last)
