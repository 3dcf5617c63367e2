# ruff: noqa: SLF001 - a benchmark times the parts of a step one by one
"""CPU seconds per frame of AOT and DeAOT at 480p, one thread, with several frames in long-term memory: `python bench/aot_steps.py r50-deaot-l 5`."""

import sys
import time
from collections import defaultdict
from dataclasses import replace

import torch

from rotoscope.models.aot import VARIANTS, AotNetwork, AotTracker
from rotoscope.testing import filled, moving_shapes
from rotoscope.types import Frame, Masks


def synthetic_tracker(name: str) -> AotTracker:
    """A variant with weights made from their names; time does not depend on them."""
    network = AotNetwork(VARIANTS[name])
    network.load_state_dict({key: filled(key, tuple(value.shape), str(value.dtype)) for key, value in network.state_dict().items()}, strict=False)
    network.encoder.fold()
    network.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
    return AotTracker(network, replace(VARIANTS[name], long_term_gap=1))


def main() -> None:
    """Print the process time of each part of a step, the best of three."""
    name, stored = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    images, labels = moving_shapes(num_frames=stored + 3, hw=(480, 854), num_objects=3)
    tracker = synthetic_tracker(name)
    propagator = tracker.start()
    times = defaultdict(list)
    for index, image in enumerate(images):
        frame = Frame(index, image)
        if index == 0:
            propagator.remember(frame, Masks.from_labels(labels[0]), given=True)
            continue
        if index == stored:
            propagator._config = replace(propagator._config, long_term_gap=None)
        marks = [time.process_time()]
        with torch.inference_mode():
            propagator._picture(frame)
            marks.append(time.process_time())
            propagator._match(frame)
            marks.append(time.process_time())
        masks = propagator.predict(frame)
        marks.append(time.process_time())
        propagator.remember(frame, masks, given=False)
        marks.append(time.process_time())
        if index >= stored:
            for part, start, end in zip(("encode", "match", "decode", "update"), marks, marks[1:], strict=False):
                times[part].append(end - start)
            times["all"].append(marks[-1] - marks[0])
    print(name, propagator.long_term_frames, {part: round(min(values), 3) for part, values in times.items()})


main()
