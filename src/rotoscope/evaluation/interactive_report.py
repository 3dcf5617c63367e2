"""From the rounds of interactive sessions to the curve of quality over time, its area, and files and tables that show it.

Figures follow the official summary: J and F are means over all objects of all samples, seconds are means over samples, added up over interactions.
The curve begins at 0 s with 0, ends with the mean budget, and is straight in between. AUC is the area under it as a share of the budget.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from rotoscope._files import write_atomically
from rotoscope.datasets.davis_scribbles import DavisScribbles, write_scribbles
from rotoscope.errors import InputError
from rotoscope.evaluation.davis_interactive import Round, Rules, Sample
from rotoscope.evaluation.report import csv_bytes, prepare_folder

THRESHOLD_SECONDS = 60.0
"""J&F@60s (the challenge's)."""
CSV_FILE, JSON_FILE, PLOT_FILE, SCRIBBLES_FOLDER = "rounds.csv", "summary.json", "curve.png", "Scribbles"


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality by the time that was spent: the start, a point after each interaction, and the end of the budget.

    Attributes:
        seconds: ascending, from 0.
        j: mean J, in 0..1.
        f: mean F, in 0..1.
    """

    seconds: tuple[float, ...]
    j: tuple[float, ...]
    f: tuple[float, ...]

    @property
    def j_and_f(self) -> tuple[float, ...]:
        """The mean of both."""
        return tuple((j + f) / 2 for j, f in zip(self.j, self.f, strict=True))


def curve_of(samples: Sequence[Sample], rules: Rules) -> Curve:
    """The curve of all samples together; a missing interaction counts as the last one, at no cost, and as 0 if there was none.

    Raises:
        InputError: there are no samples.
    """
    if not samples:
        message = "there are no samples to sum up"
        raise InputError(message)
    rounds = [[_round_or_last(sample, number) for sample in samples] for number in range(rules.interactions)]
    seconds = np.cumsum([0.0, *(fmean(one.seconds for one in column) for column in rounds)])
    end = max(fmean(sample.budget_seconds for sample in samples), seconds[-1])
    j, f = ([0.0, *(fmean(value for one in column for value in getattr(one, name)) for column in rounds)] for name in ("j", "f"))
    return Curve((*seconds.tolist(), float(end)), (*j, j[-1]), (*f, f[-1]))


def area(seconds: Sequence[float], values: Sequence[float]) -> float:
    """The mean of a curve over its time, by trapezoids; that of a constant is the constant.

    Raises:
        InputError: the curve takes no time, or times and values are not as many.
    """
    if len(seconds) != len(values) or len(seconds) < 2 or not seconds[-1] > seconds[0]:
        message = f"{len(seconds)} times and {len(values)} values are no curve with an area"
        raise InputError(message)
    heights = np.add(values[1:], values[:-1]) / 2
    return float(np.diff(seconds) @ heights / (seconds[-1] - seconds[0]))


def value_at(at_seconds: float, seconds: Sequence[float], values: Sequence[float]) -> float:
    """The curve at a time, on the straight line between its points; of two points at this time the later. Beyond the end the last value."""
    after = int(np.searchsorted(seconds, at_seconds, side="right"))
    if after == len(seconds):
        return float(values[-1])
    share = (at_seconds - seconds[after - 1]) / (seconds[after] - seconds[after - 1])
    return float(values[after - 1] + share * (values[after] - values[after - 1]))


def as_dict(samples: Sequence[Sample], rules: Rules) -> dict[str, Any]:
    """All figures as one JSON object: `auc` and `at_60s` with J, F and J&F, the `curve`, the `rules` and the `samples` with their rounds.

    Raises:
        InputError: there are no samples.
    """
    curve = curve_of(samples, rules)
    measures = {"j": curve.j, "f": curve.f, "j_and_f": curve.j_and_f}
    return {
        "auc": {name: area(curve.seconds, values) for name, values in measures.items()},
        f"at_{THRESHOLD_SECONDS:.0f}s": {name: value_at(THRESHOLD_SECONDS, curve.seconds, values) for name, values in measures.items()},
        "curve": {"seconds": list(curve.seconds), **{name: list(values) for name, values in measures.items()}},
        "rules": {"interactions": rules.interactions, "seconds_per_object": rules.seconds_per_object, "per_frame": rules.per_frame},
        "samples": [_sample_dict(sample) for sample in samples],
    }


def table(samples: Sequence[Sample], rules: Rules) -> Table:
    """The curve as a table, a line per interaction, and below it the two figures that methods are ranked by.

    Raises:
        InputError: there are no samples.
    """
    curve = curve_of(samples, rules)
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for heading in ("interaction", "seconds", "J&F", "J", "F"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for number in range(1, rules.interactions + 1):
        values = (series[number] for series in (curve.j_and_f, curve.j, curve.f))
        shown.add_row(str(number), f"{curve.seconds[number]:.1f}", *(f"{value:.3f}" for value in values))
    shown.add_section()
    figures = [curve.j_and_f, curve.j, curve.f]
    shown.add_row("AUC", f"{curve.seconds[-1]:.1f}", *(f"{area(curve.seconds, values):.3f}" for values in figures), style="bold")
    at = THRESHOLD_SECONDS
    shown.add_row(f"at {at:.0f} s", f"{at:.1f}", *(f"{value_at(at, curve.seconds, values):.3f}" for values in figures), style="bold")
    return shown


def notes(samples: Sequence[Sample]) -> list[str]:
    """What is to be said beside the figures, in words."""
    late = [f"{sample.clip}/{sample.start}" for sample in samples if sample.timed_out]
    return [f"time ran out for {', '.join(late)}; the rounds that are missing count as the last one that ended in time"] if late else []


def write_report(folder: Path, samples: Sequence[Sample], rules: Rules) -> list[Path]:
    """Write the figures (`summary.json`), a line per round and object (`rounds.csv`), and what was drawn (`Scribbles/CLIP/START.json`); the paths.

    Raises:
        InputError: there are no samples.
        OutputError: a file cannot be written.
    """
    prepare_folder(folder)
    lines: list[Sequence[object]] = [("clip", "start", "interaction", "object", "frames", "seconds", "j", "f", "j_and_f")]
    for sample in samples:
        for number, one in enumerate(sample.rounds, start=1):
            frames = " ".join(map(str, one.frames))
            for object_id, j, f in zip(sample.object_ids, one.j, one.f, strict=True):
                lines.append((sample.clip, sample.start, number, object_id, frames, one.seconds, j, f, (j + f) / 2))
    write_atomically(folder / CSV_FILE, csv_bytes(lines))
    write_atomically(folder / JSON_FILE, json.dumps(as_dict(samples, rules), indent=1).encode("utf-8"))
    return [folder / JSON_FILE, folder / CSV_FILE, *(_write_drawn(folder, sample) for sample in samples)]


def write_plot(folder: Path, samples: Sequence[Sample], rules: Rules) -> Path:
    """Write the picture of the curve, `curve.png`; its path.

    Raises:
        InputError: there are no samples.
        OutputError: it cannot be written.
    """
    prepare_folder(folder)
    write_atomically(folder / PLOT_FILE, plot_png(curve_of(samples, rules)))
    return folder / PLOT_FILE


def plot_png(curve: Curve) -> bytes:
    """J, F and J&F over the seconds, as PNG bytes; nothing of it stays in pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, values, width in (("J&F", curve.j_and_f, 2.0), ("J", curve.j, 1.0), ("F", curve.f, 1.0)):
        axes.plot(curve.seconds, values, marker=".", linewidth=width, label=f"{label} (AUC {area(curve.seconds, values):.3f})")
    at = value_at(THRESHOLD_SECONDS, curve.seconds, curve.j_and_f)
    axes.axvline(THRESHOLD_SECONDS, color="0.6", linewidth=1, linestyle="--")
    axes.set(xlabel="seconds", ylabel="mean over objects", ylim=(-0.02, 1.02), xlim=(0, curve.seconds[-1]))
    axes.set_title(f"AUC-J&F {area(curve.seconds, curve.j_and_f):.3f}, J&F@{THRESHOLD_SECONDS:.0f}s {at:.3f}", parse_math=False)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def _round_or_last(sample: Sample, number: int) -> Round:
    if number < len(sample.rounds):
        return sample.rounds[number]
    nothing = (0.0,) * len(sample.object_ids)
    last = sample.rounds[-1] if sample.rounds else Round((), (), 0.0, nothing, nothing)
    return Round((), (), 0.0, last.j, last.f)


def _sample_dict(sample: Sample) -> dict[str, Any]:
    return {
        "clip": sample.clip,
        "start": sample.start,
        "object_ids": list(sample.object_ids),
        "budget_seconds": sample.budget_seconds,
        "timed_out": sample.timed_out,
        "rounds": [
            {"frames": list(one.frames), "lines": len(one.lines), "seconds": one.seconds, "j": list(one.j), "f": list(one.f)} for one in sample.rounds
        ],
    }


def _write_drawn(folder: Path, sample: Sample) -> Path:
    path = folder / SCRIBBLES_FOLDER / sample.clip / f"{sample.start}.json"
    prepare_folder(path.parent)
    write_scribbles(path, DavisScribbles(sample.clip, tuple(line for one in sample.rounds for line in one.lines)), sample.num_frames)
    return path
