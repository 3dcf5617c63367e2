"""The options of `rotoscope correct`, and what they ask for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rotoscope.cli.corrections import chosen_one, corrections_of, drawn_in
from rotoscope.cli.track import chosen_settings, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rotoscope.jobs.correct import CorrectRequest, ModelChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectOptions:
    """What was typed; each field is an option. Marks (`click` to `region`) are read in their order, from the arguments themselves."""

    project: Annotated[Path, typer.Argument(help="The folder that keeps the work; it is begun if there is none.")]
    clip: Annotated[str | None, typer.Option(help="A video file or a folder of images; the project knows it from then on.")] = None
    origin: Annotated[Path | None, typer.Option("--from", help="Begin with the masks that `rotoscope track` wrote to this folder.")] = None
    click: Annotated[list[str] | None, typer.Option("--click", help="x,y is on the object; x,y,0 is off it. In pixels; repeatable.")] = None
    box: Annotated[list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 around the object, in pixels. Repeatable.")] = None
    scribbles: Annotated[
        list[str] | None, typer.Option("--scribbles", help="Lines on and off objects: a JSON file of DAVIS interactive. Repeatable.")
    ] = None
    mask: Annotated[
        list[str] | None, typer.Option("--mask", help="A painted mask: FILE, FRAME=FILE, or a folder. With --object, of that one. Repeatable.")
    ] = None
    brush: Annotated[list[str] | None, typer.Option("--brush", help="x,y or x0,y0,x1,y1,...: paint along it. Repeatable.")] = None
    erase: Annotated[
        list[str] | None, typer.Option("--erase", help="The same, to take from the object; all: it is out of sight on the frame. Repeatable.")
    ] = None
    object_id: Annotated[list[str] | None, typer.Option("--object", help="Which object the marks after it are for; 1 unless stated.")] = None
    frame: Annotated[list[str] | None, typer.Option("--frame", help="Which frame they are on; 0 unless stated.")] = None
    radius: Annotated[list[str] | None, typer.Option("--radius", help="Of --brush and --erase after it, in pixels; 8 unless stated.")] = None
    region: Annotated[
        list[str] | None, typer.Option("--region", help="x0,y0,x1,y1: marks and masks after it change nothing outside; none ends it.")
    ] = None
    no_propagate: Annotated[bool, typer.Option("--no-propagate", help="Leave the other frames as they are, for now.")] = False
    undo: Annotated[int | None, typer.Option("--undo", min=1, metavar="[N]", help="Take the last N steps back; one unless stated.")] = None
    redo: Annotated[int | None, typer.Option("--redo", min=1, metavar="[N]", help="Do again the last N that were undone.")] = None
    rename: Annotated[list[str] | None, typer.Option("--rename", help="ID=NAME, such as 1=dancer. Repeatable.")] = None
    remove_object: Annotated[list[int] | None, typer.Option("--remove-object", min=1, help="Take this object out of all frames. Repeatable.")] = None
    suggest: Annotated[int | None, typer.Option(min=1, help="Name so many frames that are most worth a look.")] = None
    listing: Annotated[bool, typer.Option("--list", help="Show objects, frames given and pending, and all steps.")] = False
    export: Annotated[Path | None, typer.Option("--export", help="Write the masks as they are to this folder.")] = None
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write them there after the work.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another run in that folder.")] = False
    overlay: Annotated[Literal["vp9", "h264", "none"], typer.Option(help="The codec of the overlay video.")] = "vp9"
    resize_mask: Annotated[bool, typer.Option("--resize-mask", help="Accept masks of another size than the clip.")] = False
    interaction_model: Annotated[str, typer.Option(help="The model that makes masks of clicks, boxes and lines.")] = "s2m-lite"
    interaction_weights: Annotated[Path | None, typer.Option(help="Its weights file; by default what ships or was imported.")] = None
    model: Annotated[str, typer.Option(help="The tracker of `rotoscope weights list` that carries masks on.")] = "default"
    weights: Annotated[Path | None, typer.Option(help="A weights file; by default what ships or was imported.")] = None
    fuser: Annotated[str, typer.Option(help="Joins earlier and newer masks: a model, or blend (by nearness).")] = "blend"
    fuser_weights: Annotated[Path | None, typer.Option(help="A weights file of it.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Arithmetic of AOT and DeAOT.")] = "float32"
    long_edge: Annotated[int | None, typer.Option(help="Shrink frames until neither side is longer, for AOT and DeAOT.")] = None
    scales: Annotated[str | None, typer.Option(help="Sizes at which RGMP sees each frame: 0.5,0.75,1 unless stated; 1 alone is fast.")] = None
    max_memory: Annotated[str | None, typer.Option(help="The budget for remembered frames, such as 512MB.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per step on stdout, then the state of the project.")] = False


def request_of(options: CorrectOptions, arguments: "Sequence[str]") -> "CorrectRequest":
    """What is to be done.

    Args:
        options: what was typed.
        arguments: the same as it was typed, in which marks have an order.

    Raises:
        InputError: options that exclude each other, or a mark that is none.
    """
    from rotoscope.jobs.correct import CorrectRequest
    from rotoscope.jobs.project.export import OutputRequest

    marks = drawn_in(arguments)
    works = bool(marks or options.origin)
    steps_back = {"undo": options.undo, "redo": options.redo, "remove_object": options.remove_object, "export": options.export}
    action = chosen_one(marks=works, **steps_back)
    chosen_one(rename=options.rename, **steps_back)
    chosen_one(output=options.output, export=options.export)
    asks_only = bool(options.rename or options.suggest or options.listing) and not (works or options.clip or options.output)
    folder = options.output or options.export
    return CorrectRequest(
        project=options.project,
        clip=options.clip,
        origin=options.origin,
        corrections=tuple(corrections_of(marks, options.rename or [], (options.undo, options.redo), options.remove_object or [])),
        propagate=action in (None, "marks") and not options.no_propagate and not asks_only,
        output=None if folder is None else OutputRequest(folder, options.overlay, overwrite=options.overwrite),
        models=_models(options),
        resize_masks=options.resize_mask,
    )


def _models(options: CorrectOptions) -> "ModelChoice":
    from rotoscope.jobs.correct import ModelChoice

    return ModelChoice(
        tracker=options.model,
        tracker_weights=options.weights,
        maker=options.interaction_model,
        maker_weights=options.interaction_weights,
        fuser=options.fuser,
        fuser_weights=options.fuser_weights,
        device=options.device,
        max_memory_bytes=None if options.max_memory is None else parse_bytes(options.max_memory),
        settings=chosen_settings(options.precision, options.long_edge, options.scales, compiled=False),
    )
