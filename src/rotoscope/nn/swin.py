"""Swin-B as an image encoder of AOT and DeAOT: self-attention inside windows that shift from block to block, cut at stride 16.

Liu et al., "Swin Transformer", ICCV 2021, in the dense-prediction form (any input size, a layer norm on each output). AOT (Yang et al.,
NeurIPS 2021; aot-benchmark, commit 601c138) never builds the fourth stage, so that the stride-16 map serves twice.
Maps travel as [b, h, w, c]; the outputs are [b, c, h, w] in channels-last memory.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rotoscope.nn.conv_norm import freeze_parameters

SWIN_B_BLOCKS = (2, 2, 18)  # table 7, without the last stage
SWIN_B_HEADS = (4, 8, 16)
NOMINAL_BLOCKS = 24  # the drop-path rates are spread over the blocks of all four stages
DROP_PATH = 0.3  # official rate of the last nominal block
SEPARATED = -100.0  # added between pixels that only the shift brought into one window

_BLOCK = r"encoder\.layers\.(\d)\.blocks\.(\d+)\."
_OURS = r"encoder.stages.\1.blocks.\2."
SWIN_RULES = (
    (r"encoder\.patch_embed\.proj\.(\w+)", r"encoder.patches.\1"),
    (r"encoder\.patch_embed\.norm\.(\w+)", r"encoder.patch_norm.\1"),
    (_BLOCK + r"norm1\.(\w+)", _OURS + r"attention_norm.\3"),
    (_BLOCK + r"attn\.relative_position_bias_table", _OURS + r"attention.position_bias"),
    (_BLOCK + r"attn\.relative_position_index", _OURS + r"attention.position_index"),
    (_BLOCK + r"attn\.qkv\.(\w+)", _OURS + r"attention.query_key_value.\3"),
    (_BLOCK + r"attn\.proj\.(\w+)", _OURS + r"attention.project.\3"),
    (_BLOCK + r"norm2\.(\w+)", _OURS + r"feed_forward_norm.\3"),
    (_BLOCK + r"mlp\.fc1\.(\w+)", _OURS + r"widen.\3"),
    (_BLOCK + r"mlp\.fc2\.(\w+)", _OURS + r"narrow.\3"),
    (r"encoder\.layers\.(\d)\.downsample\.norm\.(\w+)", r"encoder.merges.\1.norm.\2"),
    (r"encoder\.layers\.(\d)\.downsample\.reduction\.weight", r"encoder.merges.\1.reduce.weight"),
    (r"encoder\.norm(\d)\.(\w+)", r"encoder.output_norms.\1.\2"),
)
"""Official keys under `encoder.` to ours under `encoder.`, for `models.checkpoints.rename`; nothing is left over.

The constant index tables (`relative_position_index`) are entries of ours too; the shift masks were never stored.
"""


def window_position_index(window: int) -> Int[Tensor, "p p"]:
    """For each query and key pixel of a window (both row by row), the row of the bias table: their offset, as (dy, dx) row by row."""
    ys, xs = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = ys.flatten(), xs.flatten()
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


class WindowAttention(nn.Module):
    """Multi-head self-attention of the pixels of each window, with a learned bias per head and offset."""

    position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.position_bias = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02))
        self.register_buffer("position_index", window_position_index(window))
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, windows: Float[Tensor, "n p c"], separated: Bool[Tensor, "n p p"] | None = None) -> Float[Tensor, "n p c"]:
        """The attended pixels; `separated` says which pairs of pixels of a window must not see each other."""
        pixels = windows.shape[1]
        split = self.query_key_value(windows).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        bias = self.position_bias[self.position_index.flatten()].T.reshape(1, self.heads, pixels, pixels)
        if separated is not None:
            bias = bias + SEPARATED * separated[:, None].to(bias.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        result: Tensor = self.project(attended.transpose(1, 2).flatten(2))
        return result


class SwinBlock(nn.Module):
    """Window attention and a feed-forward net, each behind a layer norm and added to the map.

    Args:
        channels: of the map.
        heads: of the attention.
        window: its side in cells.
        shift: how far the windows lie to the lower right of the regular grid, in cells.
        drop_path: probability that a sample skips a branch in training.
    """

    def __init__(self, channels: int, heads: int, *, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.window, self.shift, self.drop_path = window, shift, drop_path
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Float[Tensor, "b h w c"], separated: Bool[Tensor, "n p p"]) -> Float[Tensor, "b h w c"]:
        """The map after both branches; `separated` is `shifted_separation` of this size, used by shifted blocks only."""
        x = x + self._dropped(self._attend(self.attention_norm(x), separated))
        hidden = self.widen(self.feed_forward_norm(x))
        return x + self._dropped(self.narrow(F.gelu(hidden)))

    def _attend(self, x: Tensor, separated: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        padded = F.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))  # zeros behind the norm: they are attended to
        if self.shift:
            padded = padded.roll((-self.shift, -self.shift), (1, 2))
        windows = _to_windows(padded, self.window)
        windows = self.attention(windows, separated.repeat(batch, 1, 1) if self.shift else None)
        whole = _from_windows(windows, padded.shape[1], padded.shape[2])
        if self.shift:
            whole = whole.roll((self.shift, self.shift), (1, 2))
        return whole[:, :height, :width]

    def _dropped(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) >= self.drop_path
        return branch * (kept / (1 - self.drop_path)).to(branch.dtype)


class PatchMerging(nn.Module):
    """Each 2x2 square becomes one cell of twice the channels; an odd map gets a row or column of zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 d"]:
        """The map at ceil(h / 2) rows."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]  # the lower left comes second
        merged: Tensor = self.reduce(self.norm(torch.cat(corners, 3)))
        return merged


class SwinStage(nn.Module):
    """Blocks of one grid, every second one shifted by half a window."""

    def __init__(self, channels: int, heads: int, *, window: int, drop_paths: list[float]) -> None:
        super().__init__()
        shifts = (0, window // 2)
        self.blocks = nn.ModuleList(
            SwinBlock(channels, heads, window=window, shift=shifts[index % 2], drop_path=rate) for index, rate in enumerate(drop_paths)
        )
        self.window = window

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        """The map after the blocks."""
        separated = shifted_separation(x.shape[1], x.shape[2], self.window, device=x.device)
        for block in self.blocks:
            x = block(x, separated)
        return x

    def freeze(self) -> None:
        """Take the blocks out of training, the dropping of branches included."""
        freeze_parameters(self.blocks)
        for block in self.blocks:
            assert isinstance(block, SwinBlock)
            block.drop_path = 0.0


class SwinTransformer(nn.Module):
    """Four maps of an image: strides 4, 8, 16 and 16, with c, 2c, 4c and 4c channels; the last is the third again.

    Args:
        channels: c of the first stage; 128 in Swin-B.
        blocks: how many in each stage.
        heads: of each stage.
        window: side of the attention windows in cells.
        drop_path: probability at the last of the nominal 24 blocks; those before get linearly less, the first 0.
    """

    def __init__(
        self,
        channels: int = 128,
        *,
        blocks: tuple[int, ...] = SWIN_B_BLOCKS,
        heads: tuple[int, ...] = SWIN_B_HEADS,
        window: int = 7,
        drop_path: float = DROP_PATH,
    ) -> None:
        super().__init__()
        widths = [channels * 2**stage for stage in range(len(blocks))]
        rates = [drop_path * index / (NOMINAL_BLOCKS - 1) for index in range(sum(blocks))]
        starts = [sum(blocks[:stage]) for stage in range(len(blocks))]
        self.patches = nn.Conv2d(3, channels, 4, 4)
        self.patch_norm = nn.LayerNorm(channels)
        self.stages = nn.ModuleList(
            SwinStage(width, head, window=window, drop_paths=rates[start : start + count])
            for width, head, start, count in zip(widths, heads, starts, blocks, strict=True)
        )
        self.merges = nn.ModuleList(PatchMerging(width) for width in widths[:-1])
        self.output_norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.channels = (*widths, widths[-1])

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps at ceil(h / 4), ceil(h / 8), ceil(h / 16) and ceil(h / 16) rows, from a normalised image."""
        whole = F.pad(image, (0, -image.shape[3] % 4, 0, -image.shape[2] % 4))
        x = self.patch_norm(self.patches(whole).permute(0, 2, 3, 1))
        features: list[Tensor] = []
        for index, (stage, norm) in enumerate(zip(self.stages, self.output_norms, strict=True)):
            x = stage(x if index == 0 else self.merges[index - 1](x))
            features.append(norm(x).permute(0, 3, 1, 2))
        return (*features, features[-1])

    def fold(self) -> None:
        """Change nothing: it has no batch normalisation. Here so that all encoders are used alike."""

    def freeze_early(self) -> None:
        """Take the patch embedding and the first stage's blocks out of training, drop-path included, as official training does (`freeze_at` 2).

        The merging behind that stage goes on learning.
        """
        freeze_parameters([self.patches, self.patch_norm])
        first = self.stages[0]
        assert isinstance(first, SwinStage)
        first.freeze()


def shifted_separation(height: int, width: int, window: int, *, device: torch.device | None = None) -> Bool[Tensor, "n p p"]:
    """Which pairs of pixels of each shifted window are no neighbours: the shift wraps, so windows at the border hold pixels of both ends.

    One entry per window (row by row) of the map padded to whole windows.
    """
    rows = _bands(height, window, device)
    columns = _bands(width, window, device)
    regions = _to_windows((3 * rows[:, None] + columns[None, :])[None, :, :, None], window)[:, :, 0]
    return regions[:, :, None] != regions[:, None, :]


def _bands(length: int, window: int, device: torch.device | None) -> Tensor:
    """0 before the last window, 1 in its unshifted part, 2 in what wrapped round."""
    padded = length + -length % window
    position = torch.arange(padded, device=device)
    bands: Tensor = (position >= padded - window).long() + (position >= padded - window // 2).long()
    return bands


def _to_windows(x: Tensor, window: int) -> Tensor:
    """[b, h, w, c] as [windows of all samples, pixels, c]."""
    batch, height, width, channels = x.shape
    split = x.reshape(batch, height // window, window, width // window, window, channels)
    return split.transpose(2, 3).reshape(-1, window * window, channels)


def _from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """The reverse of `_to_windows`."""
    window = math.isqrt(windows.shape[1])
    split = windows.reshape(-1, height // window, width // window, window, window, windows.shape[2])
    return split.transpose(2, 3).reshape(-1, height, width, windows.shape[2])
