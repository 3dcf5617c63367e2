"""`rotoscope detect`: images and videos in, the objects in them out."""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rotoscope.cli.options import existing_of, takes, video_or_camera
from rotoscope.cli.progress import progress_bar, stop_on_interrupt
from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.jobs.detect_work import DetectRequest, DetectRun, PictureReport

INTERRUPTED, SOME_UNREADABLE = 130, 2
_MOST_NAMED = 3  # unreadable images that are named on the screen; the summary lists all


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectOptions:
    """What was typed; each field is an option."""

    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Images, folders of images, videos; a stream URL, or a camera number.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the results.")] = Path("detections")
    model: Annotated[str, typer.Option(help="A model of `rotoscope weights list` that detects.")] = "yolact-lite"
    weights: Annotated[Path | None, typer.Option(help="A weights file; by default what ships or was imported.")] = None
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change the model's settings: FIELD=VALUE. Repeatable.")] = None
    score: Annotated[float, typer.Option(help="The least score, 0 to 1; for AP curves, 0.")] = 0.15
    top_k: Annotated[int, typer.Option(help="Keep the best so many of an image; for AP, 100.")] = 15
    classes: Annotated[str | None, typer.Option(help="Only these classes: person,dog.")] = None
    batch: Annotated[int, typer.Option(help="So many images through the model together.")] = 1
    max_frames: Annotated[int | None, typer.Option(help="Only the first so many frames of a video; needed for live streams.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    ground_truth: Annotated[
        Path | None, typer.Option(help="A COCO file: take the ids of images (by name) and classes from it; its images alone.")
    ] = None
    instances: Annotated[bool, typer.Option("--instances", help="Write a mask for each object: instances/NAME/00_person_0.87.png.")] = False
    cutouts: Annotated[bool, typer.Option("--cutouts", help="Write each object as a picture with transparency.")] = False
    overlay: Annotated[Literal["vp9", "h264"], typer.Option(help="The codec of the overlays of videos.")] = "vp9"
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Draw nothing.")] = False
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image on stdout, then the summary.")] = False


@takes(DetectOptions)
def detect(options: DetectOptions, _: typer.Context) -> int:
    """Find the objects in images and videos: OUTPUT gets detections.json (COCO results), images.json, overlay/ and summary.json.

    Images that cannot be read are passed over and counted; the exit code is then 2.
    """
    from rotoscope.jobs.detect_work import DetectRun

    run = DetectRun(_request(options))
    if not options.as_json:
        for note in run.notes:
            typer.echo(f"note: {note}", err=True)
    interrupted = _work(run, as_json=options.as_json)
    _report(run.summary, options.output, as_json=options.as_json)
    if interrupted:
        typer.echo(f"stopped; what is done is in {options.output}. Go on with the same command and --resume", err=True)
        return INTERRUPTED
    return SOME_UNREADABLE if run.summary["skipped"] else 0


def _request(options: DetectOptions) -> "DetectRequest":
    """What is to be done.

    Raises:
        InputError: options that exclude each other, or a setting that the model does not have.
    """
    existing = existing_of(resume=options.resume, overwrite=options.overwrite)
    from rotoscope.jobs.detect_work import DetectRequest
    from rotoscope.jobs.detect_writers import Wanted

    return DetectRequest(
        inputs=tuple(video_or_camera(one) for one in options.inputs),
        output=options.output,
        model=options.model,
        weights=options.weights,
        device=options.device,
        score=options.score,
        top_k=options.top_k,
        classes=None if options.classes is None else tuple(name.strip() for name in options.classes.split(",")),
        batch=options.batch,
        max_frames=options.max_frames,
        wanted=Wanted("none" if options.no_overlay else options.overlay, instances=options.instances, cutouts=options.cutouts),
        ground_truth=options.ground_truth,
        existing=existing,
        settings=parse_settings(options.model, options.settings or []),
    )


def parse_settings(model: str, values: Sequence[str]) -> dict[str, object]:
    """Settings of a model from FIELD=VALUE, each read as the type of its field.

    Raises:
        InputError: no such model or field, or a value of another type.
    """
    if not values:
        return {}
    from dataclasses import fields
    from typing import get_type_hints

    from rotoscope.models import registry
    from rotoscope.training.recipes import parsed

    spec = registry.spec_of(model)
    config = registry.module_of(spec).VARIANTS[spec.name]
    kinds, names = get_type_hints(type(config)), [entry.name for entry in fields(config)]
    settings: dict[str, object] = {}
    for value in values:
        name, is_pair, text = value.partition("=")
        if not is_pair or name not in names:
            message = f"'{value}' sets nothing of '{spec.name}'; write FIELD=VALUE with one of {', '.join(names)}"
            raise InputError(message)
        try:
            settings[name] = parsed(text, kinds[name])
        except ValueError as error:
            message = f"'{value}' is no value of {name}, which is {getattr(config, name)!r} unless set"
            raise InputError(message) from error
    return settings


def _work(run: "DetectRun", *, as_json: bool) -> bool:
    """Do the run, showing how it goes; whether it was interrupted."""
    with stop_on_interrupt() as caught, progress_bar() as progress, closing(run.reports()) as reports:
        task = progress.add_task("detecting", total=run.total_pictures)
        for report in reports:
            progress.advance(task)
            if as_json:
                typer.echo(json.dumps(_line(report)))
            if caught:
                return True
    return False


def _line(report: "PictureReport") -> dict[str, Any]:
    if report.skipped is not None:
        return {**report.image, "skipped": report.skipped}
    return {**report.image, "detections": report.detections}


def _report(summary: Mapping[str, Any], output: Path, *, as_json: bool) -> None:
    skipped = [one["file_name"] for one in summary["skipped"]]
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for warning in summary["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    if skipped:
        named = ", ".join(skipped[:_MOST_NAMED]) + (", ..." if len(skipped) > _MOST_NAMED else "")
        typer.echo(
            f"warning: {len(skipped)} of {summary['num_images'] + len(skipped)} images could not be read: {named}; summary.json says why", err=True
        )
    counts = ", ".join(f"{count} {name}" for name, count in summary["classes"].items())
    typer.echo(f"{summary['num_detections']} objects in {summary['num_images']} images{': ' if counts else ''}{counts}")
    speeds = f"{summary['fps']:.1f} images/s, {summary['network_fps']:.1f} in the network alone" if summary["num_images"] else "nothing was looked at"
    typer.echo(f"{speeds}, with {summary['model']}; detections.json and the rest are in {output}")
