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

CASES = (("blackswan", "davis2016-open", 50), ("longboard", "multi-open", 50))
"""Clips of one object and of five: name, folder, frames."""
MODELS = ("deaot-lite", "mast-lite")
PARTS = ("decode*", "picture", "memory read", "masks", "outlines", "remember", "write*")
"""Those with a star run in threads of their own, beside the others."""


def main() -> None:
    """Print a table for each model that ships."""
    if not DATA.is_dir():
        print("track: skipped, the open clips of ../shared/data are not beside this checkout\n")
        return
    for model in MODELS:
        rows = []
        with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for case in CASES:
                for threads in (2, 1):
                    parts, wall, peak = pool.apply(measure, (model, case, threads))
                    rows.append((case[0], threads, *(parts[name] for name in PARTS), wall, 1 / wall, f"{peak:.0f}"))
        show(f"{model}, 854x480, seconds per frame", ("clip", "threads", *PARTS, "end to end", "frames/s", "peak, MB"), rows)


def measure(model: str, case: tuple[str, str, int], threads: int) -> tuple[dict[str, float], float, float]:
    """Seconds per frame of each part and of the whole, and the peak in MB."""
    from rotoscope.jobs import track as streaming
    from rotoscope.jobs import work

    torch.set_num_threads(threads)
    spent: dict[str, float] = defaultdict(float)
    for owner, name, part in stopwatches(model):
        timed(owner, name, spent, part)
    timed(work, "write_labels", spent, "write*")
    timed(work, "_draw_on", spent, "write*")
    plain: Callable[..., Any] = streaming.prefetch
    streaming.prefetch = lambda frames, depth: plain(decoding(frames, spent), depth)
    clip, folder, num_frames = case
    pictures, masks = (next((DATA / folder).rglob(f"{part}/**/{clip}")) for part in ("JPEGImages", "Annotations"))
    with tempfile.TemporaryDirectory() as out:
        request = work.TrackRequest(str(pictures), {0: masks / "00000.png"}, Path(out) / "out", stop_frame=num_frames, model=model)
        run = work.TrackRun(request)
        begun = time.perf_counter()
        frames = sum(1 for _ in run.records())
        wall = time.perf_counter() - begun
    return {name: spent[name] / frames for name in PARTS}, wall / frames, peak_megabytes()


def stopwatches(model: str) -> list[tuple[object, str, str]]:
    """What is timed: the owner of a function, its name, and the part that it is of."""
    if model == "mast-lite":
        from rotoscope.models.mast_lite import propagator
        from rotoscope.ops.window_read import WindowRead

        state = propagator.MastLitePropagator
        masks = [(state, "_with_looks", "masks"), (propagator, "without_strays", "masks")]
        return [(propagator, "extract", "picture"), (WindowRead, "__call__", "memory read"), *masks, (propagator, "follow_edges", "outlines"),
                (state, "remember", "remember")]  # fmt: skip
    from rotoscope.models.aot import AotNetwork, AotPropagator
    from rotoscope.models.aot import propagator as aot

    masks = [(AotPropagator, "_upsampled", "masks"), (AotPropagator, "_with_looks", "masks"), (aot, "without_strays", "masks")]
    return [(AotPropagator, "_seen", "picture"), (AotNetwork, "match", "memory read"), *masks, (AotPropagator, "_on_edges", "outlines"),
            (AotPropagator, "remember", "remember")]  # fmt: skip


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
