"""CPU seconds per frame of AOT and DeAOT at 480p with three objects, one thread, beside the official code's (docs/aot.md)."""

import multiprocessing as mp
import time
from collections import defaultdict
from dataclasses import replace

import torch

from bench.tables import peak_megabytes, show

CASES = (
    ("aot-t", 1, "1.22"),
    ("deaot-t", 1, "1.28"),
    ("r50-aot-l", 1, "4.82"),
    ("r50-aot-l", 5, "6.59 (4 frames)"),
    ("r50-deaot-l", 1, "3.20"),
    ("r50-deaot-l", 5, "4.35"),
)
OBJECT_CASES = tuple((name, objects) for name in ("deaot-t", "r50-deaot-l") for objects in (1, 3, 10, 12))
"""Ten objects share a pass; the eleventh opens a second group."""
PARTS = ("encode", "match", "decode", "update", "all")


def main() -> None:
    """Print the tables: over variants and stored frames, and over objects."""
    rows, by_objects = [], []
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, stored, official in CASES:
            parts, peak = pool.apply(measure, (name, stored))
            rows.append((name, stored, *(parts[part] for part in PARTS), official, f"{peak:.0f}"))
        for name, objects in OBJECT_CASES:
            parts, peak = pool.apply(measure, (name, 1, objects))
            by_objects.append((name, objects, *(parts[part] for part in PARTS), f"{peak:.0f}"))
    header = ("variant", "stored frames", *PARTS, "official", "peak, MB")
    show("AOT and DeAOT, 854x480, three objects, one thread, CPU seconds per frame (best of three)", header, rows)
    show("The same over objects, one stored frame", ("variant", "objects", *PARTS, "peak, MB"), by_objects)


def measure(name: str, stored: int, num_objects: int = 3) -> tuple[dict[str, float], float]:
    """CPU seconds of each part of a step with so many frames in long-term memory, and the peak in MB."""
    from rotoscope.models.aot import VARIANTS, AotNetwork, AotTracker
    from rotoscope.testing import moving_shapes
    from rotoscope.types import Frame, Masks

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = AotNetwork(VARIANTS[name])
    network.encoder.fold()
    network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    images, labels = moving_shapes(num_frames=stored + 3, hw=(480, 854), num_objects=num_objects)
    propagator = AotTracker(network, replace(VARIANTS[name], long_term_gap=1)).start()
    propagator.remember(Frame(0, images[0]), Masks.from_labels(labels[0]), given=True)
    times: dict[str, list[float]] = defaultdict(list)
    for index, image in enumerate(images[1:], start=1):
        if index == stored:  # the memory is as large as it should be: keep it so
            propagator._config = replace(propagator._config, long_term_gap=None)  # noqa: SLF001 - a benchmark may
        marks = _step(propagator, Frame(index, image))
        if index >= stored:
            for part, start, end in zip(PARTS, marks, marks[1:], strict=False):
                times[part].append(end - start)
            times["all"].append(marks[-1] - marks[0])
    return {part: min(values) for part, values in times.items()}, peak_megabytes()


def _step(propagator: object, frame: object) -> list[float]:
    """One frame; the clock before, between and after its parts."""
    marks = [time.process_time()]
    with torch.inference_mode():
        propagator._see(frame)  # noqa: SLF001 - the parts of a step, one by one
        marks.append(time.process_time())
        propagator._match(frame)  # noqa: SLF001 - the same
        marks.append(time.process_time())
    masks = propagator.predict(frame)
    marks.append(time.process_time())
    propagator.remember(frame, masks, given=False)
    marks.append(time.process_time())
    return marks
