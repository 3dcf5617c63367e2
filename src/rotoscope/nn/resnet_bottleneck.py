"""ResNet-50 and ResNet-101 as image encoders of AOT and DeAOT: bottleneck blocks, frozen batch normalisation, cut at stride 16.

He et al., "Deep Residual Learning", CVPR 2016, table 1, with the stride in the 3x3 convolution as in the torchvision weights. AOT
(Yang et al., NeurIPS 2021; aot-benchmark, commit 601c138) drops the last group, so that the stride-16 map serves twice.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import ConvNorm, fold_frozen_norms, freeze_parameters

RESNET50_BLOCKS = (3, 4, 6)  # table 1, without conv5
RESNET101_BLOCKS = (3, 4, 23)  # the same
EXPANSION = 4  # outputs of a block over its inner width

RESNET_RULES = (
    (r"encoder\.conv1\.weight", r"encoder.stem.conv.weight"),
    (r"encoder\.bn1\.(\w+)", r"encoder.stem.norm.\1"),
    (r"encoder\.layer(\d)\.(\d+)\.conv1\.weight", r"encoder.stage\1.\2.reduce.conv.weight"),
    (r"encoder\.layer(\d)\.(\d+)\.bn1\.(\w+)", r"encoder.stage\1.\2.reduce.norm.\3"),
    (r"encoder\.layer(\d)\.(\d+)\.conv2\.weight", r"encoder.stage\1.\2.spatial.conv.weight"),
    (r"encoder\.layer(\d)\.(\d+)\.bn2\.(\w+)", r"encoder.stage\1.\2.spatial.norm.\3"),
    (r"encoder\.layer(\d)\.(\d+)\.conv3\.weight", r"encoder.stage\1.\2.expand.conv.weight"),
    (r"encoder\.layer(\d)\.(\d+)\.bn3\.(\w+)", r"encoder.stage\1.\2.expand.norm.\3"),
    (r"encoder\.layer(\d)\.(\d+)\.downsample\.0\.weight", r"encoder.stage\1.\2.shortcut.conv.weight"),
    (r"encoder\.layer(\d)\.(\d+)\.downsample\.1\.(\w+)", r"encoder.stage\1.\2.shortcut.norm.\3"),
)
"""Official keys under `encoder.` to ours under `encoder.`, for `models.checkpoints.rename`; nothing is left over."""


class Bottleneck(nn.Module):
    """Narrow, filter 3x3, widen fourfold; the input, brought to the same shape where needed, is added before the last activation.

    Args:
        inputs: channels that come in.
        width: channels of the 3x3 convolution.
        stride: of the 3x3 convolution and of the shortcut.
    """

    def __init__(self, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.reduce = ConvNorm(inputs, width, 1)
        self.spatial = ConvNorm(width, width, 3, stride=stride)
        self.expand = ConvNorm(width, outputs, 1)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride=stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The block's output, none of it negative."""
        inner = F.relu(self.reduce(x), inplace=True)
        inner = F.relu(self.spatial(inner), inplace=True)
        added = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.expand(inner).add_(added), inplace=True)  # in place: a large map costs more to allocate than to add


class ResNet(nn.Module):
    """Four maps of an image: strides 4, 8, 16 and 16, with 256, 512, 1024 and 1024 channels; the last is the third again.

    Args:
        blocks: how many in each of the three stages; `RESNET50_BLOCKS` or `RESNET101_BLOCKS`.
        width: inner channels of the first stage; each further stage doubles it.
    """

    def __init__(self, blocks: tuple[int, int, int] = RESNET50_BLOCKS, *, width: int = 64) -> None:
        super().__init__()
        self.stem = ConvNorm(3, width, 7, stride=2)
        outputs = [width * EXPANSION * 2**stage for stage in range(3)]
        self.stage1 = bottleneck_stage(blocks[0], width, width, stride=1)
        self.stage2 = bottleneck_stage(blocks[1], outputs[0], 2 * width, stride=2)
        self.stage3 = bottleneck_stage(blocks[2], outputs[1], 4 * width, stride=2)
        self.channels = (*outputs, outputs[2])

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps at ceil(h / 4), ceil(h / 8), ceil(h / 16) and ceil(h / 16) rows, from a normalised image."""
        x = F.relu(self.stem(image), inplace=True)
        quarter = self.stage1(F.max_pool2d(x, 3, 2, 1))
        eighth = self.stage2(quarter)
        sixteenth = self.stage3(eighth)
        return quarter, eighth, sixteenth, sixteenth

    def fold(self) -> None:
        """Put the normalisations into the convolutions, in place; see `conv_norm.fold_frozen_norms`."""
        fold_frozen_norms(self)

    def freeze_early(self) -> None:
        """Take the stem and the stride-4 stage out of training, as the official training does (`freeze_at` 2)."""
        freeze_parameters([self.stem, self.stage1])


def bottleneck_stage(blocks: int, inputs: int, width: int, *, stride: int) -> nn.Sequential:
    """So many bottlenecks of one width, the first with the stride."""
    first = Bottleneck(inputs, width, stride=stride)
    return nn.Sequential(first, *(Bottleneck(width * EXPANSION, width) for _ in range(blocks - 1)))
