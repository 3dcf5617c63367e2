import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rotoscope.nn.conv_norm import FrozenBatchNorm2d
from rotoscope.nn.resnest import ResNeSt, SplitAttention
from rotoscope.nn.resnet_bottleneck import RESNET101_BLOCKS, ConvStyle, ResNet, resnet_rules

TINY = [lambda: ResNet((1, 2, 1), width=8), lambda: ResNeSt((1, 2, 1), width=8)]
Build = Callable[[], nn.Module]


def _disturb(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, FrozenBatchNorm2d):
            part.weight.uniform_(0.5, 1.5)
            part.bias.uniform_(-0.2, 0.2)
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)


@pytest.mark.parametrize("build", TINY)
@settings(deadline=None, max_examples=8)
@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_maps_cover_the_image_at_strides_4_8_16_16(build: Build, height: int, width: int) -> None:
    encoder = build().eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, 3, height, width))
    assert [tuple(part.shape[2:]) for part in maps] == [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 16)]
    assert tuple(part.shape[1] for part in maps) == encoder.channels == (32, 64, 128, 128)
    assert all(bool((part >= 0).all()) for part in maps)


@pytest.mark.parametrize("build", TINY)
def test_folding_keeps_the_maps_and_can_be_repeated(build: Build) -> None:
    encoder = build().eval()
    _disturb(encoder)
    image = torch.randn(2, 3, 35, 50)
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


@pytest.mark.parametrize("build", TINY)
def test_training_moves_the_later_stages_but_no_statistics(build: Build) -> None:
    encoder = build().train()
    encoder.freeze_early()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    sum(part.square().mean() for part in encoder(torch.randn(2, 3, 33, 33))).backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith(("stem.", "stage1.")), name
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())


@pytest.mark.parametrize(
    ("build", "millions"),
    # the sheet's parameters of a model less its trainable ones
    [(ResNet, 14.910 - 14.688), (lambda: ResNet(RESNET101_BLOCKS), 33.850 - 33.627), (ResNeSt, 36.367 - 36.003)],
)
def test_the_frozen_part_is_as_large_as_the_official_one(build: Build, millions: float) -> None:
    with torch.device("meta"):
        encoder = build()
    encoder.freeze_early()
    frozen = sum(parameter.numel() for parameter in encoder.parameters() if not parameter.requires_grad)
    assert frozen / 1e6 == pytest.approx(millions, abs=1.1e-3)


@pytest.mark.parametrize("build", TINY)
def test_channels_last_gives_the_same_maps_in_channels_last(build: Build) -> None:
    encoder = build().eval()
    image = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        expected = encoder(image)
        maps = encoder.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    for mine, other in zip(maps, expected, strict=True):
        assert mine.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("build", TINY)
def test_a_batch_gives_what_its_images_give(build: Build) -> None:
    encoder = build().eval()
    images = torch.randn(2, 3, 33, 48)
    with torch.inference_mode():
        together = encoder(images)
        apart = [encoder(image[None]) for image in images]
    for index, both in enumerate(together):
        torch.testing.assert_close(both, torch.cat([maps[index] for maps in apart]), atol=1e-5, rtol=1e-4)


def test_split_attention_without_preference_is_the_mean_of_its_splits() -> None:
    attention = SplitAttention(4)
    nn.init.zeros_(attention.score.weight)
    nn.init.zeros_(attention.score.bias)
    x = torch.randn(1, 4, 5, 6)
    splits = F.relu(attention.splits(x))
    torch.testing.assert_close(attention(x), (splits[:, :4] + splits[:, 4:]) / 2)


def test_a_fourth_stage_stays_at_stride_16_and_dilates_all_but_its_first_block() -> None:
    encoder = ResNet((1, 1, 1, 3), width=8, inputs=6).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, 6, 35, 50))
    assert tuple(maps[3].shape) == (1, 256, 3, 4)
    assert encoder.channels == (32, 64, 128, 256)
    assert [block.spatial.conv.dilation for block in encoder.stage4] == [(1, 1), (2, 2), (2, 2)]


def test_biases_and_learning_normalisations_are_folded_too() -> None:
    encoder = ResNet((1, 1, 1), width=8, style=ConvStyle(bias=True, frozen=False))
    encoder.train()
    for _ in range(3):
        encoder(torch.randn(4, 3, 64, 64) + 1)  # statistics follow
    encoder.eval()
    assert encoder.stem.norm.weight.requires_grad
    image = torch.randn(1, 3, 35, 50)
    with torch.inference_mode():
        before = encoder(image)
        encoder.fold()
        after = encoder(image)
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(second, first, atol=1e-4, rtol=1e-4)


def test_the_rules_name_every_official_key_once() -> None:
    rules = resnet_rules("backbone.", "encoder.", first_stage="res2")
    apply = lambda key: [re.fullmatch(pattern, key).expand(name) for pattern, name in rules if re.fullmatch(pattern, key)]  # noqa: E731
    assert apply("backbone.res2.0.downsample.1.running_mean") == ["encoder.stage1.0.shortcut.norm.running_mean"]
    assert apply("backbone.layer4.2.conv2.bias") == ["encoder.stage4.2.spatial.conv.bias"]
    assert apply("other.backbone.conv1.weight") == []
