"""The network of `s2m-lite`: EfficientNet-Lite0, which what was said enters after its first convolution, and a light DeepLabV3+ head."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import ConvNorm, Separable, fold_frozen_norms
from rotoscope.nn.efficientnet_lite import LITE0_STAGES, STEM_CHANNELS, EfficientNetLite, normalise

_STAGES = LITE0_STAGES[:5]
"""As far as the 112-channel stage, like the ImageNet weights that ship; on views of 16n + 1 pixels its cells lie on every 16th pixel."""
_LOW, _HIGH = 24, 112  # channels of the encoder at strides 4 and 16
_SAID = 32  # channels of what was said
_BRANCH, _JOINED, _WIDTH = 128, 192, 96
_DILATIONS = (2, 4, 8)  # of a grid of about 24 cells


class LightPyramid(nn.Module):
    """ASPP with separable windows."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.plain = ConvNorm(inputs, _BRANCH, 1, frozen=False)
        self.dilated = nn.ModuleList(Separable(inputs, _BRANCH, dilation=dilation) for dilation in _DILATIONS)
        self.pooled = nn.Conv2d(inputs, _BRANCH, 1)  # a mean over one cell has no statistics to speak of
        self.join = ConvNorm((2 + len(_DILATIONS)) * _BRANCH, _JOINED, 1, frozen=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The joined map."""
        maps = [F.relu(self.plain(x)), *(branch(x) for branch in self.dilated)]
        mean = F.relu(self.pooled(x.mean(dim=(2, 3), keepdim=True)))
        return F.relu(self.join(torch.cat((*maps, mean.expand(-1, -1, *x.shape[2:])), dim=1)))


class S2mLiteNetwork(nn.Module):
    """The whole of it. The encoder has its normalisations inside its convolutions from the start, like the ImageNet weights that ship."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EfficientNetLite(_STAGES, folded=True)
        self.said_half = ConvNorm(4, _SAID, 3, stride=2, frozen=False)
        self.enter = nn.Conv2d(_SAID, STEM_CHANNELS, 1)
        self.said_quarter = ConvNorm(_SAID, _SAID, 3, stride=2, frozen=False)
        self.pyramid = LightPyramid(_HIGH + 2 * _SAID)
        self.shrink = ConvNorm(_JOINED, _WIDTH, 1, frozen=False)
        self.low_level = ConvNorm(_LOW, _SAID, 1, frozen=False)
        self.merge = nn.Sequential(Separable(_WIDTH + 2 * _SAID, _WIDTH), Separable(_WIDTH, _WIDTH))
        self.classify = nn.Conv2d(_WIDTH, 1, 1)
        nn.init.zeros_(self.enter.weight)  # so that the encoder starts as it was trained
        nn.init.zeros_(self.enter.bias)  # type: ignore[arg-type] # it has one

    def forward(self, image: Float[Tensor, "n 3 h w"], said: Float[Tensor, "n 4 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Logits at the size of the input, whose sides are 16n + 1.

        Args:
            image: RGB in 0..255.
            said: maps of 0 and 1: the previous mask, what is on the object, what is off it, the box around it.
        """
        half = F.relu(self.said_half(said))
        quarter = F.relu(self.said_quarter(half))
        features = self.encoder(normalise(image), self.enter(half))
        pooled = [pool(quarter, 5, stride=4, padding=2) for pool in (F.max_pool2d, F.avg_pool2d)]
        high = self.shrink(self.pyramid(torch.cat((features[16], *pooled), dim=1)))
        low = F.relu(self.low_level(features[4]))
        merged = self.merge(torch.cat((_spread(F.relu(high), low.shape[2:]), low, quarter), dim=1))
        return _spread(self.classify(merged), image.shape[2:])

    def fold(self) -> None:
        """Put the other normalisations into their convolutions too, in place, for inference."""
        fold_frozen_norms(self)


def _spread(maps: Float[Tensor, "b c h w"], hw: Sequence[int]) -> Float[Tensor, "b c h2 w2"]:
    """The maps at another size; corner cells lie on corner pixels."""
    return F.interpolate(maps, size=tuple(hw), mode="bilinear", align_corners=True)
