"""How time and memory grow with the number of frames and of objects: synthetic clips at 480p through the default tracker."""

import multiprocessing as mp
import time
from collections.abc import Iterator

import torch

from bench.tables import peak_megabytes, show

HW = (480, 854)
CASES = ((50, 1), (500, 1), (50, 5))


def main() -> None:
    """Print the table."""
    rows = []
    base: float | None = None
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for frames, objects in CASES:
            seconds, late, peak = pool.apply(measure, (frames, objects))
            base = base or seconds
            rows.append((frames, objects, seconds, late, seconds / base, f"{peak:.0f}"))
    header = ("frames", "objects", "seconds per frame", "in the last tenth", "ratio to the first row", "peak, MB")
    show("Growth with frames and objects, 854x480, two threads", header, rows)


def measure(num_frames: int, num_objects: int) -> tuple[float, float, float]:
    """Seconds per frame, the same over the last tenth of the clip, and the peak in MB."""
    import rotoscope
    from rotoscope.testing import moving_shapes
    from rotoscope.tracking.propagate import propagate
    from rotoscope.types import Frame, Masks

    torch.set_num_threads(2)
    images, labels = moving_shapes(num_frames=10, hw=HW, num_objects=num_objects)
    there_and_back = [*range(10), *range(8, 0, -1)]

    def frames() -> Iterator[Frame]:
        for index in range(num_frames):
            yield Frame(index, images[there_and_back[index % len(there_and_back)]])

    tracker = rotoscope.load()
    times = [time.perf_counter()]
    for _ in propagate(frames(), tracker.start(), {0: Masks.from_labels(labels[0])}):
        times.append(time.perf_counter())
    last = max(1, num_frames // 10)
    return (times[-1] - times[0]) / num_frames, (times[-1] - times[-1 - last]) / last, peak_megabytes()
