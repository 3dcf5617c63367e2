"""`rotoscope evaluate coco`: average precision of detections, from two JSON files."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from rotoscope.cli.tables import print_table


def coco(
    *,
    predictions: Annotated[Path, typer.Option(help="A results file: a list of image_id, category_id, score, segmentation and/or bbox.")],
    ground_truth: Annotated[Path, typer.Option(help="An instances file: images, annotations, categories.")],
    kind: Annotated[Literal["auto", "segm", "bbox"], typer.Option(help="Masks, boxes, or all that the predictions have.")] = "auto",
    evaluator: Annotated[Literal["coco", "official"], typer.Option(help="COCO's rules, or those of the official YOLACT repository.")] = "coco",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the figures to this folder, as JSON and CSV.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of the table.")] = False,
) -> None:
    """Average precision and recall of detections on COCO or data in its format.

    AP is the mean over classes and over ten overlaps from 0.50 to 0.95, as officially; figures equal those of pycocotools.
    """
    from rotoscope.evaluation.coco import evaluate_coco, evaluate_official
    from rotoscope.evaluation.coco.files import read_ground_truth, read_predictions
    from rotoscope.evaluation.coco.report import JSON_FILE, as_dict, notes, table, write_report
    from rotoscope.evaluation.coco.shapes import kinds_in
    from rotoscope.evaluation.report import prepare_new_results

    if output is not None:
        prepare_new_results(output, JSON_FILE)
    truth = read_ground_truth(ground_truth)
    found = read_predictions(predictions, truth)
    evaluate = evaluate_coco if evaluator == "coco" else evaluate_official
    scores = [evaluate(found, truth, one) for one in (kinds_in(found) if kind == "auto" else [kind])]
    if as_json:
        typer.echo(json.dumps(as_dict(scores)))
    else:
        print_table(table(scores))
        for note in notes(scores):
            typer.echo(f"note: {note}", err=True)
    if output is not None:
        write_report(output, scores)
        typer.echo(f"wrote the figures to {output}", err=True)
