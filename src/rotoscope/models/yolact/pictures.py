"""Frames as YOLACT's networks take them."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.models.yolact.config import YolactConfig
from rotoscope.ops.sizing import resize_linear
from rotoscope.types import Frame


def network_size(hw: tuple[int, int], config: YolactConfig) -> tuple[int, int]:
    """The height and width at which the network sees a frame.

    A square, whatever the frame (official rule); or with `keep_aspect_ratio` the sides of as many pixels and the frame's proportions, cut to whole
    numbers (official option).
    """
    side = config.image_size
    if not config.keep_aspect_ratio:
        return side, side
    ratio = math.sqrt(hw[1] / hw[0])
    return max(1, int(side / ratio)), max(1, int(side * ratio))


def prepared(frames: Sequence[Frame], size: tuple[int, int], config: YolactConfig, device: torch.device) -> Float[Tensor, "n 3 h w"]:
    """Frames of any sizes as one batch: linear between pixel centres without smoothing, less the mean, over the deviation; RGB."""
    images = torch.stack([resize_linear(frame.image.to(device).float(), size) for frame in frames])
    mean, std = (images.new_tensor(values)[:, None, None] for values in (config.pixel_mean, config.pixel_std))
    return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
