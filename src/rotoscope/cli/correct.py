"""`rotoscope correct`: masks corrected step by step, in a project that keeps every step."""

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import typer

from rotoscope.cli.correct_options import CorrectOptions, request_of
from rotoscope.cli.marks import ARGUMENTS
from rotoscope.cli.options import takes
from rotoscope.cli.progress import progress_bar, stop_on_interrupt
from rotoscope.cli.track import INTERRUPTED

if TYPE_CHECKING:
    from rich.progress import TaskID

    from rotoscope.jobs.correct import CorrectRun


@takes(CorrectOptions)
def correct(options: CorrectOptions, context: typer.Context) -> int:
    """Correct masks: mark, paint or erase on any frame, and the change is carried on to the others. PROJECT keeps every step, for --undo.

    Without marks it goes on with what is pending.
    """
    from rotoscope.jobs.correct import CorrectRun

    request = request_of(options, context.meta[ARGUMENTS])
    folder = None if request.output is None else request.output.folder
    with CorrectRun(request) as run:
        stopped_in = _work(run, as_json=options.as_json)
        written = None if folder is None or stopped_in is not None else str(folder)
        report = {**run.report(num_suggested=options.suggest or 0), "output": written, "stopped_in": stopped_in}
    if options.as_json:
        typer.echo(json.dumps(report))
    else:
        _show(report, lists=options.listing, suggests=options.suggest is not None)
    if stopped_in is not None:
        typer.echo(_STOPPED[stopped_in].format(project=options.project, folder=folder), err=True)
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
