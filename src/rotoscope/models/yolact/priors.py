"""The priors: boxes of a few sizes and shapes at each cell of the pyramid, which the network corrects (SSD, ECCV 2016, section 2.2)."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.models.yolact.config import YolactConfig


def priors_of(config: YolactConfig, level_sizes: Sequence[tuple[int, int]]) -> Float[Tensor, "p 4"]:
    """`(centre x, centre y, width, height)` of all priors, relative to the picture, on the CPU.

    Level by level, row by row, cell by cell; at a cell the scales, and for each of them the ratios. Sides are relative to
    `config.image_size` also where the picture has another size (official code). The same tensor is given again: it must not be written to.

    Args:
        config: see there.
        level_sizes: rows and columns of each level of the pyramid.
    """
    return _priors(config, tuple(level_sizes))


@lru_cache(maxsize=16)
def _priors(config: YolactConfig, level_sizes: tuple[tuple[int, int], ...]) -> Tensor:
    with torch.inference_mode(mode=False), torch.no_grad():  # kept: it may serve a training after an inference
        return torch.cat([_of_level(config, *pair) for pair in zip(config.scales, level_sizes, strict=True)]).float()


def _of_level(config: YolactConfig, scales: tuple[float, ...], hw: tuple[int, int]) -> Tensor:
    shapes = []
    for scale in scales:
        for ratio in config.ratios:
            width = scale * ratio**0.5 / config.image_size
            height = width if config.square_priors else scale / ratio**0.5 / config.image_size
            shapes.append((width, height))
    rows, columns = ((torch.arange(length, dtype=torch.float64) + 0.5) / length for length in hw)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    centres = torch.stack((x, y), dim=-1).view(-1, 1, 2).expand(-1, len(shapes), -1)
    sides = torch.tensor(shapes, dtype=torch.float64).expand(centres.shape[0], -1, -1)
    return torch.cat((centres, sides), dim=-1).flatten(0, 1)
