"""3x3 convolutions with a quarter of the multiplications, for inference on the CPU.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, F(4x4, 3x3): tiles of 6x6 cells are transformed, multiplied
position by position, and transformed back to 4x4 results. Sums are taken in another order, so results differ from the direct ones by some
1e-5 of their size.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_TILE, _WINDOW = 4, 6
_STRIP = 4
"""Rows of tiles that are transformed at a time: the intermediate results should stay in the processor's cache."""
# the matrices of Lavin and Gray, section 4.3
_INTO = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))
_KERNELS = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))
_OUT_OF = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class WinogradConv(nn.Conv2d):
    """A 3x3 convolution, padded by one cell, that can be prepared to work by tiles.

    Attributes:
        tiled: the transformed kernels once `prepare` was called; four times as large as the kernels.
    """

    tiled: Float[Tensor, "36 c d"] | None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.register_buffer("tiled", None, persistent=False)

    def prepare(self) -> None:
        """Transform the kernels and drop the untransformed ones: for inference on the CPU, in float32. A second call does nothing."""
        if self.tiled is None:
            self.tiled = transform_kernels(self.weight.detach())
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def forward(
        self, x: Float[Tensor, "n c h w"], *, rectify: bool = False, added: Float[Tensor, "n d h w"] | None = None
    ) -> Float[Tensor, "n d h w"]:
        """The convolved map.

        Args:
            x: the input.
            rectify: apply a ReLU to it first.
            added: to the output.
        """
        if self.tiled is not None:
            return self._by_tiles(x, self.tiled, rectify=rectify, added=added)
        result: Tensor = super().forward(F.relu(x) if rectify else x)
        return result if added is None else result + added

    def _by_tiles(self, x: Tensor, tiled: Tensor, *, rectify: bool, added: Tensor | None) -> Tensor:
        assert self.bias is not None
        height, width = x.shape[2:]
        down, across = -(-height // _TILE), -(-width // _TILE)
        cells = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, _TILE * across + 1 - width, 1, _TILE * down + 1 - height))
        if rectify:
            cells.clamp_(min=0)
        result = x.new_empty((x.shape[0], _TILE * down, _TILE * across, tiled.shape[2]))
        matrices = _squared(_INTO, x), _squared(_OUT_OF, x)
        for source, target in zip(cells, result, strict=True):
            for top in range(0, down, _STRIP):
                strip = target[_TILE * top : _TILE * (top + _STRIP)]
                _fill_strip(source[_TILE * top : _TILE * top + strip.shape[0] + 2], tiled, matrices, strip)
        result = result[:, :height, :width].add_(self.bias).permute(0, 3, 1, 2)
        return result if added is None else result.add_(added)


def tile_convolutions(network: nn.Module, *, least_channels: int = 128) -> None:
    """Let the plain 3x3 convolutions in a network work by tiles, in place: for inference on the CPU, in float32, of any layer but the network itself.

    Those with fewer channels, in or out, stay as they are: with 64 the transforms cost what the tiles save (measured; 1.3 times as fast with 128,
    1.5 to 2 with 256 and more).
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d and _is_plain(child) and min(child.in_channels, child.out_channels) >= least_channels:
                setattr(parent, name, _tiled(child))


def _is_plain(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


def _tiled(conv: nn.Conv2d) -> WinogradConv:
    with torch.device("meta"):
        tiled = WinogradConv(conv.in_channels, conv.out_channels)
    tiled.weight, bias = conv.weight, conv.bias
    tiled.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels), requires_grad=False) if bias is None else bias
    tiled.prepare()
    return tiled.train(conv.training)


def transform_kernels(kernels: Float[Tensor, "d c 3 3"]) -> Float[Tensor, "36 c d"]:
    """Kernels as they are multiplied with transformed tiles."""
    matrix = torch.tensor(_KERNELS, dtype=torch.float64, device=kernels.device)
    transformed = torch.einsum("ai,bj,dcij->abcd", matrix, matrix, kernels.double())
    return transformed.flatten(0, 1).to(kernels.dtype).contiguous()


def _fill_strip(
    cells: Float[Tensor, "h2 w2 c"], tiled: Float[Tensor, "36 c d"], matrices: tuple[Tensor, Tensor], result: Float[Tensor, "h w d"]
) -> None:
    """Convolve a strip of cells, which has a border of one cell, into its result; both are multiples of the tile, but for the border."""
    down, across = result.shape[0] // _TILE, result.shape[1] // _TILE
    row, column, channel = cells.stride()
    shape, strides = (_WINDOW, _WINDOW, down, across, cells.shape[2]), (row, column, _TILE * row, _TILE * column, channel)
    windows = cells.as_strided(shape, strides, cells.storage_offset()).reshape(_WINDOW**2, -1)
    transformed = (matrices[0] @ windows).view(_WINDOW**2, down * across, -1)
    products = torch.bmm(transformed, tiled).view(_WINDOW**2, -1)
    tiles = (matrices[1] @ products).view(_TILE, _TILE, down, across, -1)
    result.view(down, _TILE, across, _TILE, -1).copy_(tiles.permute(2, 0, 3, 1, 4))


def _squared(rows: tuple[tuple[int, ...], ...], like: Tensor) -> Tensor:
    """The matrix that applies another to both axes of a square."""
    matrix = torch.tensor(rows, dtype=like.dtype, device=like.device)
    return torch.kron(matrix, matrix)
