import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rotoscope.nn.conv_norm import ConvNorm, FrozenBatchNorm2d
from rotoscope.nn.mobilenet import MOBILENET_V2_GROUPS, MobileNetV2


def _disturb(module: nn.Module) -> None:
    """Statistics and scales other than those of a fresh norm, so that folding has something to do."""
    for part in module.modules():
        if isinstance(part, FrozenBatchNorm2d):
            part.weight.uniform_(0.5, 1.5)
            part.bias.uniform_(-0.2, 0.2)
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)


@pytest.fixture(scope="module")
def encoder() -> MobileNetV2:
    encoder = MobileNetV2().eval()
    _disturb(encoder)
    return encoder


@settings(deadline=None, max_examples=8)
@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_maps_cover_the_image_at_strides_4_8_16_16(encoder: MobileNetV2, height: int, width: int) -> None:
    with torch.inference_mode():
        maps = encoder(torch.randn(1, 3, height, width))
    assert [tuple(part.shape[2:]) for part in maps] == [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 16)]
    assert tuple(part.shape[1] for part in maps) == encoder.channels == (24, 32, 96, 1280)


def test_a_frozen_norm_gives_its_formula() -> None:
    norm = FrozenBatchNorm2d(3, eps=0.1).train()
    _disturb(norm)
    x = torch.randn(2, 3, 4, 5)
    mean, variance, weight, bias = (v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    torch.testing.assert_close(norm(x), (x - mean) / (variance + 0.1).sqrt() * weight + bias)


def test_folding_keeps_the_maps_and_can_be_repeated() -> None:
    encoder = MobileNetV2().eval()
    _disturb(encoder)
    image = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        before = encoder(image)
        encoder.fold()
        after = encoder(image)
        encoder.fold()
        again = encoder(image)
    for first, second, third in zip(before, after, again, strict=True):
        torch.testing.assert_close(second, first, atol=1e-5, rtol=1e-5)
        assert torch.equal(third, second)
    assert not any(isinstance(part, FrozenBatchNorm2d) for part in encoder.modules())


def test_folding_respects_a_bias_the_convolution_has_already() -> None:
    layer = ConvNorm(3, 5, 3, bias=True)
    _disturb(layer)
    x = torch.randn(1, 3, 6, 6)
    before = layer(x)
    layer.fold()
    torch.testing.assert_close(layer(x), before)


def test_training_moves_convolutions_but_no_statistics() -> None:
    encoder = MobileNetV2().train()
    encoder.freeze_early()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    sum(part.square().mean() for part in encoder(torch.randn(2, 3, 33, 33))).backward()
    early = tuple(f"layers.{index}." for index in range(4))
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith(early), name
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())


def test_the_frozen_part_is_as_large_as_the_official_one() -> None:
    with torch.device("meta"):
        encoder = MobileNetV2()
    encoder.freeze_early()
    frozen = sum(parameter.numel() for parameter in encoder.parameters() if not parameter.requires_grad)
    assert frozen / 1e6 == pytest.approx(5.734 - 5.720, abs=1e-3)  # the sheet's parameters less its trainable ones


def test_channels_last_gives_the_same_maps_in_channels_last(encoder: MobileNetV2) -> None:
    image = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        expected = encoder(image)
        found = MobileNetV2().eval()
        found.load_state_dict(encoder.state_dict())
        maps = found.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    for mine, other in zip(maps, expected, strict=True):
        assert mine.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_no_stride_lies_behind_stride_16() -> None:
    strides = [group.stride for group in MOBILENET_V2_GROUPS]
    assert 2 * torch.tensor(strides).prod() == 16
