"""Attention layers over cells: multi-head and gated, each over all cells or in a window."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.blocks import DepthwiseConv
from rotoscope.ops.windows import OffsetTerms, windowed_attention

_SCORES_AT_ONCE = 2**21
"""Products of queries and keys held at a time on the CPU, so that a block of them stays in the cache."""
_SCORES_AT_ONCE_CUDA = 2**27
"""The same on a GPU, where few large products are faster."""


def attend(
    query: Float[Tensor, "n heads q c"], key: Float[Tensor, "n heads m c"], value: Float[Tensor, "n heads m d"]
) -> Float[Tensor, "n heads q d"]:
    """Softmax attention scaled by the root of c, never holding all products of queries and keys at once."""
    if key.shape[-1] == value.shape[-1]:
        return F.scaled_dot_product_attention(query, key, value)
    at_once = _SCORES_AT_ONCE_CUDA if query.is_cuda else _SCORES_AT_ONCE
    rows = max(at_once // (query.shape[0] * query.shape[1] * key.shape[2]), 64)
    keys = (key * key.shape[-1] ** -0.5).transpose(-1, -2)
    return torch.cat([(part @ keys).softmax(dim=-1) @ value for part in torch.split(query, rows, dim=2)], dim=2)


def split_heads(cells: Float[Tensor, "n l c"], num_heads: int) -> Float[Tensor, "n heads l c2"]:
    """The channels dealt out to heads, in order; a view."""
    return cells.reshape(*cells.shape[:2], num_heads, -1).transpose(1, 2)


def join_heads(heads: Float[Tensor, "n heads l c2"]) -> Float[Tensor, "n l c"]:
    """The channels of all heads side by side."""
    return heads.transpose(1, 2).flatten(2)


class MultiHeadAttention(nn.Module):
    """Multi-head attention whose inputs were projected before, with a linear layer on its output."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projection = nn.Linear(channels, channels)

    def forward(self, query: Float[Tensor, "n l c"], key: Float[Tensor, "n m c"], value: Float[Tensor, "n m c"]) -> Float[Tensor, "n l c"]:
        """What each query cell reads."""
        heads = (split_heads(cells, self.num_heads) for cells in (query, key, value))
        projected: Tensor = self.projection(join_heads(attend(*heads)))
        return projected


class SelfAttention(MultiHeadAttention):
    """Multi-head self-attention: positions are added to queries and keys, not to values."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__(channels, num_heads)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)

    def forward(self, cells: Float[Tensor, "n l c"], positioned: Float[Tensor, "n l c"], value: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
        """What each cell reads; `cells` ask, `positioned` are asked, and `value` answers."""
        return super().forward(self.query(cells), self.key(positioned), self.value(value))


class WindowedAttention(nn.Module):
    """Multi-head attention in a window, with learnt terms for each offset: AOT's short-term attention.

    Args:
        channels: of query, key and value.
        num_heads: that share the channels.
        radius: of the window in cells; its side is twice that and one.
    """

    def __init__(self, channels: int, num_heads: int, *, radius: int = 7) -> None:
        super().__init__()
        self.num_heads = num_heads
        window = (2 * radius + 1) ** 2
        self.relative_key = nn.Conv2d(channels, num_heads * window, 1, groups=num_heads)
        self.relative_value = nn.Parameter(torch.zeros(num_heads, channels // num_heads, window))
        self.projection = nn.Linear(channels, channels)

    def forward(
        self, query: Float[Tensor, "n l c"], key: Float[Tensor, "n l c"], value: Float[Tensor, "n l c"], hw: tuple[int, int]
    ) -> Float[Tensor, "n l c"]:
        """What each cell reads from the window around it."""
        relative_key, relative_bias = _per_head(self.relative_key, self.num_heads)
        offset_terms = OffsetTerms(relative_key, relative_bias, self.relative_value.transpose(1, 2))
        read, _ = windowed_attention(*_on_grid((query, key, value), self.num_heads, hw), offset_terms)
        projected: Tensor = self.projection(join_heads(read.flatten(2, 3)))
        return projected


class GatedAttention(nn.Module):
    """DeAOT's gated propagation (section 4.2): single-head attention, a gate, a depth-wise convolution, a linear layer."""

    def __init__(self, value_channels: int, out_channels: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv(value_channels, dropout=dropout)
        self.projection = nn.Linear(value_channels, out_channels)

    def forward(
        self,
        query: Float[Tensor, "n l c"],
        key: Float[Tensor, "n m c"],
        value: Float[Tensor, "n m d"],
        gate: Float[Tensor, "n l d"],
        hw: tuple[int, int],
    ) -> Float[Tensor, "n l e"]:
        """What each query cell lets through of what it reads; `hw` is the grid of the queries."""
        return self.pass_on(attend(query[:, None], key[:, None], value[:, None])[:, 0], gate, hw)

    def pass_on(self, read: Float[Tensor, "n l d"], gate: Float[Tensor, "n l d"], hw: tuple[int, int]) -> Float[Tensor, "n l e"]:
        """Gate, convolve and project."""
        projected: Tensor = self.projection(self.depthwise(read * gate, hw))
        return projected


class WindowedGatedAttention(GatedAttention):
    """Gated propagation in a window: the attention is that of `WindowedAttention` with one head and no relative values."""

    def __init__(self, key_channels: int, value_channels: int, out_channels: int, *, radius: int = 7, dropout: float = 0.1) -> None:
        super().__init__(value_channels, out_channels, dropout=dropout)
        self.relative_key = nn.Conv2d(key_channels, (2 * radius + 1) ** 2, 1)

    def forward(
        self,
        query: Float[Tensor, "n l c"],
        key: Float[Tensor, "n l c"],
        value: Float[Tensor, "n l d"],
        gate: Float[Tensor, "n l d"],
        hw: tuple[int, int],
    ) -> Float[Tensor, "n l e"]:
        """What each cell lets through of what it reads from the window around it."""
        relative_key, relative_bias = _per_head(self.relative_key, 1)
        read, _ = windowed_attention(*_on_grid((query, key, value), 1, hw), OffsetTerms(relative_key, relative_bias))
        return self.pass_on(read.flatten(2, 3)[:, 0], gate, hw)


def _per_head(conv: nn.Conv2d, num_heads: int) -> tuple[Float[Tensor, "heads window c"], Float[Tensor, "heads window"]]:
    assert conv.bias is not None, "the relative term has a bias"
    return conv.weight.reshape(num_heads, -1, conv.weight.shape[1]), conv.bias.reshape(num_heads, -1)


def _on_grid(sequences: tuple[Tensor, Tensor, Tensor], num_heads: int, hw: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Each sequence split into heads, as the grid that it covers; views."""
    query, key, value = (cells.reshape(cells.shape[0], *hw, num_heads, -1).movedim(3, 1) for cells in sequences)
    return query, key, value
