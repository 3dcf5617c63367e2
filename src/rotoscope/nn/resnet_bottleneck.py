"""ResNet-50 and ResNet-101 as encoders of frames: bottleneck blocks, cut at stride 16 or dilated from there.

He et al., "Deep Residual Learning", CVPR 2016, table 1, with the stride in the 3x3 convolution as in the torchvision weights. AOT
(Yang et al., NeurIPS 2021; aot-benchmark, commit 601c138) drops the last group, so that the stride-16 map serves twice; MiVOS (Cheng et al.,
CVPR 2021) drops it too and reads masks beside the colours. DeepLabV3+ (Chen et al., ECCV 2018) keeps it at stride 16, with dilation 2.
"""

import re
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import ConvNorm, fold_frozen_norms, freeze_parameters

RESNET50_BLOCKS = (3, 4, 6)  # table 1, without conv5
RESNET101_BLOCKS = (3, 4, 23)  # the same
EXPANSION = 4  # outputs of a block over its inner width

RESNET50_DILATED_BLOCKS = (3, 4, 6, 3)  # with conv5, whose stride becomes a dilation


def resnet_rules(official: str, ours: str, *, first_stage: str = "layer1") -> tuple[tuple[str, str], ...]:
    """Official keys under one prefix to ours under another, for `models.checkpoints.rename`; both end where `conv1` begins.

    Args:
        official: prefix of the official keys.
        ours: prefix of ours.
        first_stage: what the official code calls the stage at stride 4.
    """
    prefix = re.escape(official)
    rules = [
        (rf"{prefix}conv1\.(weight|bias)", rf"{ours}stem.conv.\1"),
        (rf"{prefix}bn1\.(\w+)", rf"{ours}stem.norm.\1"),
    ]
    for stage, name in enumerate((first_stage, "layer2", "layer3", "layer4"), start=1):
        block = rf"{prefix}{name}\.(\d+)\."
        for number, part in ((1, "reduce"), (2, "spatial"), (3, "expand")):
            rules.append((rf"{block}conv{number}\.(weight|bias)", rf"{ours}stage{stage}.\1.{part}.conv.\2"))
            rules.append((rf"{block}bn{number}\.(\w+)", rf"{ours}stage{stage}.\1.{part}.norm.\2"))
        rules.append((rf"{block}downsample\.0\.(weight|bias)", rf"{ours}stage{stage}.\1.shortcut.conv.\2"))
        rules.append((rf"{block}downsample\.1\.(\w+)", rf"{ours}stage{stage}.\1.shortcut.norm.\2"))
    return tuple(rules)


RESNET_RULES = resnet_rules("encoder.", "encoder.")
"""Those of AOT's encoders; nothing is left over."""


class ConvStyle(NamedTuple):
    """How the convolutions of an encoder are made.

    Attributes:
        bias: whether they have one of their own, in front of the normalisation.
        frozen: whether the normalisations never change; see `conv_norm.ConvNorm`.
    """

    bias: bool = False
    frozen: bool = True


PLAIN = ConvStyle()


class Bottleneck(nn.Module):
    """Narrow, filter 3x3, widen fourfold; the input, brought to the same shape where needed, is added before the last activation.

    Args:
        inputs: channels that come in.
        width: channels of the 3x3 convolution.
        stride: of the 3x3 convolution and of the shortcut.
        dilation: of the 3x3 convolution.
        style: of all its convolutions.
    """

    def __init__(self, inputs: int, width: int, *, stride: int = 1, dilation: int = 1, style: ConvStyle = PLAIN) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.reduce = ConvNorm(inputs, width, 1, **style._asdict())
        self.spatial = ConvNorm(width, width, 3, stride=stride, dilation=dilation, **style._asdict())
        self.expand = ConvNorm(width, outputs, 1, **style._asdict())
        self.shortcut = ConvNorm(inputs, outputs, 1, stride=stride, **style._asdict()) if stride > 1 or inputs != outputs else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The block's output, none of it negative."""
        inner = F.relu(self.reduce(x), inplace=True)
        inner = F.relu(self.spatial(inner), inplace=True)
        added = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.expand(inner).add_(added), inplace=True)  # in place: a large map costs more to allocate than to add


class ResNet(nn.Module):
    """Four maps of an image: strides 4, 8, 16 and 16, with 256, 512, 1024 and 1024 channels; the last is the third again.

    With four numbers of blocks the last map is that of a fourth stage, 2048 channels at stride 16, dilated by 2 (its first block by 1).

    Args:
        blocks: how many in each stage: `RESNET50_BLOCKS`, `RESNET101_BLOCKS` or `RESNET50_DILATED_BLOCKS`.
        width: inner channels of the first stage; each further stage doubles it.
        inputs: channels of the image.
        style: of the convolutions.
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = RESNET50_BLOCKS,
        *,
        width: int = 64,
        inputs: int = 3,
        style: ConvStyle = PLAIN,
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(inputs, width, 7, stride=2, **style._asdict())
        outputs = [width * EXPANSION * 2**stage for stage in range(4)]
        self.stage1 = bottleneck_stage(blocks[0], width, width, style=style)
        self.stage2 = bottleneck_stage(blocks[1], outputs[0], 2 * width, stride=2, style=style)
        self.stage3 = bottleneck_stage(blocks[2], outputs[1], 4 * width, stride=2, style=style)
        self.stage4 = bottleneck_stage(blocks[3], outputs[2], 8 * width, dilation=2, style=style) if len(blocks) > 3 else nn.Identity()
        self.channels = (*outputs[:3], outputs[len(blocks) - 1])

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps at ceil(h / 4), ceil(h / 8), ceil(h / 16) and ceil(h / 16) rows, from a normalised image."""
        x = F.relu(self.stem(image), inplace=True)
        quarter = self.stage1(F.max_pool2d(x, 3, 2, 1))
        eighth = self.stage2(quarter)
        sixteenth = self.stage3(eighth)
        return quarter, eighth, sixteenth, self.stage4(sixteenth)

    def fold(self) -> None:
        """Put the normalisations into the convolutions, in place; see `conv_norm.fold_frozen_norms`."""
        fold_frozen_norms(self)

    def freeze_early(self) -> None:
        """Take the stem and the stride-4 stage out of training, as the official training does (`freeze_at` 2)."""
        freeze_parameters([self.stem, self.stage1])


def bottleneck_stage(blocks: int, inputs: int, width: int, *, stride: int = 1, dilation: int = 1, style: ConvStyle = PLAIN) -> nn.Sequential:
    """So many bottlenecks of one width, the first with the stride and undilated."""
    first = Bottleneck(inputs, width, stride=stride, style=style)
    return nn.Sequential(first, *(Bottleneck(width * EXPANSION, width, dilation=dilation, style=style) for _ in range(blocks - 1)))
