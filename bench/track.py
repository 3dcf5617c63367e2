"""Where the time of `rotoscope track` goes, on an open clip at 480p: decode, features, memory read, masks, write."""

import multiprocessing as mp
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch

from bench.tables import DATA, peak_megabytes, show

CLIP, NUM_FRAMES = "blackswan", 50


def main() -> None:
    """Print the table."""
    if not DATA.is_dir():
        print("track: skipped, the open clips of ../shared/data are not beside this checkout\n")
        return
    rows = []
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for threads in (2, 1):
            parts, wall, peak = pool.apply(measure, (threads,))
            rows.append((threads, *(parts[name] for name in PARTS), wall, 1 / wall, f"{peak:.0f}"))
    show(f"{CLIP}, 854x480, {NUM_FRAMES} frames, one object, seconds per frame", ("threads", *PARTS, "end to end", "frames/s", "peak, MB"), rows)


PARTS = ("decode*", "features", "memory read", "masks", "remember", "write*")
"""Those with a star run in threads of their own, beside the others."""


def measure(threads: int) -> tuple[dict[str, float], float, float]:
    """Seconds per frame of each part and of the whole, and the peak in MB."""
    from rotoscope.jobs import track as streaming
    from rotoscope.jobs import work
    from rotoscope.models.mast_lite import propagator
    from rotoscope.ops.window_read import WindowRead

    torch.set_num_threads(threads)
    spent: dict[str, float] = defaultdict(float)
    state = propagator.MastLitePropagator
    timed(propagator, "extract", spent, "features")
    timed(WindowRead, "__call__", spent, "memory read")
    for name in ("_with_looks", "_without_strays", "_follow_edges"):
        timed(state, name, spent, "masks")
    timed(state, "remember", spent, "remember")
    timed(work, "write_labels", spent, "write*")
    timed(work, "_draw_on", spent, "write*")
    plain: Callable[..., Any] = streaming.prefetch
    streaming.prefetch = lambda frames, depth: plain(decoding(frames, spent), depth)
    root = DATA / "davis2016-open"
    with tempfile.TemporaryDirectory() as folder:
        mask = root / "Annotations" / "480p" / CLIP / "00000.png"
        request = work.TrackRequest(str(root / "JPEGImages" / "480p" / CLIP), {0: mask}, Path(folder) / "out", stop_frame=NUM_FRAMES)
        run = work.TrackRun(request)
        begun = time.perf_counter()
        frames = sum(1 for _ in run.records())
        wall = time.perf_counter() - begun
    return {name: spent[name] / frames for name in PARTS}, wall / frames, peak_megabytes()


def timed(owner: object, name: str, spent: dict[str, float], part: str) -> None:
    """Replace a function by itself with a stopwatch."""
    plain = getattr(owner, name)

    def wrapped(*arguments: object, **named: object) -> object:
        begun = time.perf_counter()
        try:
            return plain(*arguments, **named)
        finally:
            spent[part] += time.perf_counter() - begun

    setattr(owner, name, wrapped)


def decoding(frames: Generator[Any], spent: dict[str, float]) -> Generator[Any]:
    """The same frames, with the time it takes to make them."""
    while True:
        begun = time.perf_counter()
        frame = next(frames, None)
        spent["decode*"] += time.perf_counter() - begun
        if frame is None:
            return
        yield frame
