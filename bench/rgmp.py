"""CPU seconds per frame of RGMP at 480p, one thread, beside the official code's (docs/rgmp.md)."""

import multiprocessing as mp
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bench.tables import cost_of, peak_megabytes, show

if TYPE_CHECKING:
    from rotoscope.models.rgmp import RgmpTracker

CASES = (  # objects, scales, official CPU seconds on a loaded machine
    (1, (1.0,), "7.2"),
    (1, (0.5, 0.75, 1.0), "15.7"),
    (3, (1.0,), ""),
    (3, (0.5, 0.75, 1.0), "70.4"),
)
PEAK = 103.0
"""GFLOP/s of matrix products on one thread of the machine of docs/benchmarks.md."""


def main() -> None:
    """Print the tables."""
    rows = []
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for num_objects, scales, official in CASES:
            seconds, peak = pool.apply(measure, (num_objects, scales))
            direct, ours = (pool.apply(gigaflops, (num_objects, scales, tiled)) for tiled in (False, True))
            share, direct_share = f"{ours / seconds / PEAK:.0%}", f"{direct / seconds / PEAK:.0%}"
            rows.append((num_objects, len(scales), seconds, official, f"{ours:.0f}", f"{direct:.0f}", share, direct_share, f"{peak:.0f}"))
    header = (
        "objects",
        "scales",
        "CPU s",
        "official CPU s",
        "GFLOP",
        "GFLOP of direct convolutions",
        "share of peak",
        "the same, direct",
        "peak, MB",
    )
    show("RGMP, 854x480, one thread, one frame (best of two)", header, rows)


def measure(num_objects: int, scales: tuple[float, ...]) -> tuple[float, float]:
    """CPU seconds of a frame, predicted and remembered, and the peak in MB."""
    from rotoscope.testing import moving_shapes
    from rotoscope.types import Frame, Masks

    torch.set_num_threads(1)
    propagator = _tracker(scales, tiled=True).start()
    images, labels = moving_shapes(num_frames=3, hw=(480, 854), num_objects=num_objects)
    propagator.remember(Frame(0, images[0]), Masks.from_labels(labels[0], range(1, 1 + num_objects)), given=True)

    def step(index: int) -> Callable[[], None]:
        frame = Frame(index, images[index])
        return lambda: propagator.remember(frame, propagator.predict(frame), given=False)

    return min(cost_of(step(index)).cpu_seconds for index in (1, 2)), peak_megabytes()


def gigaflops(num_objects: int, scales: tuple[float, ...], tiled: bool) -> float:  # noqa: FBT001 - called through a pool
    """Floating point operations of the convolutions and products of a frame, in units of 1e9."""
    from torch.utils.flop_counter import FlopCounterMode

    from rotoscope.ops.sizing import scaled_size

    num_passes = num_objects + (num_objects > 1)
    with torch.device("meta"), torch.no_grad():
        network = _tracker(scales, tiled=tiled, device="meta").network
        with FlopCounterMode(display=False) as counter:
            for scale in scales:
                height, width = scaled_size((512, 864), scale, multiple=32, always=True)
                related = torch.empty(num_passes, 256, height // 32, width // 32)
                network(torch.empty(1, 3, height, width), torch.empty(num_passes, height, width), related)
    return float(counter.get_total_flops()) / 1e9


def _tracker(scales: tuple[float, ...], *, tiled: bool, device: str = "cpu") -> "RgmpTracker":
    from rotoscope.models.rgmp import VARIANTS, RgmpTracker, network_of

    with torch.device(device):
        network = network_of(VARIANTS["rgmp"])
    network.encoder.fold()
    network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    if tiled:
        network.decoder.prepare()
    return RgmpTracker(network, replace(VARIANTS["rgmp"], scales=scales))
