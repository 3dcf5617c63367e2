"""CPU seconds per frame of MiVOS at 480p against memory frames and objects, one thread, beside the official code's (docs/mivos.md)."""

import multiprocessing as mp
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from bench.tables import cost_of, peak_megabytes, show

CELLS = tuple((stored, objects) for objects in (1, 3, 5) for stored in (1, 5, 20, 50))
PARTS = ("see", "read", "decode", "memorise", "first pass", "later pass")
OFFICIAL = {(1, 1): "10.2", (5, 1): "10.7 (whole clips 10.4)", (20, 1): "11.7", (1, 3): "19.0", (5, 3): "20.3 (whole clips 19.5)"}
"""CPU seconds of two threads: query encoder, segmentation and memory update added up."""
PEAK = 103e9  # FLOP/s of one thread in large matrix products, measured here
HW = (480, 854)
REPEATS = 2


def main(cells: Sequence[tuple[int, int]] = CELLS) -> None:
    """Print the tables; `cells` are pairs of memory frames and objects."""
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = []
        for stored, objects in cells:
            parts, flops, peak = pool.apply(measure, (stored, objects))
            share = flops / parts["first pass"] / PEAK
            row = (stored, objects, *(parts[part] for part in PARTS), flops / 1e9, f"{share:.0%}", OFFICIAL.get((stored, objects), ""), f"{peak:.0f}")
            rows.append(row)
        header = ("memory frames", "objects", *PARTS, "GFLOP, first pass", "share of peak", "official", "peak, MB")
        show("MiVOS, 854x480, one thread, CPU seconds per frame (best of two)", header, rows)
        single = [(name, *pool.apply(measure_single, (name,)), official) for name, official in (("s2m", "5.5"), ("fusion", "1.6"))]
    show("One frame of 854x480, one object, one thread", ("network", "CPU s", "GFLOP", "share of peak", "peak, MB", "official, CPU s"), single)


def measure(stored: int, num_objects: int) -> tuple[dict[str, float], float, float]:
    """CPU seconds of each part of a step, its floating-point operations, and the peak in MB."""
    from rotoscope.models.mivos import VARIANTS, MivosTracker, PropagationNetwork
    from rotoscope.models.mivos.memory import Remembered
    from rotoscope.testing import moving_shapes
    from rotoscope.types import Frame, Masks

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = PropagationNetwork().eval().requires_grad_(requires_grad=False)
    network.fold()
    network.tile()
    propagator = MivosTracker(network.to(memory_format=torch.channels_last), VARIANTS["mivos"]).start()
    images, labels = moving_shapes(num_frames=REPEATS + 2, hw=HW, num_objects=num_objects)
    ids = tuple(range(1, num_objects + 1))
    propagator.remember(Frame(0, images[0]), Masks.from_labels(labels[0], ids), given=True)
    cells = 30 * 54
    for index in range(1, stored):  # numbers like those of other frames; making the frames would take minutes
        made = Remembered(-index, ids, torch.randn(num_objects, cells, 128), torch.randn(num_objects, cells, 512))
        propagator._memory.add(made, given=True)  # noqa: SLF001 - a benchmark may
    propagator._memory._origin = (0, 0)  # noqa: SLF001 - the same
    times: dict[str, list[float]] = defaultdict(list)
    for index in range(1, REPEATS + 1):
        for part, seconds in _step(propagator, Frame(index, images[index])).items():
            times[part].append(seconds)
    flops = _operations(lambda: _step(propagator, Frame(REPEATS + 1, images[-1])))
    return {part: min(values) for part, values in times.items()}, flops, peak_megabytes()


def _step(propagator: Any, frame: Any) -> dict[str, float]:
    """CPU seconds of the parts of one frame; nothing is remembered of it for long."""
    network, spent = propagator._network, defaultdict(float)  # noqa: SLF001 - a benchmark may
    for name, part in (("see", "see"), ("segment", "decode"), ("memorise", "memorise")):
        network.__dict__[name] = _timed(getattr(type(network), name).__get__(network), spent, part)
    begun = time.process_time()
    masks = propagator.predict(frame)
    spent["read"] = time.process_time() - begun - spent["see"] - spent["decode"]
    before = propagator.state()
    propagator.remember(frame, masks, given=False)
    propagator.restore(before)
    spent["first pass"] = time.process_time() - begun
    spent["later pass"] = spent["first pass"] - spent["see"]
    return spent


def _timed(function: Any, spent: dict[str, float], part: str) -> Any:
    def wrapped(*arguments: Any) -> Any:
        begun = time.process_time()
        try:
            return function(*arguments)
        finally:
            spent[part] += time.process_time() - begun

    return wrapped


def measure_single(name: str) -> tuple[float, float, str, str]:
    """CPU seconds of S2M or FusionNet on one frame, operations in billions, share of the peak, and the most memory in MB."""
    from rotoscope.models.fusion import DifferenceAwareFuser, FusionConfig, FusionNetwork
    from rotoscope.models.s2m import S2mConfig, S2mMaker, S2mNetwork
    from rotoscope.testing import moving_shapes
    from rotoscope.types import Frame, Masks, Scribble

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = moving_shapes(num_frames=1, hw=HW, num_objects=1)
    frame, masks = Frame(0, images[0]), Masks.from_labels(labels[0])
    if name == "s2m":
        network = S2mNetwork().eval().requires_grad_(requires_grad=False)
        network.fold()
        maker = S2mMaker(network.to(memory_format=torch.channels_last), S2mConfig())
        line = Scribble(0, 1, torch.tensor([[100.0, 100.0], [300.0, 200.0]]))
        work = lambda: maker.make(frame, [line], masks)  # noqa: E731 - one of two
    else:
        fusion = FusionNetwork().eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
        fuser = DifferenceAwareFuser(fusion, FusionConfig())
        work = lambda: fuser.fuse(frame, masks, masks, nearness=0.5)  # noqa: E731 - the other
    seconds, flops = cost_of(work, repeats=REPEATS).cpu_seconds, _operations(work)
    return seconds, flops / 1e9, f"{flops / seconds / PEAK:.0%}", f"{peak_megabytes():.0f}"


def _operations(work: Any) -> float:
    """Floating-point operations of convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
