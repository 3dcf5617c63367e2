"""What is computed once per frame: network features, colours, and the picture at the working size."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.nn.efficientnet_lite import EfficientNetLite, normalise
from rotoscope.nn.looks import LooksSettings, descriptors_of
from rotoscope.ops.color import rgb_to_lab
from rotoscope.ops.sizing import resize_smooth
from rotoscope.ops.window_read import WindowRead
from rotoscope.types import Frame

_FINE = 4
"""Stride of the classifier's grid."""
UNIT_STRIDES = (4, 8, 16)
"""The encoder's maps that are used, by the stride of its layer table; those of 8 and 16 are the key of the memory read."""


@dataclass(frozen=True, slots=True)
class MastLiteConfig:
    """The numbers of the tracker; lengths in cells are of the grid they are used on.

    Attributes:
        short_side: frames are resized so that their shorter side has this many pixels,
        max_enlargement: but never enlarged by more than this,
        max_pixels: and never to more pixels than this.
        read: the memory read, at stride 8.
        recent: ages of the predicted frames that are read.
        looks: what the objects look like, at stride 4, and what that counts.
        stray_share: parts of an object smaller than this share of its largest part are dropped; cells less than two apart are one part.
        edge_radius: of the guided filter, at half the working size.
        edge_smoothness: variance of Lab below which the guided filter sees no edge.
        calibration: knots of `ops.confidence.scored`, whose raw figure is how much the memory read and the looks agree. From 16 synthetic clips of
            held-out images; on 16 others the scores are off by 0.027 in the mean (raw: 0.040). Below 0.4, where hardly any mask was, a line to 0.
    """

    short_side: int = 480
    max_enlargement: float = 2.0
    max_pixels: int = 480 * 1120
    read: WindowRead = field(default_factory=WindowRead)
    recent: tuple[int, ...] = (1, 3)
    looks: LooksSettings = field(default_factory=LooksSettings)
    stray_share: float = 0.1
    edge_radius: int = 6
    edge_smoothness: float = 3e-4
    calibration: tuple[float, ...] = (0.0, 0.11, 0.22, 0.33, 0.444, 0.476, 0.723, 0.83, 0.854, 0.857, 0.978)


@dataclass(frozen=True, slots=True)
class Features:
    """What is computed once per frame: keys at stride 8, descriptors at stride 4 and the picture at the working size."""

    key: Float[Tensor, "c h w"]
    descriptors: Float[Tensor, "d h2 w2"]
    guide: Float[Tensor, "3 h3 w3"]


def working_hw(hw: tuple[int, int], config: MastLiteConfig) -> tuple[int, int]:
    """The size at which frames of a size are worked on: both sides are multiples of 16, at least 32."""
    scale = min(config.short_side / min(hw), config.max_enlargement, (config.max_pixels / (hw[0] * hw[1])) ** 0.5)
    height, width = (max(32, 16 * round(side * scale / 16)) for side in hw)
    return height, width


def extract(encoder: EfficientNetLite, frame: Frame, config: MastLiteConfig) -> Features:
    """The features of a frame."""
    device = next(encoder.parameters()).device
    hw = working_hw(frame.hw, config)
    image = resize_smooth(frame.image.to(device).float(), hw).clamp(0, 255)
    lines = [one[0] for one in unit_maps(encoder, image[None])]
    guide = rgb_to_lab(image / 255) / 100
    descriptors = descriptors_of(lines, resize_smooth(guide, (hw[0] // _FINE, hw[1] // _FINE)))
    return Features(torch.cat(lines[1:]), descriptors, guide)


def unit_maps(encoder: EfficientNetLite, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
    """The encoder's maps of some pictures (RGB in 0..255), each cell's features of unit length, in the order of `UNIT_STRIDES`."""
    maps = encoder(normalise(images).contiguous(memory_format=torch.channels_last))
    return [F.normalize(maps[stride].float(), dim=1) for stride in UNIT_STRIDES]
