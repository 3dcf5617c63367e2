"""`rotoscope correct`: masks corrected step by step, in a project that keeps every step."""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rotoscope.cli.corrections import chosen_one, corrections_of, drawn_in
from rotoscope.cli.marks import ARGUMENTS
from rotoscope.cli.progress import progress_bar, stop_on_interrupt
from rotoscope.cli.track import INTERRUPTED, chosen_settings, parse_bytes

if TYPE_CHECKING:
    from rich.progress import TaskID

    from rotoscope.jobs.correct import CorrectRun


def correct(
    project: Annotated[Path, typer.Argument(help="The folder that keeps the work; it is begun if there is none.")],
    context: typer.Context,
    *,
    clip: Annotated[str | None, typer.Option(help="A video file or a folder of images; the project knows it from then on.")] = None,
    origin: Annotated[Path | None, typer.Option("--from", help="Begin with the masks that `rotoscope track` wrote to this folder.")] = None,
    click: Annotated[list[str] | None, typer.Option("--click", help="x,y is on the object; x,y,0 is off it. In pixels; repeatable.")] = None,
    box: Annotated[list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 around the object, in pixels. Repeatable.")] = None,
    scribbles: Annotated[
        list[str] | None, typer.Option("--scribbles", help="Lines on and off objects: a JSON file of DAVIS interactive. Repeatable.")
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option("--mask", help="A painted mask: FILE, FRAME=FILE, or a folder. With --object, of that one. Repeatable.")
    ] = None,
    brush: Annotated[list[str] | None, typer.Option("--brush", help="x,y or x0,y0,x1,y1,...: paint along it. Repeatable.")] = None,
    erase: Annotated[
        list[str] | None, typer.Option("--erase", help="The same, to take from the object; all: it is out of sight on the frame. Repeatable.")
    ] = None,
    object_id: Annotated[list[str] | None, typer.Option("--object", help="Which object the marks after it are for; 1 unless stated.")] = None,
    frame: Annotated[list[str] | None, typer.Option("--frame", help="Which frame they are on; 0 unless stated.")] = None,
    radius: Annotated[list[str] | None, typer.Option("--radius", help="Of --brush and --erase after it, in pixels; 8 unless stated.")] = None,
    region: Annotated[
        list[str] | None, typer.Option("--region", help="x0,y0,x1,y1: marks and masks after it change nothing outside; none ends it.")
    ] = None,
    no_propagate: Annotated[bool, typer.Option("--no-propagate", help="Leave the other frames as they are, for now.")] = False,
    undo: Annotated[int | None, typer.Option("--undo", min=1, metavar="[N]", help="Take the last N steps back; one unless stated.")] = None,
    redo: Annotated[int | None, typer.Option("--redo", min=1, metavar="[N]", help="Do again the last N that were undone.")] = None,
    rename: Annotated[list[str] | None, typer.Option("--rename", help="ID=NAME, such as 1=dancer. Repeatable.")] = None,
    remove_object: Annotated[list[int] | None, typer.Option("--remove-object", min=1, help="Take this object out of all frames. Repeatable.")] = None,
    suggest: Annotated[int | None, typer.Option(min=1, help="Name so many frames that are most worth a look.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show objects, frames given and pending, and all steps.")] = False,
    export: Annotated[Path | None, typer.Option("--export", help="Write the masks as they are to this folder.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write them there after the work.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in that folder.")] = False,
    overlay: Annotated[Literal["vp9", "h264", "none"], typer.Option(help="The codec of the overlay video.")] = "vp9",
    resize_mask: Annotated[bool, typer.Option("--resize-mask", help="Accept masks of another size than the clip.")] = False,
    interaction_model: Annotated[str, typer.Option(help="The model that makes masks of clicks, boxes and lines.")] = "s2m-lite",
    interaction_weights: Annotated[Path | None, typer.Option(help="Its weights file; by default what ships or was imported.")] = None,
    model: Annotated[str, typer.Option(help="The tracker of `rotoscope weights list` that carries masks on.")] = "default",
    weights: Annotated[Path | None, typer.Option(help="A weights file; by default what ships or was imported.")] = None,
    fuser: Annotated[str, typer.Option(help="Joins earlier and newer masks: a model, or blend (by nearness).")] = "blend",
    fuser_weights: Annotated[Path | None, typer.Option(help="A weights file of it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Arithmetic of AOT and DeAOT.")] = "float32",
    long_edge: Annotated[int | None, typer.Option(help="Shrink frames until neither side is longer, for AOT and DeAOT.")] = None,
    scales: Annotated[str | None, typer.Option(help="Sizes at which RGMP sees each frame: 0.5,0.75,1 unless stated; 1 alone is fast.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="The budget for remembered frames, such as 512MB.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per step on stdout, then the state of the project.")] = False,
) -> int:
    """Correct masks: mark, paint or erase on any frame, and the change is carried on to the others. PROJECT keeps every step, for --undo.

    Without marks it goes on with what is pending.
    """
    del click, box, scribbles, mask, brush, erase, object_id, frame, radius, region  # they are read in their order
    from rotoscope.jobs.correct import CorrectRequest, CorrectRun, ModelChoice
    from rotoscope.jobs.project.export import OutputRequest

    marks = drawn_in(context.meta[ARGUMENTS])
    works = bool(marks or origin)
    action = chosen_one(marks=works, undo=undo, redo=redo, remove_object=remove_object, export=export)
    chosen_one(rename=rename, undo=undo, redo=redo, remove_object=remove_object, export=export)
    chosen_one(output=output, export=export)
    asks_only = bool(rename or suggest or listing) and not (works or clip or output)
    folder = output or export
    models = ModelChoice(
        tracker=model,
        tracker_weights=weights,
        maker=interaction_model,
        maker_weights=interaction_weights,
        fuser=fuser,
        fuser_weights=fuser_weights,
        device=device,
        max_memory_bytes=None if max_memory is None else parse_bytes(max_memory),
        settings=chosen_settings(precision, long_edge, scales, compiled=False),
    )
    request = CorrectRequest(
        project=project,
        clip=clip,
        origin=origin,
        corrections=tuple(corrections_of(marks, rename or [], (undo, redo), remove_object or [])),
        propagate=action in (None, "marks") and not no_propagate and not asks_only,
        output=None if folder is None else OutputRequest(folder, overlay, overwrite=overwrite),
        models=models,
        resize_masks=resize_mask,
    )
    with CorrectRun(request) as run:
        stopped_in = _work(run, as_json=as_json)
        written = None if folder is None or stopped_in is not None else str(folder)
        report = {**run.report(num_suggested=suggest or 0), "output": written, "stopped_in": stopped_in}
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show(report, lists=listing, suggests=suggest is not None)
    if stopped_in is not None:
        typer.echo(_STOPPED[stopped_in].format(project=project, folder=folder), err=True)
    return 0 if stopped_in is None else INTERRUPTED


_STOPPED = {
    "taking over": "stopped before all masks were taken over; begin again in another folder, or let `rotoscope correct {project}` make the others",
    "correcting": "stopped; the corrections so far are kept in {project}, see --list. Give the others again, or run `rotoscope correct {project}`",
    "propagating": "stopped; what is done is kept in {project}. Go on with `rotoscope correct {project}`",
    "writing": "stopped while the masks were written; all is kept in {project}. Write them with `rotoscope correct {project} --export {folder}`",
}


def _work(run: "CorrectRun", *, as_json: bool) -> str | None:
    """Do the work, showing how it goes; the stage in which it was interrupted."""
    from dataclasses import asdict

    if not as_json:
        for note in run.notes:
            typer.echo(f"note: {note}", err=True)
    with stop_on_interrupt() as caught, progress_bar() as progress, closing(run.steps()) as steps:
        rows: dict[str, TaskID] = {}
        for step in steps:
            if step.stage not in rows:
                rows[step.stage] = progress.add_task(step.stage, total=step.total)
            progress.update(rows[step.stage], completed=step.done)
            if as_json:
                typer.echo(json.dumps(asdict(step)))
            if caught:
                return step.stage
    return None


def _show(report: dict[str, Any], *, lists: bool, suggests: bool) -> None:
    """The state of the project in a few lines."""
    for warning in report["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    without = len(report["frames_without_masks"])
    masked = f"{without} of them without masks" if without else "all with masks"
    objects = ", ".join(f"{info['object_id']} ({info['name']})" for info in report["objects"]) or "none"
    typer.echo(f"{report['project']}: {report['num_frames']} frames, {masked}; objects: {objects}")
    if lists:
        typer.echo(f"clip: {report['clip'] or 'not known'}, {report['width']}x{report['height']}")
        for number, step in enumerate(report["steps"], start=1):
            typer.echo(f"{number:>5}  {step['text']}{' (undone)' if step['is_undone'] else ''}")
    pending = f"; not carried on yet: {_listed(report['pending_frames'])}" if report["pending_frames"] else ""
    typer.echo(f"frames given: {_listed(report['given_frames'])}{pending}")
    if suggests:
        typer.echo(f"frames most worth a look: {_listed(report['suggested_frames'])}")
    if report["output"] is not None:
        typer.echo(f"masks, overlay and summary.json are in {report['output']}")


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
