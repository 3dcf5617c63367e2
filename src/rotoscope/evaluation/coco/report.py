"""COCO's figures as a table, as JSON and as CSV."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from rotoscope._files import write_atomically
from rotoscope.evaluation.coco.average_precision import MOST_DETECTIONS, OVERLAPS, SIZES, CocoScores
from rotoscope.evaluation.report import csv_bytes, prepare_folder

JSON_FILE, CSV_FILE = "summary.json", "scores.csv"
_KIND_NAMES = {"segm": "masks", "bbox": "boxes"}


class _Row(NamedTuple):
    """A line of the table: what the figures are of, how many objects, and AP and AR for each of the scores."""

    group: str
    name: str
    num_objects: int | None
    figures: list[tuple[float | None, float | None]]


def as_dict(scores: Sequence[CocoScores]) -> dict[str, Any]:
    """The figures as one JSON object, by kind ("segm", "bbox"), all in 0..1; null where there is no object to find.

    Each has `ap`, `ap50`, `ap75`, `ap_by_overlap`, `categories` by id and, from COCO's evaluator, `ap_by_size`, `ar_by_count`, `ar_by_size` and
    `stats`, which are COCO's twelve figures in its order.
    """
    return {"evaluator": scores[0].evaluator, **{one.kind: _kind_dict(one) for one in scores}, "notes": notes(scores)}


def notes(scores: Sequence[CocoScores]) -> list[str]:
    """What is to be said beside the figures, each once."""
    return list(dict.fromkeys(note for one in scores for note in one.notes))


def table(scores: Sequence[CocoScores]) -> Table:
    """The figures as a table: a line per overlap, per size, per number of detections and per class; classes without objects are left out."""
    has_recall = scores[0].evaluator == "coco"
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    shown.add_column("", overflow="fold")
    shown.add_column("objects", justify="right", no_wrap=True)
    for one in scores:
        for measure in ("AP", "AR") if has_recall else ("AP",):
            shown.add_column(f"{_KIND_NAMES[one.kind]} {measure}", justify="right", no_wrap=True)
    group = None
    for row in _rows(scores):
        if group not in (None, row.group):
            shown.add_section()
        group = row.group
        figures = [figure for pair in row.figures for figure in (pair if has_recall else pair[:1])]
        if row.num_objects != 0:
            count = "" if row.num_objects is None else str(row.num_objects)
            shown.add_row(Text(row.name), count, *map(_shown, figures), style="bold" if row.group == "mean" else None)
    return shown


def write_report(folder: Path, scores: Sequence[CocoScores]) -> list[Path]:
    """Write all figures (`summary.json`) and the lines of the table (`scores.csv`); the paths.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    prepare_folder(folder)
    lines: list[Sequence[object]] = [("evaluator", "kind", "group", "name", "objects", "ap", "ar")]
    for one in scores:
        lines += [(one.evaluator, one.kind, row.group, row.name, row.num_objects, *row.figures[0]) for row in _rows([one])]
    write_atomically(folder / CSV_FILE, csv_bytes(lines))
    write_atomically(folder / JSON_FILE, json.dumps(as_dict(scores), indent=1).encode("utf-8"))
    return [folder / JSON_FILE, folder / CSV_FILE]


def _rows(scores: Sequence[CocoScores]) -> Iterator[_Row]:
    total = sum(category.num_objects for category in scores[0].categories)
    yield _Row("mean", "IoU 0.50:0.95", total, [(one.ap, one.ar_by_count.get(MOST_DETECTIONS[-1])) for one in scores])
    for index, overlap in enumerate(OVERLAPS):
        yield _Row("overlap", f"IoU {overlap:.2f}", None, [(one.ap_by_overlap[index], None) for one in scores])
    if scores[0].evaluator == "coco":
        for size in SIZES:
            yield _Row("size", size, None, [(one.ap_by_size[size], one.ar_by_size[size]) for one in scores])
        for count in MOST_DETECTIONS:
            yield _Row("count", f"best {count} per class", None, [(None, one.ar_by_count[count]) for one in scores])
    for index, category in enumerate(scores[0].categories):
        of_each = [one.categories[index] for one in scores]
        yield _Row("category", category.name, category.num_objects, [(one.ap, one.ar) for one in of_each])


def _kind_dict(scores: CocoScores) -> dict[str, Any]:
    by_overlap = {f"{overlap:.2f}": value for overlap, value in zip(OVERLAPS, scores.ap_by_overlap, strict=True)}
    categories = {
        str(one.category_id): {"name": one.name, "objects": one.num_objects, "ap": one.ap, "ap50": one.ap50, "ap75": one.ap75, "ar": one.ar}
        for one in scores.categories
    }
    figures = {"ap": scores.ap, "ap50": by_overlap["0.50"], "ap75": by_overlap["0.75"], "ap_by_overlap": by_overlap}
    counts = {"images": scores.num_images, "predictions": scores.num_predictions}
    if scores.evaluator == "official":
        return {**figures, "categories": categories, **counts}
    recall = {"ar_by_count": {str(count): value for count, value in scores.ar_by_count.items()}, "ar_by_size": dict(scores.ar_by_size)}
    return {**figures, "ap_by_size": dict(scores.ap_by_size), **recall, "stats": list(scores.stats), "categories": categories, **counts}


def _shown(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.3f}"
