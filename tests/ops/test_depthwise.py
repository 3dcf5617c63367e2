import pytest
import torch
import torch.nn.functional as F

from rotoscope.ops.depthwise import depthwise_conv2d


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, None), (5, 1, None), (7, 1, 3), (5, 2, None), (5, 2, 0), (5, 3, 1)])
def test_depthwise_filter_and_gradients_equal_a_grouped_convolution(size, stride, padding):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 11, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, size, size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    ours = depthwise_conv2d(x, weight, bias, stride=stride, padding=padding)
    plain = F.conv2d(x, weight, bias, stride=stride, padding=size // 2 if padding is None else padding, groups=6)
    pull = torch.randn_like(plain)
    assert torch.allclose(ours, plain, atol=1e-12)
    for mine, theirs in zip(torch.autograd.grad(ours, (x, weight, bias), pull), torch.autograd.grad(plain, (x, weight, bias), pull), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-11)


def test_only_what_asks_for_a_gradient_gets_one():
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(2, 1, 5, 5, requires_grad=True)
    depthwise_conv2d(x, weight).sum().backward()
    assert weight.grad is not None
    frozen = weight.detach()
    moving = x.clone().requires_grad_()
    depthwise_conv2d(moving, frozen).sum().backward()
    assert moving.grad is not None


def test_autocast_computes_in_half_precision_and_returns_whole_gradients():
    x, weight = torch.randn(1, 2, 6, 6), torch.randn(2, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        filtered = depthwise_conv2d(x, weight)
    assert filtered.dtype == torch.bfloat16
    filtered.float().sum().backward()
    assert weight.grad.dtype == torch.float32
