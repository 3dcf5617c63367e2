"""MobileNetV2 as the image encoder of AOT and DeAOT: inverted residuals at output stride 16.

Layer table: Sandler et al., "MobileNetV2", CVPR 2018, table 2, in the channel counts of the torchvision weights. What AOT (Yang et al.,
NeurIPS 2021; aot-benchmark, commit 601c138) makes of it: frozen batch normalisation, no strides after 16, four maps tapped.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import ConvNorm, fold_frozen_norms, freeze_parameters


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """Blocks of one width; the first may have a stride, and the dilation it is given stands apart from the others'."""

    blocks: int
    channels: int
    stride: int = 1
    expansion: int = 6
    first_dilation: int = 1
    dilation: int = 1


MOBILENET_V2_GROUPS = (  # table 2; the strides of 2 beyond stride 16 became dilations, from the second block of the group on
    BlockGroup(blocks=1, channels=16, expansion=1),
    BlockGroup(blocks=2, channels=24, stride=2),
    BlockGroup(blocks=3, channels=32, stride=2),
    BlockGroup(blocks=4, channels=64, stride=2),
    BlockGroup(blocks=3, channels=96),
    BlockGroup(blocks=3, channels=160, dilation=2),
    BlockGroup(blocks=1, channels=320, first_dilation=2),
)

MOBILENET_V2_RULES = (
    (r"encoder\.features\.(0|18)\.0\.weight", r"encoder.layers.\1.conv.weight"),
    (r"encoder\.features\.(0|18)\.1\.(\w+)", r"encoder.layers.\1.norm.\2"),
    # the first block does not widen, so its parts are counted from its depth-wise convolution
    (r"encoder\.features\.1\.conv\.0\.0\.weight", r"encoder.layers.1.depthwise.conv.weight"),
    (r"encoder\.features\.1\.conv\.0\.1\.(\w+)", r"encoder.layers.1.depthwise.norm.\1"),
    (r"encoder\.features\.1\.conv\.1\.weight", r"encoder.layers.1.project.conv.weight"),
    (r"encoder\.features\.1\.conv\.2\.(\w+)", r"encoder.layers.1.project.norm.\1"),
    (r"encoder\.features\.(\d+)\.conv\.0\.0\.weight", r"encoder.layers.\1.expand.conv.weight"),
    (r"encoder\.features\.(\d+)\.conv\.0\.1\.(\w+)", r"encoder.layers.\1.expand.norm.\2"),
    (r"encoder\.features\.(\d+)\.conv\.1\.0\.weight", r"encoder.layers.\1.depthwise.conv.weight"),
    (r"encoder\.features\.(\d+)\.conv\.1\.1\.(\w+)", r"encoder.layers.\1.depthwise.norm.\2"),
    (r"encoder\.features\.(\d+)\.conv\.2\.weight", r"encoder.layers.\1.project.conv.weight"),
    (r"encoder\.features\.(\d+)\.conv\.3\.(\w+)", r"encoder.layers.\1.project.norm.\2"),
)
"""Official keys under `encoder.` to ours under `encoder.`, for `models.checkpoints.rename`; nothing is left over."""


class InvertedBottleneck(nn.Module):
    """Widen with a 1x1 convolution, filter each channel by itself, narrow again; the input is added where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = ConvNorm(inputs, width, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(width, width, 3, stride=stride, dilation=dilation, groups=width)
        self.project = ConvNorm(width, outputs, 1)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The block's output; no activation at the end."""
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        narrow: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return narrow + x if self.is_residual else narrow


class MobileNetV2(nn.Module):
    """Four maps of an image: strides 4, 8, 16 and 16, with 24, 32, 96 and 1280 channels.

    Args:
        groups: the layer table; the taps follow from it: the last map of strides 4, 8 and (before the dilated groups) 16, and the head.
        head_channels: of the 1x1 convolution that ends the network.
    """

    def __init__(self, groups: tuple[BlockGroup, ...] = MOBILENET_V2_GROUPS, *, head_channels: int = 1280) -> None:
        super().__init__()
        stem_channels = 32  # table 2
        layers: list[nn.Module] = [ConvNorm(3, stem_channels, 3, stride=2)]
        inputs, stride, taps, channels = stem_channels, 2, {}, {}
        for group in groups:
            for position in range(group.blocks):
                step, dilation = (group.stride, group.first_dilation) if position == 0 else (1, group.dilation)
                layers.append(InvertedBottleneck(inputs, group.channels, expansion=group.expansion, stride=step, dilation=dilation))
                inputs, stride = group.channels, stride * step
            if max(group.first_dilation, group.dilation) == 1:
                taps[stride], channels[stride] = len(layers) - 1, inputs
        layers.append(ConvNorm(inputs, head_channels, 1))
        self.layers = nn.ModuleList(layers)
        self._taps = (taps[4], taps[8], taps[16], len(layers) - 1)
        self.channels = (channels[4], channels[8], channels[16], head_channels)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps at ceil(h / 4), ceil(h / 8), ceil(h / 16) and ceil(h / 16) rows, from a normalised image."""
        x: Tensor = image
        features = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if isinstance(layer, ConvNorm):  # stem and head; the blocks between have their activations inside
                x = F.relu6(x, inplace=True)
            if index in self._taps:
                features.append(x)
        return tuple(features)

    def fold(self) -> None:
        """Put the normalisations into the convolutions, in place; see `conv_norm.fold_frozen_norms`."""
        fold_frozen_norms(self)

    def freeze_early(self) -> None:
        """Take all layers up to the stride-4 map out of training, as the official training does (`freeze_at` 2)."""
        freeze_parameters(self.layers[: self._taps[0] + 1])
