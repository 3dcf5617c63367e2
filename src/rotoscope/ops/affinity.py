"""Reading a memory by the similarity of its cells to those of a query: softmax over all of the memory, or over its top k cells.

The matrix of all memory cells against all query cells is never built: it is made piece by piece, and only the top k of each query cell are kept.
The result is that of the whole matrix, to rounding; among equal similarities it is open which are taken.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

_QUERIES_AT_ONCE = 256
_MEMORY_AT_ONCE = 16384
"""The largest piece of the matrix: 16 MB in float32; ten frames of 480p at stride 16."""
_GROUP = 16
"""Cells whose maximum stands for them in the first round of a selection."""


class KeyValue(NamedTuple):
    """What one frame adds to the memory of one object, cell by cell."""

    key: Float[Tensor, "m c"]
    value: Float[Tensor, "m v"]


class Selection(NamedTuple):
    """The memory cells that serve each query cell, best first: their weights, which sum to 1, and where they lie in the memory."""

    weights: Float[Tensor, "q k"]
    cells: Int64[Tensor, "q k"]


class GaussianKernel(NamedTuple):
    """Prefers query cells near to where a memory cell fits best (Seong et al., Kernelized Memory Network, ECCV 2020, eq. 4).

    Attributes:
        sigma: of the Gaussian, in cells; 7 in the paper.
        hw: the grid of the query.
    """

    sigma: float
    hw: tuple[int, int]


def read_memory(
    query: Float[Tensor, "q c"], memory: Sequence[KeyValue], *, top_k: int | None, kernel: GaussianKernel | None = None
) -> Float[Tensor, "q v"]:
    """The values of the memory at each query cell, weighted by softmax(<memory key, query key> / sqrt(c)) over the memory.

    With `top_k` only so many memory cells have a say, those that fit best (Cheng et al., MiVOS, CVPR 2021, section 3.2.2); a smaller memory is
    read as a whole. The memory holds at least one cell.
    """
    if top_k is None:
        return _read_all(query, memory, kernel)
    selection = select_top(query, [frame.key for frame in memory], top_k, kernel=kernel)
    return gather_values(selection, [frame.value for frame in memory])


def select_top(query: Float[Tensor, "q c"], keys: Sequence[Float[Tensor, "_ c"]], top_k: int, *, kernel: GaussianKernel | None = None) -> Selection:
    """For each query cell the k memory cells that fit best, counted through all frames, and their softmax."""
    scaled = query / math.sqrt(query.shape[1])
    best = None if kernel is None else [_best_queries(scaled, key) for key in keys]
    parts = []
    for begin in range(0, len(query), _QUERIES_AT_ONCE):
        rows = slice(begin, min(begin + _QUERIES_AT_ONCE, len(query)))
        parts.append(_select_rows(scaled, rows, keys, top_k, _Nearness(kernel, best)))
    logits, cells = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Selection(logits.softmax(dim=1), cells)


def gather_values(selection: Selection, values: Sequence[Float[Tensor, "_ v"]]) -> Float[Tensor, "q v"]:
    """The weighted sums of the selected cells' values."""
    if len(values) == 1:
        return F.embedding_bag(selection.cells, values[0], mode="sum", per_sample_weights=selection.weights)
    total = values[0].new_zeros((len(selection.cells), values[0].shape[1]))
    begin = 0
    for value in values:
        is_here = (selection.cells >= begin) & (selection.cells < begin + len(value))
        counts = is_here.sum(dim=1)
        if bool(counts.any()):
            cells, weights = selection.cells[is_here] - begin, selection.weights[is_here]
            total += F.embedding_bag(cells, value, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights)
        begin += len(value)
    return total


class _Nearness(NamedTuple):
    """What the kernel adds to similarities."""

    kernel: GaussianKernel | None
    best: Sequence[Int64[Tensor, "_"]] | None

    def logits(self, rows: slice, frame: int, cells: slice) -> Float[Tensor, "rows cells"] | float:
        """The logarithm of the Gaussian between some query cells and where some memory cells fit best; 0 without a kernel."""
        if self.kernel is None or self.best is None:
            return 0.0
        width, best = self.kernel.hw[1], self.best[frame][cells]
        query = torch.arange(rows.start, rows.stop, device=best.device)[:, None]
        squared = (query // width - best // width) ** 2 + (query % width - best % width) ** 2
        return squared / (-2 * self.kernel.sigma**2)


def _best_queries(scaled: Float[Tensor, "q c"], key: Float[Tensor, "m c"]) -> Int64[Tensor, "m"]:
    """The query cell that each memory cell fits best; the lowest of equal ones."""
    best = [(key[begin : begin + _QUERIES_AT_ONCE] @ scaled.T).argmax(dim=1) for begin in range(0, len(key), _QUERIES_AT_ONCE)]
    return torch.cat(best)


def _select_rows(
    scaled: Float[Tensor, "q c"], rows: slice, keys: Sequence[Float[Tensor, "_ c"]], top_k: int, nearness: _Nearness
) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """The largest similarities of some query cells, and their memory cells."""
    logits, cells = scaled.new_empty((rows.stop - rows.start, 0)), torch.empty((rows.stop - rows.start, 0), dtype=torch.int64, device=scaled.device)
    piece: list[Tensor] = []
    filled = begin = 0  # cells in the piece, and in front of it
    pieces = [(frame, slice(start, start + _MEMORY_AT_ONCE)) for frame, key in enumerate(keys) for start in range(0, len(key), _MEMORY_AT_ONCE)]
    for position, (frame, part) in enumerate(pieces):
        piece.append(scaled[rows] @ keys[frame][part].T + nearness.logits(rows, frame, part))
        filled += piece[-1].shape[1]
        if filled >= _MEMORY_AT_ONCE or position == len(pieces) - 1:
            found, where = largest(torch.cat(piece, dim=1), top_k)
            logits, kept = torch.cat((logits, found), dim=1).topk(min(top_k, logits.shape[1] + found.shape[1]))
            cells = torch.cat((cells, where + begin), dim=1).gather(1, kept)
            begin, filled, piece = begin + filled, 0, []
    return logits, cells


def largest(rows: Float[Tensor, "q m"], k: int) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The k largest numbers of each row (all, if there are fewer), descending, and their columns.

    The same numbers as `torch.topk` gives, faster in long rows: the k largest lie in the k groups with the largest maxima.
    """
    columns = rows.shape[1]
    whole = columns // _GROUP * _GROUP
    if whole < 2 * k * _GROUP:
        return rows.topk(min(k, columns))
    groups = rows[:, :whole].reshape(len(rows), -1, _GROUP)
    chosen = groups.amax(dim=2).topk(k, sorted=False).indices
    candidates = (chosen[:, :, None] * _GROUP + torch.arange(_GROUP, device=rows.device)).flatten(1)
    rest = torch.arange(whole, columns, device=rows.device).expand(len(rows), -1)
    candidates = torch.cat((candidates, rest), dim=1)
    found = rows.gather(1, candidates).topk(k)
    return found.values, candidates.gather(1, found.indices)


def _read_all(query: Float[Tensor, "q c"], memory: Sequence[KeyValue], kernel: GaussianKernel | None) -> Float[Tensor, "q v"]:
    """Every memory cell has a say; one block of query cells after the other."""
    scaled = query / math.sqrt(query.shape[1])
    nearness = _Nearness(kernel, None if kernel is None else [_best_queries(scaled, frame.key) for frame in memory])
    read = []
    for begin in range(0, len(query), _QUERIES_AT_ONCE):
        rows = slice(begin, min(begin + _QUERIES_AT_ONCE, len(query)))
        logits = torch.cat([scaled[rows] @ frame.key.T + nearness.logits(rows, i, slice(None)) for i, frame in enumerate(memory)], dim=1)
        shares = torch.split(logits.softmax(dim=1), [len(frame.key) for frame in memory], dim=1)
        read.append(torch.stack([share @ frame.value for share, frame in zip(shares, memory, strict=True)]).sum(dim=0))
    return torch.cat(read)
