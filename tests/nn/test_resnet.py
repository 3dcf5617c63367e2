import copy

import pytest
import torch
from torch import nn

from rotoscope.nn.resnet import BasicBlock, fold_norms

PAIRS = {"conv1": "norm1", "conv2": "norm2", "0": "1"}


def lived_in(module: nn.Module) -> nn.Module:
    """The module with statistics and factors that are not those of a fresh one."""
    for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight, mean=1, std=0.2)
        nn.init.normal_(norm.bias, std=0.2)
    return module.eval()


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(8, 8, 1), (8, 16, 1), (8, 16, 2), (8, 8, 2)])
def test_a_block_has_the_shape_asked_for_and_no_negative_output(inputs: int, outputs: int, stride: int) -> None:
    block = lived_in(BasicBlock(inputs, outputs, stride=stride))
    result = block(torch.randn(2, inputs, 9, 11))
    assert result.shape == (2, outputs, -(-9 // stride), -(-11 // stride))
    assert float(result.detach().min()) >= 0
    assert bool(list(block.shortcut)) == (stride != 1 or inputs != outputs)


def test_a_block_whose_branch_gives_nothing_passes_its_input_on() -> None:
    block = BasicBlock(4, 4).eval()
    nn.init.zeros_(block.norm2.weight)
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(block(x), x)


def test_folding_keeps_the_output_and_leaves_no_normalisation() -> None:
    network = lived_in(
        nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), BasicBlock(8, 16, stride=2), BasicBlock(16, 16))
    )
    folded = copy.deepcopy(network)
    fold_norms(folded, PAIRS)
    x = torch.randn(1, 3, 20, 21)
    with torch.no_grad():
        assert torch.allclose(folded(x), network(x), atol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())


def test_folding_changes_only_what_is_paired() -> None:
    network = lived_in(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))
    fold_norms(network, PAIRS)
    assert isinstance(network[2], nn.BatchNorm2d)


def test_folding_in_training_mode_is_refused() -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        fold_norms(BasicBlock(4, 4).train(), PAIRS)
