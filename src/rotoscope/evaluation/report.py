"""Scores as a table, as JSON, as CSV, and as plots over the frames."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from rotoscope._files import output_error, write_atomically
from rotoscope.errors import InputError, OutputError
from rotoscope.evaluation.davis import ClipScores, MeanScores, ObjectScores, mean_scores

MOST_LEGEND_ENTRIES = 12
_FIGURES = ("j_and_f", "j", "j_recall", "j_decay", "f", "f_recall", "f_decay")
_HEADINGS = ("J&F", "J", "recall", "decay", "F", "recall", "decay")


def as_dict(clips: Sequence[ClipScores], *, fps: float | None = None) -> dict[str, Any]:
    """The scores as one JSON object, all figures in 0..1 (decay in -1..1).

    `j_and_f`, `j`, `f` and their recall and decay are means over all objects; `clips` maps a name to the same figures for the clip, with the names of
    its `frames` and its `objects` by id, each with its `j_per_frame` and `f_per_frame` (null where there was no prediction). `fps` is null unless a
    model was run.

    Raises:
        InputError: there are no clips.
    """
    return {
        **_figures(mean_scores(_all_objects(clips))),
        "clips": {clip.name: _clip_dict(clip) for clip in clips},
        "fps": fps,
        "notes": [note for clip in clips for note in clip.notes],
    }


def table(clips: Sequence[ClipScores]) -> Table:
    """The scores as a table: a line per object, a line per clip that has several, and the mean over all objects.

    Raises:
        InputError: there are no clips.
    """
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)  # fits a terminal of 80 columns: figures are never cut, names are folded
    shown.add_column("clip", overflow="fold")
    shown.add_column("object", no_wrap=True)
    for heading in _HEADINGS:
        shown.add_column(heading, justify="right", no_wrap=True)
    for clip in clips:
        for scores in clip.objects:
            shown.add_row(*_row(clip.name, str(scores.object_id), mean_scores([scores])))
        if len(clip.objects) > 1:
            shown.add_row(*_row(clip.name, "mean", mean_scores(clip.objects)), style="italic")
    shown.add_section()
    shown.add_row(*_row("all", "mean", mean_scores(_all_objects(clips))), style="bold")
    return shown


def write_csv(path: Path, clips: Sequence[ClipScores]) -> tuple[Path, Path]:
    """Write the figures per object, clip and set to `path`, and J and F per frame beside it in `NAME-frames.csv`; the two paths.

    In the first file the clip's mean has the object "mean", and the mean over all objects has the clip "all".

    Raises:
        InputError: there are no clips.
        OutputError: a file cannot be written.
    """
    lines: list[Sequence[object]] = [("clip", "object", *_FIGURES)]
    frame_lines: list[Sequence[object]] = [("clip", "object", "frame", "j", "f")]
    for clip in clips:
        for scores in clip.objects:
            lines.append((clip.name, scores.object_id, *_figures(mean_scores([scores])).values()))
            values = zip(clip.frame_names, scores.j.per_frame, scores.f.per_frame, strict=True)
            frame_lines += [(clip.name, scores.object_id, *value) for value in values]
        lines.append((clip.name, "mean", *_figures(mean_scores(clip.objects)).values()))
    lines.append(("all", "mean", *_figures(mean_scores(_all_objects(clips))).values()))
    frames_path = path.with_name(f"{path.stem}-frames{path.suffix or '.csv'}")
    prepare_folder(path.parent)
    write_atomically(path, csv_bytes(lines))
    write_atomically(frames_path, csv_bytes(frame_lines))
    return path, frames_path


def write_plots(folder: Path, clips: Sequence[ClipScores]) -> list[Path]:
    """Write `CLIP.png` for each clip, J above F over the frames, a line per object; the paths.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    prepare_folder(folder)
    paths = [folder / f"{clip.name}.png" for clip in clips]
    for path, clip in zip(paths, clips, strict=True):
        write_atomically(path, plot_png(clip))
    return paths


def plot_png(clip: ClipScores) -> bytes:
    """The plot of one clip as PNG bytes; nothing of it stays in pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    means = mean_scores(clip.objects)
    for axes, measure in zip(figure.subplots(2, 1, sharex=True, sharey=True), ("J", "F"), strict=True):
        for scores in clip.objects:
            series = scores.j if measure == "J" else scores.f
            values = [float("nan") if value is None else value for value in series.per_frame]
            axes.plot(values, marker=".", markersize=3, linewidth=1, label=f"object {scores.object_id}")
        mean = means.j.mean if measure == "J" else means.f.mean
        axes.axhline(mean, color="0.6", linewidth=1, linestyle="--")
        axes.set(ylabel=f"{measure} (mean {mean:.3f})", ylim=(-0.02, 1.02), xlim=(0, len(clip.frame_names) - 1))
        axes.grid(visible=True, alpha=0.3)
    axes.set_xlabel("frame (the first and the last are not scored)")
    if 1 < len(clip.objects) <= MOST_LEGEND_ENTRIES:
        figure.legend(*axes.get_legend_handles_labels(), fontsize="small", ncols=6, loc="outside lower center")
    figure.suptitle(f"{clip.name}: J&F {means.j_and_f:.3f}", parse_math=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def csv_bytes(lines: Sequence[Sequence[object]]) -> bytes:
    """Lines of values as a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode("utf-8")


def prepare_folder(folder: Path) -> None:
    """Make a folder for results, with its parents, unless it is there.

    Raises:
        OutputError: it cannot be made, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        message = f"{folder} cannot be a folder for results: it, or a part of its path, is a file; choose another"
        raise OutputError(message) from error
    except OSError as error:
        raise output_error(folder, error) from error


def prepare_new_results(folder: Path, file: str) -> None:
    """Make a folder for results, unless it is there, before any work is done.

    Raises:
        InputError: it holds results already, of which this file is one.
        OutputError: it cannot be made, or is a file.
    """
    if (folder / file).exists():
        message = f"{folder} holds results already ({file}); choose another folder"
        raise InputError(message)
    prepare_folder(folder)


def _all_objects(clips: Sequence[ClipScores]) -> list[ObjectScores]:
    return [scores for clip in clips for scores in clip.objects]


def _clip_dict(clip: ClipScores) -> dict[str, Any]:
    objects = {
        str(scores.object_id): {
            **_figures(mean_scores([scores])),
            "j_per_frame": list(scores.j.per_frame),
            "f_per_frame": list(scores.f.per_frame),
        }
        for scores in clip.objects
    }
    return {**_figures(mean_scores(clip.objects)), "frames": list(clip.frame_names), "objects": objects}


def _figures(scores: MeanScores) -> dict[str, float]:
    j, f = scores.j, scores.f
    return dict(zip(_FIGURES, (scores.j_and_f, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay), strict=True))


def _row(clip: str, object_name: str, scores: MeanScores) -> list[str | Text]:
    return [Text(clip), object_name, *(f"{value:.3f}" for value in _figures(scores).values())]
