"""AOT's long short-term transformer block: self-attention, attention over the memory and over the frame before, feed-forward."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.aot.stored import LayerMemory, Stored
from rotoscope.nn.attention import MultiHeadAttention, SelfAttention, WindowedAttention
from rotoscope.nn.blocks import DropPath, NormedDepthwise


class LsttFrame(NamedTuple):
    """What a layer made of a frame before its masks were known."""

    key: Float[Tensor, "n l c"]
    value: Float[Tensor, "n l c"]


class LsttLayer(nn.Module):
    """One LSTT block (AOT, section 4.2), with the normalisation first.

    Args:
        channels: of the embedding.
        num_heads: of all three attentions.
        hidden: channels inside the feed-forward part.
        drop_path: of self-attention and feed-forward, while training (official: 0.1 at every depth).
    """

    def __init__(self, channels: int = 256, num_heads: int = 8, *, hidden: int = 1024, drop_path: float = 0.1) -> None:
        super().__init__()
        self.entry_norm = nn.LayerNorm(channels)
        self.self_attention = SelfAttention(channels, num_heads)
        self.middle_norm = nn.LayerNorm(channels)
        self.to_key = nn.Linear(channels, channels)
        self.to_value = nn.Linear(channels, channels)
        self.long_attention = MultiHeadAttention(channels, num_heads)
        self.short_attention = WindowedAttention(channels, num_heads)
        self.feed_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, hidden)
        self.activation = NormedDepthwise(hidden)
        self.narrow = nn.Linear(hidden, channels)
        self.drop_path = DropPath(drop_path)

    def describe(self, x: Float[Tensor, "n l c"], hw: tuple[int, int], position: Float[Tensor, "l c"]) -> tuple[Float[Tensor, "n l c"], LsttFrame]:
        """The state after self-attention, and the frame's key and value for the memories."""
        normed = self.entry_norm(x)
        positioned = normed + position
        x = x + self.drop_path(self.self_attention(positioned, positioned, normed))
        value = self.middle_norm(x)
        return x, LsttFrame(self.to_key(value), value)

    def store(self, frame: LsttFrame, id_embedding: Float[Tensor, "n l c"]) -> Stored:
        """What the memories keep of a frame, once its masks are known."""
        return Stored(frame.key, self.to_value(frame.value + id_embedding))

    def read(self, x: Float[Tensor, "n l c"], frame: LsttFrame, memory: LayerMemory, hw: tuple[int, int]) -> Float[Tensor, "n l c"]:
        """The state after reading both memories and the feed-forward part."""
        x = x + self.long_attention(frame.key, *memory.long_term) + self.short_attention(frame.key, *memory.short_term, hw)
        fed: Tensor = self.drop_path(self.narrow(self.activation(self.widen(self.feed_norm(x)), hw)))
        return x + fed
