"""What a memory budget costs in J and F: deaot-lite on the open clips, every fifth frame kept, with and without a limit.

`python -m bench budget`; it takes some minutes for each row, and is not among the benchmarks that run by default.
"""

import tempfile
import time
from pathlib import Path

import torch

from bench.tables import DATA, show
from rotoscope.types import Propagator, Tracker

MEGABYTES = (None, 16, 8)
"""A kept frame takes 2.6 MB; the frame before counts too. 16 MB hold five kept frames, 8 MB two."""
GAP = 5


class Budgeted:
    """A tracker whose passes have a budget."""

    def __init__(self, tracker: Tracker, megabytes: int | None) -> None:
        self.tracker = tracker
        self.max_bytes = None if megabytes is None else megabytes * 2**20

    def start(self, *, max_memory_bytes: int | None = None) -> Propagator:
        """A pass within the budget."""
        return self.tracker.start(max_memory_bytes=max_memory_bytes or self.max_bytes)


def main() -> None:
    """Print the table."""
    import rotoscope
    from rotoscope.datasets.davis import read_davis
    from rotoscope.evaluation.davis import find_predictions, mean_scores, score_clips
    from rotoscope.evaluation.run import track_clips

    if not DATA.is_dir():
        print("budget: skipped, the open clips of ../shared/data are not beside this checkout\n")
        return
    torch.set_num_threads(1)
    clips = [*read_davis(DATA / "davis2016-open", with_frames=True), *read_davis(DATA / "multi-open", with_frames=True)]
    rows = []
    for gap, megabytes in ((None, None), *((GAP, one) for one in MEGABYTES)):
        tracker = Budgeted(rotoscope.load("deaot-lite", long_term_gap=gap, long_term_frames=None), megabytes)
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            frames = sum(1 for _ in track_clips(clips, tracker, Path(folder)))
            seconds = (time.process_time() - start) / frames
            scores = mean_scores([one for clip in score_clips(find_predictions(clips, Path(folder))) for one in clip.objects])
        kept = "the given one" if gap is None else f"every {gap}th frame"
        rows.append((kept, "none" if megabytes is None else f"{megabytes} MB", scores.j.mean, scores.f.mean, scores.j_and_f, seconds))
        print(rows[-1], flush=True)
    show("deaot-lite on the ten open clips and longboard", ("kept for long", "budget", "J", "F", "J&F", "CPU s per frame"), rows)
