"""The second propagation over a clip beside the first, through the session that people use: later rounds find the features of frames kept."""

import multiprocessing as mp
import time

import torch

from bench.tables import peak_megabytes, show

HW, NUM_FRAMES = (480, 854), 10
CASES = tuple((model, objects) for model in ("mast-lite", "deaot-lite", "mivos") for objects in (1, 3))


def main() -> None:
    """Print the table."""
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = [(model, objects, *pool.apply(measure, (model, objects))) for model, objects in CASES]
    header = ("tracker", "objects", "first round", "second round", "times as fast", "the same without features kept", "peak, MB")
    show(f"A session on {NUM_FRAMES} frames of 854x480, one thread: CPU seconds per frame carried", header, rows)


def measure(model: str, num_objects: int) -> tuple[float, float, float, float, float]:
    """CPU seconds per frame of a round from the first frame, and of one from the last; how they compare with and without kept features; MB."""
    torch.set_num_threads(1)
    first, second = _rounds(model, num_objects, feature_bytes=2**30)
    peak = peak_megabytes()
    _, again = _rounds(model, num_objects, feature_bytes=0)
    return first, second, first / second, first / again, peak


def _rounds(model: str, num_objects: int, *, feature_bytes: int) -> tuple[float, float]:
    from rotoscope.testing import moving_shapes
    from rotoscope.tracking.interactive import Budget, InteractiveSession
    from rotoscope.types import Frame

    images, labels = moving_shapes(num_frames=NUM_FRAMES, hw=HW, num_objects=num_objects)
    frames = [Frame(index, image) for index, image in enumerate(images)]
    with InteractiveSession(frames, _tracker(model), budget=Budget(feature_bytes=feature_bytes)) as session:
        seconds = []
        for given in (0, NUM_FRAMES - 1):
            for object_id in range(1, num_objects + 1):
                session.add_mask(given, object_id, labels[given] == object_id)
            begun = time.process_time()
            carried = sum(step.frame.index != step.corrected for step in session.propagate())
            seconds.append((time.process_time() - begun) / carried)
    return seconds[0], seconds[1]


def _tracker(model: str):
    """The tracker with its shipped weights; MiVOS, whose weights are not ours to ship, with random ones."""
    from rotoscope.models import registry

    if model != "mivos":
        return registry.load(model, device="cpu")
    from rotoscope.models.mivos import VARIANTS, MivosTracker, PropagationNetwork

    torch.manual_seed(0)
    network = PropagationNetwork().eval().requires_grad_(requires_grad=False)
    network.fold()
    network.tile()
    return MivosTracker(network.to(memory_format=torch.channels_last), VARIANTS["mivos"])
