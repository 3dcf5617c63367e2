"""CPU seconds per picture of YOLACT's networks, one thread, beside the same networks as they are built and the official code's (docs/yolact.md)."""

import copy
import multiprocessing as mp
from typing import TYPE_CHECKING

import torch

from bench.tables import cost_of, peak_megabytes, show

if TYPE_CHECKING:
    from rotoscope.models.yolact import YolactNetwork

CASES = {  # official CPU seconds, network and suppression, on a loaded machine
    "yolact-lite": "",
    "yolact-resnet50": "2.1",
    "yolact-darknet53": "2.4",
    "yolact-base": "2.9",
    "yolact-plus-resnet50": "",
    "yolact-plus-base": "",
}
PEAK = 103.0
"""GFLOP/s of matrix products on one thread of the machine of docs/benchmarks.md."""
REPEATS = 3


def main() -> None:
    """Print the table."""
    rows = []
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, official in CASES.items():
            plain, fast, peak = pool.apply(measure, (name,))
            direct, ours = (pool.apply(gigaflops, (name, tiled)) for tiled in (False, True))
            figures = (f"{plain / fast:.1f}", official, f"{ours:.1f}", f"{direct:.1f}", f"{ours / fast / PEAK:.0%}", f"{direct / fast / PEAK:.0%}")
            rows.append((name, fast, plain, *figures, f"{peak:.0f}"))
    header = (
        "network",
        "CPU s",
        "as built, CPU s",
        "ratio",
        "official CPU s, with suppression",
        "GFLOP",
        "GFLOP of direct convolutions",
        "share of peak",
        "the same, direct",
        "peak, MB",
    )
    show(f"YOLACT's networks, one thread, one picture of their own size (best of {REPEATS}, by turns)", header, rows)


def measure(name: str) -> tuple[float, float, float]:
    """CPU seconds of the network as it is built and as it is prepared, and the peak in MB."""
    torch.set_num_threads(1)
    plain = _network(name).eval()
    fast = copy.deepcopy(plain).prepare()
    side = fast.config.image_size
    picture = torch.randn(1, 3, side, side)
    beside = picture.contiguous(memory_format=torch.channels_last)
    best = [float("inf"), float("inf")]
    with torch.inference_mode():
        for _ in range(REPEATS):
            costs = cost_of(lambda: plain(picture)).cpu_seconds, cost_of(lambda: fast(beside)).cpu_seconds
            best = [min(pair) for pair in zip(best, costs, strict=True)]
    return best[0], best[1], peak_megabytes()


def gigaflops(name: str, tiled: bool) -> float:  # noqa: FBT001 - called through a pool
    """Floating point operations of the convolutions and products of a picture, in units of 1e9."""
    from torch.utils.flop_counter import FlopCounterMode

    from rotoscope.models.yolact.network import LEAST_CELLS, LEAST_CHANNELS
    from rotoscope.nn.winograd import tile_convolutions

    with torch.device("meta"), torch.no_grad():
        network = _network(name).prepare()
        if tiled:
            tile_convolutions(network, least_channels=LEAST_CHANNELS, least_cells=LEAST_CELLS)
        side = network.config.image_size
        with FlopCounterMode(display=False) as counter:
            network.head(network.pyramid(network.backbone(torch.empty(1, 3, side, side))))
            network.prototypes(torch.empty(1, network.config.width, -(-side // 8), -(-side // 8)))
    return float(counter.get_total_flops()) / 1e9


def _network(name: str) -> "YolactNetwork":
    from rotoscope.models.yolact import VARIANTS, fresh_network

    return fresh_network(VARIANTS[name], 0)
