"""The windowed read in tiles against the plain one over the full matrix: time, memory, largest difference. One process each, for the peaks."""

import multiprocessing as mp
from typing import Any

import torch
from torch import Tensor

from bench.tables import cost_of, peak_megabytes, show

RADIUS, CHANNELS, FRAMES = 12, 64, 3
SIZES = {"240p": (60, 107), "360p": (90, 160)}


def main() -> None:
    """Print the table."""
    rows = []
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, hw in SIZES.items():
            tiled, plain = (pool.apply(measure, (kind, hw)) for kind in ("tiles", "full"))
            difference = float(abs(tiled["result"] - plain["result"]).max())
            rows.append((name, tiled["cpu"], plain["cpu"], plain["cpu"] / tiled["cpu"], tiled["mb"], plain["mb"], f"{difference:.1e}"))
    header = ("features", "tiles, CPU s", "full matrix, CPU s", "ratio", "tiles, MB", "full matrix, MB", "largest difference")
    show(f"Windowed read, radius {RADIUS}, {FRAMES} memory frames (MB above the inputs)", header, rows)


def measure(kind: str, hw: tuple[int, int]) -> dict[str, Any]:
    """Cost, extra peak memory and result of one way to read."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    query = torch.randn(CHANNELS, *hw, generator=random) / 4
    keys = [torch.randn(CHANNELS, *hw, generator=random) / 4 for _ in range(FRAMES)]
    values = [torch.rand(2, *hw, generator=random) for _ in range(FRAMES)]
    before = peak_megabytes()
    result: list[Tensor] = []
    with torch.inference_mode():
        cost = cost_of(lambda: result.append((tiles if kind == "tiles" else full)(query, keys, values)))
    # An array, not a tensor: a tensor's memory would go with the process.
    return {"cpu": cost.cpu_seconds, "mb": peak_megabytes() - before, "result": result[0].numpy()}


def tiles(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """As `rotoscope` does it."""
    from rotoscope.ops.local import windowed_attention

    return windowed_attention(query, keys, values, radius=RADIUS)


def full(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """The plain way: all cells against all cells of all frames, with what lies outside the windows masked."""
    height, width = query.shape[1:]
    cells = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).flatten(1)
    far = (cells[:, :, None] - cells[:, None, :]).abs().amax(dim=0) > RADIUS
    logits = torch.cat([(query.flatten(1).T @ key.flatten(1)).masked_fill_(far, -torch.inf) for key in keys], dim=1)
    read = logits.softmax(dim=1) @ torch.cat([value.flatten(1) for value in values], dim=1).T
    return read.T.view(-1, height, width)
