"""DeAOT's gated propagation module: a visual and an ID branch that share one attention map."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.aot.stored import LayerMemory, Stored
from rotoscope.nn.attention import GatedAttention, WindowedGatedAttention
from rotoscope.nn.blocks import DropPath


class GpmFrame(NamedTuple):
    """What a layer made of a frame before its masks were known; the first layer has no ID input."""

    key: Float[Tensor, "n l k"]
    value: Float[Tensor, "n l v"]
    gate: Float[Tensor, "n l g"]
    id_input: Float[Tensor, "n l c"] | None


class GatedSelfAttention(GatedAttention):
    """Gated propagation from a frame to itself; each branch has value and gate of its own."""

    def __init__(self, channels: int, key_channels: int, *, expansion: int = 2) -> None:
        super().__init__(2 * expansion * channels, 2 * channels)
        self.to_key = nn.Linear(2 * channels, key_channels)
        self.visual_value = nn.Linear(channels, expansion * channels)
        self.id_value = nn.Linear(channels, expansion * channels)
        self.visual_gate = nn.Linear(channels, expansion * channels)
        self.id_gate = nn.Linear(channels, expansion * channels)

    def propagate(self, visual: Float[Tensor, "n l c"], identity: Float[Tensor, "n l c"], hw: tuple[int, int]) -> Float[Tensor, "n l c2"]:
        """Both branches' outputs side by side."""
        key = self.to_key(torch.cat((visual, identity), dim=-1))
        value = F.silu(torch.cat((self.visual_value(visual), self.id_value(identity)), dim=-1), inplace=not self.training)
        gate = F.silu(torch.cat((self.visual_gate(visual), self.id_gate(identity)), dim=-1), inplace=not self.training)
        propagated: Tensor = self(key, key, value, gate, hw)
        return propagated


class GpmLayer(nn.Module):
    """One gated propagation module (DeAOT, section 4.2): memories first, then the frame itself; no feed-forward part.

    The state holds the visual branch and the ID branch side by side.

    Args:
        channels: of each branch.
        key_channels: of the shared keys.
        expansion: how much wider values and gates are.
        first: the layer has no ID input, so its ID gate is 1.
        drop_path: of the self-propagation, while training (official: 0.1 at every depth).
    """

    def __init__(self, channels: int = 256, key_channels: int = 128, *, first: bool, expansion: int = 2, drop_path: float = 0.1) -> None:
        super().__init__()
        wide = expansion * channels
        self.channels = channels
        self.key_channels = key_channels
        self.entry_norm = nn.LayerNorm(channels)
        self.to_key_value = nn.Linear(channels, key_channels + wide)
        self.to_gate = nn.Linear(channels, wide)
        self.to_id_value = nn.Linear(channels if first else 2 * channels, wide)
        self.entry_id_norm = None if first else nn.LayerNorm(channels)
        self.to_id_gate = None if first else nn.Linear(channels, wide)
        self.long_attention = GatedAttention(2 * wide, 2 * channels)
        self.short_attention = WindowedGatedAttention(key_channels, 2 * wide, 2 * channels)
        self.middle_norm = nn.LayerNorm(channels)
        self.middle_id_norm = nn.LayerNorm(channels)
        self.self_attention = GatedSelfAttention(channels, key_channels, expansion=expansion)
        self.drop_path = DropPath(drop_path)

    def describe(self, x: Float[Tensor, "n l c2"], hw: tuple[int, int], position: Float[Tensor, "l c"]) -> tuple[Float[Tensor, "n l c2"], GpmFrame]:
        """The state as it is, and the frame's key, value and gate. The position is not used: official DeAOT ignores it too."""
        visual = self.entry_norm(x[..., : self.channels])
        both = self.to_key_value(visual)
        key, value = both[..., : self.key_channels], both[..., self.key_channels :]
        gate = F.silu(self.to_gate(visual))
        if self.entry_id_norm is None or self.to_id_gate is None:
            return x, GpmFrame(key, F.silu(value), torch.cat((gate, torch.ones_like(gate)), dim=-1), None)
        identity = self.entry_id_norm(x[..., self.channels :])
        return x, GpmFrame(key, F.silu(value), torch.cat((gate, F.silu(self.to_id_gate(identity))), dim=-1), identity)

    def store(self, frame: GpmFrame, id_embedding: Float[Tensor, "n l c"]) -> Stored:
        """What the memories keep of a frame, once its masks are known: only the ID value depends on them."""
        embedded = id_embedding if frame.id_input is None else torch.cat((frame.id_input, id_embedding), dim=-1)
        return Stored(frame.key, torch.cat((frame.value, F.silu(self.to_id_value(embedded))), dim=-1))

    def read(self, x: Float[Tensor, "n l c2"], frame: GpmFrame, memory: LayerMemory, hw: tuple[int, int]) -> Float[Tensor, "n l c2"]:
        """The state after reading both memories, then itself."""
        x = (
            x
            + self.long_attention(frame.key, *memory.long_term, frame.gate, hw)
            + self.short_attention(frame.key, *memory.short_term, frame.gate, hw)
        )
        visual, identity = x.chunk(2, dim=-1)
        added = self.self_attention.propagate(self.middle_norm(visual), self.middle_id_norm(identity), hw)
        dropped = [self.drop_path(branch) for branch in added.chunk(2, dim=-1)]
        return x + torch.cat(dropped, dim=-1)
