"""EfficientNet-Lite0 as an encoder of AOT's kind: the four maps, and the normalisation that its weights expect.

It has no batch normalisations: they are inside the convolutions from the start, as in the ImageNet weights that ship, and the folded convolutions are
what is trained.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.conv_norm import freeze_parameters
from rotoscope.nn.efficientnet_lite import LITE0_STAGES, EfficientNetLite
from rotoscope.ops.color import IMAGENET_MEAN, IMAGENET_STD

_STAGES = LITE0_STAGES[:5]
"""As far as the 112-channel stage, like the ImageNet weights that ship; on frames of 16n + 1 pixels its cells lie on every 16th pixel."""


class LiteEncoder(nn.Module):
    """Four maps of an image: strides 4, 8, 16 and 16, with 24, 40, 112 and 112 channels; the last is the third again."""

    channels = (24, 40, 112, 112)
    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = EfficientNetLite(_STAGES, folded=True)
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", std * 255 / 128, persistent=False)  # EfficientNet-Lite wants (RGB - 127) / 128
        self.register_buffer("shift", (mean * 255 - 127) / 128, persistent=False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps at ceil(h / 4), ceil(h / 8), ceil(h / 16) and ceil(h / 16) rows, from an image normalised as ImageNet's."""
        features = self.layers(image * self.scale + self.shift)
        return features[4], features[8], features[16], features[16]

    def fold(self) -> "LiteEncoder":
        """Itself: it is folded already."""
        return self

    def freeze_early(self) -> None:
        """Take the stem and the stride-4 stage out of training, as the official training does with other encoders (`freeze_at` 2)."""
        freeze_parameters([self.layers.stem, *self.layers.blocks[:3]])
