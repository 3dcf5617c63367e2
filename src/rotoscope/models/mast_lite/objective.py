"""What the features may learn from clips without masks: colours that they cannot see, copied from an earlier frame by the tracker's own read.

The objective is MAST's (Lai, Lu and Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020, section 3): Lab, one of a and b hidden,
the hidden one rebuilt. Three things differ. The picture without the channel goes back to RGB, which the ImageNet weights know, and what is left of
it is not scaled by 3/2. Values are means over the cells, as this tracker's masks are, and not every fourth pixel. And features are held near those
they began with (`anchor_distance`), since a match of colours alone may forget what things are. The official code has no counterpart of this.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from rotoscope.models.mast_lite.features import unit_maps
from rotoscope.nn.efficientnet_lite import EfficientNetLite
from rotoscope.ops.color import lab_to_rgb, rgb_to_lab
from rotoscope.ops.window_read import WindowRead

KEY_STRIDE = 8
"""Of the memory read's grid."""
COLOUR_RANGE = 127.0
"""Of a and b, which are divided by it in the loss, as in MAST (official code)."""


def lab_of(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Lab of pictures by the formula: L in 0..100, a and b about -127..127. Never computed in less than 32 bits, whose steps would be colours."""
    with torch.autocast(images.device.type, enabled=False):
        return torch.stack([rgb_to_lab(image.float() / 255) for image in images])


def without_channel(lab: Float[Tensor, "b 3 h w"], channel: int) -> Float[Tensor, "b 3 h w"]:
    """The pictures in RGB, 0..255, with one channel of Lab set to 0; they are a function of the other two channels alone.

    Colours that sRGB cannot show are clipped, which depends on the hidden channel no more than they do.
    """
    kept = lab.clone()
    kept[:, channel] = 0
    with torch.autocast(lab.device.type, enabled=False):
        return torch.stack([lab_to_rgb(one) * 255 for one in kept])


def coarse(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h8 w8"]:
    """The means over the cells of the memory read."""
    return F.avg_pool2d(maps, KEY_STRIDE)


def reconstruct(
    encoder: EfficientNetLite, reference: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], *, channel: int, read: WindowRead
) -> Float[Tensor, "b 1 h8 w8"]:
    """A channel of the target's Lab on the grid of the memory read, copied from that of the reference by features that did not see it.

    Args:
        encoder: of the tracker.
        reference: Lab of the earlier frames; sides are multiples of 16.
        target: Lab of the later ones.
        channel: the one that is hidden, 1 for a or 2 for b.
        read: of the tracker.
    """
    maps = unit_maps(encoder, without_channel(torch.cat((reference, target)), channel))
    keys, queries = torch.cat(maps[1:], dim=1).chunk(2)
    values = coarse(reference[:, channel : channel + 1])
    # In channel 0 the read looks for the background, whose tiles it skips. Here nothing is background.
    held = torch.cat((torch.zeros_like(values), values), dim=1)
    with torch.autocast(queries.device.type, enabled=False):
        return torch.stack([read(query, [key], [value])[1:] for query, key, value in zip(queries, keys, held, strict=True)])


def anchor_distance(maps: Sequence[Float[Tensor, "b _ _ _"]], start: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, ""]:
    """How far `unit_maps` have moved: the mean squared distance of a cell's features, 2 less twice their cosine; all strides count the same."""
    return torch.stack([(one - other).square().sum(1).mean() for one, other in zip(maps, start, strict=True)]).mean()
