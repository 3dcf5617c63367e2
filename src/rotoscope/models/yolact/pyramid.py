"""The feature pyramid: five maps of one width, from the encoder's three (Lin et al., CVPR 2017; P6 and P7 as in RetinaNet, ICCV 2017)."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import Separable
from rotoscope.nn.winograd import WinogradConv


class Rectified(WinogradConv):
    """A 3x3 convolution and ReLU."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:  # type: ignore[override] # without the options
        """The rectified map."""
        return F.relu(super().forward(x), inplace=True)


def window3x3(inputs: int, outputs: int, *, separable: bool) -> nn.Module:
    """A 3x3 convolution that ends in a ReLU: a full one without normalisation (official), or a separable one with (ours)."""
    return Separable(inputs, outputs) if separable else Rectified(inputs, outputs)


class Pyramid(nn.Module):
    """P3 to P7, at strides 8 to 128.

    Args:
        channels: of C3, C4 and C5.
        width: of all the maps that come out.
        separable: see `YolactConfig`.
    """

    def __init__(self, channels: Sequence[int], width: int, *, separable: bool = False) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(number, width, 1) for number in channels)
        self.smooth = nn.ModuleList(window3x3(width, width, separable=separable) for _ in channels)
        self.coarsen = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(2))

    def forward(self, maps: Sequence[Float[Tensor, "n _ _ _"]]) -> tuple[Float[Tensor, "n d _ _"], ...]:
        """The five maps from C3, C4 and C5; P6 and P7 are not rectified (official code)."""
        joined = self.lateral[-1](maps[-1])
        levels = [joined]
        for lateral, finer in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):
            # to the exact size of the finer map, which is not always twice the coarser one's
            joined = lateral(finer) + F.interpolate(joined, size=finer.shape[2:], mode="bilinear", align_corners=False)
            levels.insert(0, joined)
        levels = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        for coarsen in self.coarsen:
            levels.append(coarsen(levels[-1]))
        return tuple(levels)
