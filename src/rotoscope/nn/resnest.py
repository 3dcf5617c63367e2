"""ResNeSt-101 as an image encoder of AOT: bottlenecks whose 3x3 convolution is done twice and mixed by attention over the two.

Zhang et al., "ResNeSt: Split-Attention Networks", 2020: radix 2, cardinality 1, deep stem, average pooling in place of strides.
AOT (Yang et al., NeurIPS 2021; aot-benchmark, commit 601c138) cuts it after the third stage; no trained AOT weights of it were released.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import ConvNorm, fold_frozen_norms, freeze_parameters

RESNEST101_BLOCKS = (3, 4, 23)  # as ResNet-101, without the last group
EXPANSION = 4  # outputs of a block over its inner width
RADIX = 2  # splits of each 3x3 convolution

_BLOCK = r"encoder\.layer(\d)\.(\d+)\."
_OURS = r"encoder.stage\1.\2."
RESNEST_RULES = (
    (r"encoder\.conv1\.0\.weight", r"encoder.stem.0.conv.weight"),
    (r"encoder\.conv1\.1\.(\w+)", r"encoder.stem.0.norm.\1"),
    (r"encoder\.conv1\.3\.weight", r"encoder.stem.1.conv.weight"),
    (r"encoder\.conv1\.4\.(\w+)", r"encoder.stem.1.norm.\1"),
    (r"encoder\.conv1\.6\.weight", r"encoder.stem.2.conv.weight"),
    (r"encoder\.bn1\.(\w+)", r"encoder.stem.2.norm.\1"),
    (_BLOCK + r"conv1\.weight", _OURS + r"reduce.conv.weight"),
    (_BLOCK + r"bn1\.(\w+)", _OURS + r"reduce.norm.\3"),
    (_BLOCK + r"conv2\.conv\.weight", _OURS + r"spatial.splits.conv.weight"),
    (_BLOCK + r"conv2\.bn0\.(\w+)", _OURS + r"spatial.splits.norm.\3"),
    (_BLOCK + r"conv2\.fc1\.(\w+)", _OURS + r"spatial.summary.conv.\3"),
    (_BLOCK + r"conv2\.bn1\.(\w+)", _OURS + r"spatial.summary.norm.\3"),
    (_BLOCK + r"conv2\.fc2\.(\w+)", _OURS + r"spatial.score.\3"),
    (_BLOCK + r"conv3\.weight", _OURS + r"expand.conv.weight"),
    (_BLOCK + r"bn3\.(\w+)", _OURS + r"expand.norm.\3"),
    (_BLOCK + r"downsample\.1\.weight", _OURS + r"shortcut.conv.weight"),
    (_BLOCK + r"downsample\.2\.(\w+)", _OURS + r"shortcut.norm.\3"),
)
"""Official keys under `encoder.` to ours under `encoder.`, for `models.checkpoints.rename`; nothing is left over."""


class SplitAttention(nn.Module):
    """Two 3x3 convolutions of half the channels each, mixed channel by channel with weights read from the whole map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.splits = ConvNorm(width, RADIX * width, 3, groups=RADIX)
        inner = max(width * RADIX // 4, 32)  # official implementation: reduction by 4, at least 32
        self.summary = ConvNorm(width, inner, 1, bias=True)
        self.score = nn.Conv2d(inner, RADIX * width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The mixed map: per channel, weights that sum to 1 over the splits."""
        first, second = F.relu(self.splits(x), inplace=True).chunk(RADIX, dim=1)
        pooled = (first + second).mean((2, 3), keepdim=True)
        scores = self.score(F.relu(self.summary(pooled), inplace=True))
        weights = scores.unflatten(1, (RADIX, -1)).softmax(1)
        mixed: Tensor = first * weights[:, 0] + second * weights[:, 1]
        return mixed


class SplitBottleneck(nn.Module):
    """A bottleneck around `SplitAttention`; strides are average pools, behind the 3x3 convolution and before the shortcut's.

    Args:
        inputs: channels that come in.
        width: channels of the split attention.
        stride: of the block.
        pool: whether a 3x3 average follows the split attention (the first block of every stage but the first).
    """

    def __init__(self, inputs: int, width: int, *, stride: int = 1, pool: bool = False) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.reduce = ConvNorm(inputs, width, 1)
        self.spatial = SplitAttention(width)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if pool else nn.Identity()
        self.expand = ConvNorm(width, outputs, 1)
        self.shortcut = ConvNorm(inputs, outputs, 1) if stride > 1 or inputs != outputs else None
        self.stride = stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The block's output, none of it negative."""
        inner = self.pool(self.spatial(F.relu(self.reduce(x), inplace=True)))
        return F.relu(self.expand(inner) + self._added(x), inplace=True)

    def _added(self, x: Tensor) -> Tensor:
        if self.shortcut is None:
            return x
        if self.stride > 1:
            # cells over the border average the pixels they have, as in the official network
            x = F.avg_pool2d(x, self.stride, self.stride, ceil_mode=True, count_include_pad=False)
        shortcut: Tensor = self.shortcut(x)
        return shortcut


class ResNeSt(nn.Module):
    """Four maps of an image: strides 4, 8, 16 and 16, with 256, 512, 1024 and 1024 channels; the last is the third again.

    Args:
        blocks: how many in each of the three stages.
        width: inner channels of the first stage and of the stem, which ends with twice as many; each further stage doubles it.
    """

    def __init__(self, blocks: tuple[int, int, int] = RESNEST101_BLOCKS, *, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.ModuleList([ConvNorm(3, width, 3, stride=2), ConvNorm(width, width, 3), ConvNorm(width, 2 * width, 3)])
        outputs = [width * EXPANSION * 2**stage for stage in range(3)]
        self.stage1 = _stage(blocks[0], 2 * width, width, stride=1)
        self.stage2 = _stage(blocks[1], outputs[0], 2 * width, stride=2)
        self.stage3 = _stage(blocks[2], outputs[1], 4 * width, stride=2)
        self.channels = (*outputs, outputs[2])

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps at ceil(h / 4), ceil(h / 8), ceil(h / 16) and ceil(h / 16) rows, from a normalised image."""
        x: Tensor = image
        for layer in self.stem:
            x = F.relu(layer(x), inplace=True)
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


def _stage(blocks: int, inputs: int, width: int, *, stride: int) -> nn.Sequential:
    first = SplitBottleneck(inputs, width, stride=stride, pool=stride > 1)
    return nn.Sequential(first, *(SplitBottleneck(width * EXPANSION, width) for _ in range(blocks - 1)))
