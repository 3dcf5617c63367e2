"""The network of RGMP. It keeps no state between calls."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.rgmp.config import RgmpConfig
from rotoscope.models.rgmp.decoder import RgmpDecoder
from rotoscope.models.rgmp.encoder import LiteMaskEncoder, ResNetMaskEncoder

MaskEncoder = ResNetMaskEncoder | LiteMaskEncoder

_ENCODERS: Mapping[str, Callable[[], MaskEncoder]] = {"resnet-50": ResNetMaskEncoder, "efficientnet-lite0": LiteMaskEncoder}

STRIDE = 32
"""Frames must have a multiple of this many rows and columns."""


class RgmpNetwork(nn.Module):
    """One object at a time: what it looked like with its mask, and where it was a frame ago, give where it is.

    Args:
        encoder: of a picture with a mask.
        width: of the decoder.
        align_corners: see `RgmpConfig`.
    """

    def __init__(self, encoder: MaskEncoder, *, width: int = 256, align_corners: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = RgmpDecoder(encoder.channels, width, align_corners=align_corners)

    def relate(self, image: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n d h32 w32"]:
        """What is kept of a reference frame: its share of the global convolution.

        Args:
            image: RGB in 0..1; one may serve all masks.
            masks: of one object each, in 0..1.
        """
        related: Tensor = self.decoder.relation.relate(self.encoder(image, masks)[3])
        return related

    def forward(
        self, image: Float[Tensor, "b 3 h w"], previous: Float[Tensor, "n h w"], related: Float[Tensor, "n d h32 w32"]
    ) -> Float[Tensor, "n 2 h w"]:
        """Logits of background and object at the size of the image.

        Args:
            image: the current frame; one may serve all objects.
            previous: the probabilities of the objects in the frame before.
            related: what `relate` gave for their references.
        """
        return self.enlarged(self.decoder(self.encoder(image, previous), related), (previous.shape[1], previous.shape[2]))

    def all_logits(
        self, image: Float[Tensor, "b 3 h w"], previous: Float[Tensor, "n h w"], related: Float[Tensor, "n d h32 w32"]
    ) -> tuple[Float[Tensor, "n 2 h w"], ...]:
        """The same, after the logits of the side heads at strides 32, 16 and 8, all enlarged; for training."""
        heads = self.decoder.heads(self.decoder.refine(self.encoder(image, previous), related))
        return tuple(self.enlarged(logits, (previous.shape[1], previous.shape[2])) for logits in heads)

    def probabilities(
        self, image: Float[Tensor, "b 3 h w"], previous: Float[Tensor, "n h w"], related: Float[Tensor, "n d h32 w32"]
    ) -> Float[Tensor, "n h w"]:
        """The objects' channel of the softmax over `forward`; the arguments are the same."""
        return object_probability(self(image, previous, related))

    def enlarged(self, logits: Float[Tensor, "n 2 _ _"], hw: tuple[int, int]) -> Float[Tensor, "n 2 h w"]:
        """Logits at the size of the frame; the softmax comes afterwards (official code)."""
        return F.interpolate(logits, size=hw, mode="bilinear", align_corners=self.decoder.align_corners)


def object_probability(logits: Float[Tensor, "n 2 h w"]) -> Float[Tensor, "n h w"]:
    """The object's channel of the softmax over background and object."""
    return (logits[:, 1] - logits[:, 0]).sigmoid()


def network_of(config: RgmpConfig) -> RgmpNetwork:
    """The network of a variant, with random weights."""
    return RgmpNetwork(_ENCODERS[config.encoder](), width=config.width, align_corners=config.align_corners)
