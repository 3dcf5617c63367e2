"""`rotoscope train`: a data set in, weights out."""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotoscope.cli.progress import progress_bar, stop_on_interrupt

if TYPE_CHECKING:
    from collections.abc import Generator

    from rotoscope.training.loop import Progress
    from rotoscope.training.recipe import Recipe
    from rotoscope.training.recipes import RecipeSpec
    from rotoscope.training.task import Task

INTERRUPTED = 130


def train(
    name: Annotated[str, typer.Argument(help="A recipe; a name that is none lists them.")],
    data: Annotated[Path, typer.Option(help="The folder of the training data.")],
    *,
    output: Annotated[Path | None, typer.Option("--out", "-o", help="The folder of the training; by default NAME-training.")] = None,
    weights: Annotated[Path | None, typer.Option("--from", help="Start from this weights file.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe: FIELD=VALUE. Repeatable.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in the output folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, on what, in how much memory; write nothing.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...; under torchrun each process gets its own GPU.")] = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line of the record on stdout.")] = False,
) -> int:
    """Train a model: OUT gets MODEL.safetensors, metrics.csv, pictures/ and the states from which --resume goes on."""
    from rotoscope.models.registry import pick_device
    from rotoscope.training.loop import train as steps_of
    from rotoscope.training.processes import is_first, local_device
    from rotoscope.training.recipes import module_of, recipe_named, spec_of
    from rotoscope.training.state import require_resumable

    spec, recipe = spec_of(name), recipe_named(name, settings or ())
    folder = output or Path(f"{name}-training")
    speaks = is_first()
    if speaks and not dry_run:
        require_resumable(folder, resume=resume)  # before the data is read, which may take minutes
    chosen = str(local_device(pick_device(device)))
    task = module_of(spec).build_task(recipe, data, device=chosen, weights=weights)
    if dry_run:
        _describe(task, recipe, module_of(spec).describe(task), chosen, as_json=as_json)
        return 0
    steps = steps_of(task, recipe, folder, device=chosen, resume=resume, tensorboard=tensorboard)
    interrupted = _work(steps, recipe, speaks=speaks, as_json=as_json)
    if speaks and interrupted:
        typer.echo(f"stopped; the state is saved in {folder}. Go on with the same command and --resume", err=True)
    elif speaks:
        _report(spec, task, folder, as_json=as_json)
    return INTERRUPTED if interrupted else 0


def _work(steps: "Generator[Progress, None, None]", recipe: "Recipe", *, speaks: bool, as_json: bool) -> bool:
    """Train, showing how it goes; whether it was interrupted."""
    with stop_on_interrupt() as caught, progress_bar(quiet=not speaks, shows="told") as bar, closing(steps):
        row = bar.add_task("training", total=recipe.steps, told="")
        for progress in steps:
            figures = progress.figures
            bar.update(row, completed=progress.step, told=f"loss {figures['loss']:.4f}  {figures['samples_per_second']:.1f} samples/s")
            if speaks and as_json and (progress.step % recipe.record_every == 0 or progress.step == recipe.steps):
                typer.echo(json.dumps({"step": progress.step, **figures, "seconds_left": progress.seconds_left}))
            if caught:
                return progress.step < recipe.steps
    return False


def _report(spec: "RecipeSpec", task: "Task", folder: Path, *, as_json: bool) -> None:
    """Write the weights, and say where they are."""
    from rotoscope.models.registry import list_models
    from rotoscope.training.state import export_weights, load_state, trained_weights
    from rotoscope.training.task import Noted

    state = load_state(folder)
    path = folder / f"{spec.trains}.safetensors"
    notes = {"recipe": json.dumps(state.recipe), "steps": str(state.step), "origin": f"rotoscope train {spec.name}"}
    notes |= task.notes if isinstance(task, Noted) else {}
    export_weights(trained_weights(state), path, notes, model=spec.trains)
    if as_json:
        typer.echo(json.dumps({"weights": str(path), "model": spec.trains, "steps": state.step}))
    else:
        typer.echo(f"{state.step} steps are done; the weights are in {path}")
        finds = spec.trains in {row.name for row in list_models("detect")}
        use = "detect IMAGE_OR_VIDEO" if finds else "track VIDEO --mask MASK"
        typer.echo(f"try them: rotoscope {use} --model {spec.trains} --weights {path} -o OUT")


def _describe(task: "Task", recipe: "Recipe", found: list[str], device: str, *, as_json: bool) -> None:
    """Say what would be trained, on what, and in how much memory."""
    from dataclasses import asdict

    from rotoscope.training.estimate import estimate_memory

    groups = {group.name: sum(parameter.numel() for parameter in group.parameters) for group in task.parameter_groups()}
    total = sum(parameter.numel() for parameter in task.model.parameters())
    memory = estimate_memory(task, recipe, device)
    if as_json:
        about = {"recipe": asdict(recipe), "data": found, "parameters": {"total": total, "trained": groups}}
        typer.echo(json.dumps({**about, "device": device, "memory_bytes": {**asdict(memory), "total": memory.total}}))
        return
    for field, value in asdict(recipe).items():
        typer.echo(f"{field:<16} {'none' if value is None else value}")
    for line in found:
        typer.echo(f"{'data':<16} {line}")
    trained = ", ".join(f"{name} {count:,}" for name, count in groups.items())
    typer.echo(f"{'parameters':<16} {total:,}; {sum(groups.values()):,} are trained: {trained}")
    present, training, sample, all_of_it = (f"{count / 2**30:.2f} GB" for count in (memory.present, memory.training, memory.sample, memory.total))
    typer.echo(f"{'memory':<16} about {all_of_it} on {device}: {present} now, {training} to train, {sample} for each of {recipe.batch_size} samples")
    typer.echo("nothing was written; leave out --dry-run to train")
