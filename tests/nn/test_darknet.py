"""DarkNet as an encoder: sizes, folding, and which norms learn."""

import pytest
import torch
from torch import nn

from rotoscope.nn.conv_norm import FrozenBatchNorm2d, fold_frozen_norms
from rotoscope.nn.darknet import DarkNet


def small(*, frozen: bool = True) -> DarkNet:
    torch.manual_seed(0)
    network = DarkNet((1, 2), frozen=frozen)
    for part in network.modules():
        if isinstance(part, FrozenBatchNorm2d | nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("hw", [(32, 48), (33, 21), (1, 7)])
def test_each_stage_halves_any_size_upwards(hw) -> None:
    network = small().eval()
    maps = network(torch.randn(2, 3, *hw))
    assert network.channels == (64, 128)
    assert [tuple(value.shape) for value in maps] == [(2, 64 * 2**stage, *(-(-side // 2 ** (1 + stage)) for side in hw)) for stage in range(2)]


def test_folding_keeps_the_function() -> None:
    network = small().eval()
    x = torch.randn(1, 3, 20, 24)
    with torch.no_grad():
        before = network(x)
        fold_frozen_norms(network)
        after = network(x)
    assert not any(isinstance(part, FrozenBatchNorm2d) for part in network.modules())
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(second, first, atol=1e-5, rtol=1e-5)


def test_the_input_is_added_after_the_activation() -> None:
    block = small().stages[0][1].eval()
    with torch.no_grad():
        block.spatial.norm.weight.zero_()
        block.spatial.norm.bias.fill_(-1.0)
        x = torch.randn(1, 64, 4, 4)
        torch.testing.assert_close(block(x), x - 0.1)  # the leaky ReLU of -1


def test_norms_learn_unless_they_are_frozen() -> None:
    assert any("norm" in name for name, _ in small(frozen=False).named_parameters())
    assert not any("norm" in name for name, _ in small().named_parameters())
