"""DarkNet-53 as an encoder of pictures.

Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018, table 1, without the classifier; residuals are added after the activation.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import ConvNorm

DARKNET53_BLOCKS = (1, 2, 8, 8, 4)  # table 1
_STEM = 32  # channels, table 1; each stage doubles them
_SLOPE = 0.1  # of the leaky ReLU below zero (the darknet code)


class DarkConv(ConvNorm):
    """Convolution, normalisation and leaky ReLU."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The rectified map, ceil(h / stride) cells high."""
        return F.leaky_relu(super().forward(x), _SLOPE, inplace=True)


class DarkBlock(nn.Module):
    """Halve the channels, filter 3x3 back to all of them, and add the input after the activation."""

    def __init__(self, channels: int, *, frozen: bool) -> None:
        super().__init__()
        self.reduce = DarkConv(channels, channels // 2, 1, frozen=frozen)
        self.spatial = DarkConv(channels // 2, channels, 3, frozen=frozen)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The block's output."""
        filtered: Tensor = self.spatial(self.reduce(x))
        return filtered + x


class DarkNet(nn.Module):
    """Maps of a picture at strides 2, 4, 8, 16 and 32, with 64 to 1024 channels.

    Args:
        blocks: how many in each stage.
        frozen: the normalisations never change; see `conv_norm.ConvNorm`.
    """

    def __init__(self, blocks: tuple[int, ...] = DARKNET53_BLOCKS, *, frozen: bool = True) -> None:
        super().__init__()
        self.stem = DarkConv(3, _STEM, 3, frozen=frozen)
        self.channels = tuple(_STEM * 2 ** (1 + stage) for stage in range(len(blocks)))
        self.stages = nn.ModuleList(
            nn.Sequential(DarkConv(width // 2, width, 3, stride=2, frozen=frozen), *(DarkBlock(width, frozen=frozen) for _ in range(number)))
            for width, number in zip(self.channels, blocks, strict=True)
        )

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The stages' maps; each is ceil(h / 2) cells high of the one before."""
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)
