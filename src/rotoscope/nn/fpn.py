"""A feature pyramid that is read from the coarse end: AOT's decoder."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class NormedConv(nn.Module):
    """Convolution, group normalisation (8 groups) and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(8, out_channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """The normalised, rectified map, of the same size."""
        return F.relu(self.norm(self.conv(x)), inplace=not self.training)


class PyramidDecoder(nn.Module):
    """From embeddings at stride 16 to logits at stride 4, adding the encoder's maps on the way (AOT, appendix: the FPN decoder).

    Unlike the first FPN (Lin et al., 2017) it has one output, adds before it convolves, and normalises by groups.

    Args:
        in_channels: of the embeddings.
        out_channels: of the logits.
        shortcuts: channels of the encoder's maps at strides 4, 8 and 16.
        width: channels at stride 16; half of it after stride 8.
        align_corners: how maps are enlarged; True puts the centres of the corner cells on the centres of the corner pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, shortcuts: Sequence[int], *, width: int = 256, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.enter = NormedConv(in_channels, width, 1)
        self.adapter_16 = nn.Conv2d(shortcuts[2], width, 1)
        self.conv_16 = NormedConv(width, width, 3)
        self.adapter_8 = nn.Conv2d(shortcuts[1], width, 1)
        self.conv_8 = NormedConv(width, width // 2, 3)
        self.adapter_4 = nn.Conv2d(shortcuts[0], width // 2, 1)
        self.conv_4 = NormedConv(width // 2, width // 2, 3)
        self.leave = nn.Conv2d(width // 2, out_channels, 1)

    def adapt(self, shortcuts: Sequence[Float[Tensor, "..."]]) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's maps at strides 4, 8 and 16 as they are added: they depend on the picture alone, so groups of objects share them."""
        return self.adapter_4(shortcuts[0]), self.adapter_8(shortcuts[1]), self.adapter_16(shortcuts[2])

    def forward(self, x: Float[Tensor, "n c h w"], adapted: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "n d h4 w4"]:
        """Logits at stride 4, from embeddings at stride 16 and what `adapt` gave."""
        x = self.conv_16(self.enter(x) + adapted[2])
        x = self.conv_8(self._enlarged(x, adapted[1]) + adapted[1])
        x = self.conv_4(self._enlarged(x, adapted[0]) + adapted[0])
        logits: Tensor = self.leave(x)
        return logits

    def _enlarged(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=self.align_corners)
