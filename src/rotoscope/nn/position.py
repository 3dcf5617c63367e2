"""Positions as features: a sine map without parameters."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sine_position(
    height: int, width: int, channels: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "cells channels"]:
    """A position code for each cell of a grid, row by row: the first half of the channels for y, the second for x.

    Each coordinate runs from 0 at the first cell to 2 pi at the last (0 where there is one cell only); sines and cosines of falling frequency,
    with a temperature of 10000, take turns (as in DETR, Carion et al., 2020, but for the origin, which is 0 in AOT's code).
    """
    half = channels // 2
    exponents = 2 * torch.div(torch.arange(half, dtype=torch.float32, device=device), 2, rounding_mode="floor") / half
    periods = 10000**exponents

    def code(length: int) -> Tensor:
        steps = torch.arange(length, dtype=torch.float32, device=device)
        angles = (steps / (length - 1 + 1e-6) * 2 * math.pi)[:, None] / periods
        return torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=-1).flatten(1)

    rows = code(height)[:, None].expand(height, width, half)
    columns = code(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1).to(dtype)
