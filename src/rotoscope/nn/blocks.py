"""Small blocks: stochastic depth, and depth-wise convolutions on sequences of cells."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.ops.depthwise import depthwise_conv2d


class DropPath(nn.Module):
    """Stochastic depth: while training, whole samples are set to zero with a probability and the others scaled up; nothing in evaluation.

    (Huang et al., Deep networks with stochastic depth, 2016. It drops the branch for a sample, not single neurons.)

    Args:
        rate: the probability, in 0..1 (below 1).
        batch_dim: which axis counts the samples.
    """

    def __init__(self, rate: float, *, batch_dim: int = 0) -> None:
        super().__init__()
        self.rate = rate
        self.batch_dim = batch_dim

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The input, or zero, for each sample."""
        if self.rate == 0 or not self.training:
            return x
        shape = [1] * x.ndim
        shape[self.batch_dim] = x.shape[self.batch_dim]
        kept = (1 - self.rate + torch.rand(shape, dtype=x.dtype, device=x.device)).floor()
        return x / (1 - self.rate) * kept


class DepthwiseConv(nn.Module):
    """A 5 x 5 convolution of each channel by itself, without bias, over cells that are stored row by row.

    Args:
        channels: of the sequence.
        dropout: while training, the probability with which a whole channel is zeroed afterwards.
    """

    def __init__(self, channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, cells: Float[Tensor, "n l c"], hw: tuple[int, int]) -> Float[Tensor, "n l c"]:
        """The convolved sequence; `hw` is the grid that it covers."""
        return map_to_cells(self.dropout(depthwise_conv2d(cells_to_map(cells, hw), self.conv.weight)))


def stop_dropping(module: nn.Module) -> None:
    """Let nothing in a module drop channels or branches while training."""
    for part in module.modules():
        if isinstance(part, DropPath):
            part.rate = 0.0
        elif isinstance(part, nn.Dropout | nn.Dropout2d):
            part.p = 0.0


class NormedDepthwise(nn.Module):
    """Group normalisation, GELU and a depth-wise convolution: the non-linearity between the two layers of LSTT's feed-forward part."""

    def __init__(self, channels: int, *, groups: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.depthwise = DepthwiseConv(channels)

    def forward(self, cells: Float[Tensor, "n l c"], hw: tuple[int, int]) -> Float[Tensor, "n l c"]:
        """The sequence after the three steps; statistics are over the cells and the channels of a group."""
        return map_to_cells(self.depthwise.conv(F.gelu(self.norm(cells_to_map(cells, hw)))))


class CellGroupNorm(nn.GroupNorm):
    """Group normalisation of sequences that hold the channels last."""

    def forward(self, cells: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
        """The normalised sequence; statistics are over the cells and the channels of a group."""
        return super().forward(cells.transpose(1, 2)).transpose(1, 2)


def cells_to_map(cells: Float[Tensor, "n l c"], hw: tuple[int, int]) -> Float[Tensor, "n c h w"]:
    """A sequence of cells as a map: a view, with the channels last in memory."""
    return cells.reshape(cells.shape[0], *hw, cells.shape[2]).permute(0, 3, 1, 2)


def map_to_cells(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n l c"]:
    """A map as a sequence of its cells, row by row: a view where the channels are last in memory."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)
