"""`rotoscope weights`: what there is, convert official files, check files."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rotoscope.errors import CheckpointError

app = typer.Typer(help="List, import and verify weights.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_weights(*, as_json: Annotated[bool, typer.Option("--json", help="One JSON object per model.")] = False) -> None:
    """The models, and where their weights come from."""
    from rotoscope.models import registry

    rows = [(spec, registry.find_weights(spec)) for spec in registry.list_models()]
    if as_json:
        for spec, status in rows:
            fields = {name: getattr(spec, name) for name in ("name", "task", "summary", "paper", "origin", "licence", "official_files", "published")}
            typer.echo(json.dumps({**fields, "weights": status.where, "path": str(status.path) if status.path else None}))
        return
    for spec, status in rows:
        default = " (default)" if spec.name in (registry.DEFAULT_TRACKER, registry.DEFAULT_MASK_MAKER, registry.DEFAULT_DETECTOR) else ""
        typer.echo(f"{spec.name}{default}: {spec.summary}")
        typer.echo(f"  paper     {spec.paper}")
        typer.echo(
            f"  weights   {status.where}"
            + (f": {status.path}" if status.path else f"; get {' or '.join(spec.official_files) or 'them'} from {spec.origin}")
        )
        typer.echo(f"  licence   {spec.licence}")


@app.command("import")
def import_weights(
    file: Annotated[Path, typer.Argument(help="An official weights file.")],
    *,
    model: Annotated[str | None, typer.Option(help="Which model it is of; found out from its keys if not said.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; by default where `load` finds it.")] = None,
) -> None:
    """Convert official weights to safetensors under our names, so that the model loads by name from then on."""
    from rotoscope.models import checkpoints, registry

    checkpoint = checkpoints.read_checkpoint(file)
    spec = registry.spec_of(model or _only_model(registry.identify(checkpoint), file))
    registry.build(spec, checkpoint, device="cpu")  # strict: a file that does not fit is refused here
    renamed = checkpoints.rename(checkpoint, registry.official_names(spec))
    path = output or registry.imported_weights_folder() / f"{spec.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = {"sha256 of the original": checkpoints.sha256(file)}
    checkpoints.write_checkpoint(path, renamed.tensors, model=spec.name, official=checkpoint.official, notes=notes)
    typer.echo(f"{file} holds weights of {spec.name}; written to {path} ({len(renamed.tensors)} tensors)")


@app.command("verify")
def verify_weights(
    file: Annotated[Path | None, typer.Argument(help="A weights file; by default all that ship.")] = None,
) -> None:
    """Check that weights are whole, finite and fit their model; print their SHA-256."""
    from rotoscope.models import checkpoints, registry

    if file is not None:
        names = registry.identify(checkpoints.read_checkpoint(file))
        typer.echo(f"{_only_model(names, file)}: ok  sha256 {checkpoints.sha256(file)}  {file}")
        return
    for spec in registry.list_models():
        path = registry.find_weights(spec).path
        if path is not None:
            registry.build(spec, checkpoints.read_checkpoint(path), device="cpu")
            typer.echo(f"{spec.name}: ok  sha256 {checkpoints.sha256(path)}  {path}")


def _only_model(names: list[str], file: Path) -> str:
    if len(names) == 1:
        return names[0]
    message = f"{file} fits several models ({', '.join(names)}); say which with --model" if names else f"{file} fits none of the models there are"
    raise CheckpointError(message)
