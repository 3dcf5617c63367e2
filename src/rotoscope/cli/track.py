"""`rotoscope track`: a video and a mask in, masks for every frame out."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rotoscope.cli.marks import ARGUMENTS, interactions_of, marks_in
from rotoscope.cli.progress import progress_bar, stop_on_interrupt
from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.jobs.work import TrackRequest, TrackRun

INTERRUPTED = 130


def track(
    video: Annotated[str, typer.Argument(help="A video file, a folder of images, a stream URL, or a camera number.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the results.")],
    context: typer.Context,
    *,
    mask: Annotated[
        list[str] | None, typer.Option("--mask", help="The first frame's mask; FRAME=FILE for another frame; a folder of masks. Repeatable.")
    ] = None,
    click: Annotated[list[str] | None, typer.Option("--click", help="x,y is on the object; x,y,0 is off it. In pixels; repeatable.")] = None,
    box: Annotated[list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 around the object, in pixels. Repeatable.")] = None,
    scribbles: Annotated[
        list[str] | None, typer.Option("--scribbles", help="Lines on objects: a JSON file of DAVIS interactive. Repeatable.")
    ] = None,
    object_id: Annotated[
        list[str] | None, typer.Option("--object", help="Which object the clicks and boxes after it are for; 1 unless stated.")
    ] = None,
    frame: Annotated[list[str] | None, typer.Option("--frame", help="Which frame they are on; 0 unless stated.")] = None,
    interaction_model: Annotated[str, typer.Option(help="The model that makes masks of clicks, boxes and lines.")] = "s2m-lite",
    interaction_weights: Annotated[Path | None, typer.Option(help="Its weights file; by default what ships or was imported.")] = None,
    model: Annotated[str, typer.Option(help="A model of `rotoscope weights list`.")] = "default",
    weights: Annotated[Path | None, typer.Option(help="A weights file; by default what ships or was imported.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Arithmetic of AOT and DeAOT.")] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile AOT and DeAOT: faster after a minute's start.")] = False,
    long_edge: Annotated[int | None, typer.Option(help="Shrink frames until neither side is longer, for AOT and DeAOT.")] = None,
    scales: Annotated[str | None, typer.Option(help="Sizes at which RGMP sees each frame: 0.5,0.75,1 unless stated; 1 alone is fast.")] = None,
    direction: Annotated[Literal["both", "forward", "backward"], typer.Option(help="Which frames to cover, from the given ones on.")] = "both",
    max_frames: Annotated[int | None, typer.Option(help="Only the first so many frames; needed for live streams.")] = None,
    frames: Annotated[str | None, typer.Option(help="Only the frames START:STOP, STOP not included, such as 100:250.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="The budget for remembered frames, such as 512MB.")] = None,
    resize_mask: Annotated[bool, typer.Option("--resize-mask", help="Accept masks of another size than the video.")] = False,
    overlay: Annotated[Literal["vp9", "h264", "none"], typer.Option(help="The codec of the overlay video.")] = "vp9",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per frame on stdout, then the summary.")] = False,
) -> int:
    """Follow objects through a video: OUTPUT gets masks/, overlay.webm and summary.json."""
    del click, box, scribbles, object_id, frame  # they are read in their order
    if resume and overwrite:
        message = "--resume and --overwrite exclude each other"
        raise InputError(message)
    from rotoscope.jobs.work import TrackRequest, TrackRun

    start_frame, stop_frame = parse_frames(frames, max_frames)
    source = int(video) if video.isdecimal() and not Path(video).exists() else video
    request = TrackRequest(
        video=source,
        masks=parse_masks(mask or [], source),
        interactions=interactions_of(marks_in(context.meta[ARGUMENTS]), source),
        interaction_model=interaction_model,
        interaction_weights=interaction_weights,
        output=output,
        model=model,
        weights=weights,
        device=device,
        direction=direction,
        max_memory_bytes=None if max_memory is None else parse_bytes(max_memory),
        start_frame=start_frame,
        stop_frame=stop_frame,
        resize_masks=resize_mask,
        overlay=overlay,
        settings=chosen_settings(precision, long_edge, scales, compiled=compiled),
        existing="resume" if resume else "overwrite" if overwrite else "refuse",
    )
    run = TrackRun(request)
    if not as_json:
        for note in run.notes:
            typer.echo(f"note: {note}", err=True)
    interrupted = _work(run, as_json=as_json)
    _report(request, as_json=as_json)
    if interrupted:
        typer.echo(f"stopped; what is done is in {output}. Go on with the same command and --resume", err=True)
    return INTERRUPTED if interrupted else 0


def parse_masks(values: list[str], video: str | int) -> dict[int, Path]:
    """Mask files by frame index, from FILE, FRAME=FILE and folders; in folders they are named like the frames of the video, or by their numbers.

    Raises:
        InputError: two masks for one frame, or one whose frame cannot be told.
    """
    from rotoscope.video.masks import read_label_folder
    from rotoscope.video.read import open_clip

    masks: dict[int, Path] = {}
    for value in values:
        numbered = re.fullmatch(r"(\d+)=(.+)", value)
        if numbered:
            found = {int(numbered[1]): Path(numbered[2])}
        elif Path(value).is_dir():
            found = read_label_folder(Path(value), open_clip(video).frame_names)
        else:
            found = {0: Path(value)}
        for frame_index, path in found.items():
            if frame_index in masks:
                message = f"two masks are given for frame {frame_index}: {masks[frame_index]} and {path}; write FRAME=FILE for other frames"
                raise InputError(message)
            masks[frame_index] = path
    return masks


def parse_frames(frames: str | None, max_frames: int | None) -> tuple[int, int | None]:
    """Start and stop from START:STOP (either may be left out), and from the largest number of frames.

    Raises:
        InputError: not of that form, or no frames.
    """
    match = re.fullmatch(r"(\d*):(\d*)", frames or ":")
    if not match or (max_frames is not None and max_frames < 1):
        message = f"--frames {frames} --max-frames {max_frames}: write frames as START:STOP, such as 100:250, and at least 1 frame"
        raise InputError(message)
    start = int(match[1] or 0)
    stops = [int(match[2])] if match[2] else []
    stops += [start + max_frames] if max_frames is not None else []
    return start, min(stops, default=None)


def chosen_settings(precision: str, long_edge: int | None, scales: str | None = None, *, compiled: bool) -> dict[str, object]:
    """The settings of the model that were asked for; what was not is left to the model.

    Raises:
        InputError: a side of less than 16 pixels, or scales that are not numbers.
    """
    if long_edge is not None and long_edge < 16:
        message = f"--long-edge {long_edge} leaves nothing to see; give 16 or more"
        raise InputError(message)
    asked = {
        "precision": precision if precision != "float32" else None,
        "long_edge": long_edge,
        "compile": compiled or None,
        "scales": None if scales is None else parse_scales(scales),
    }
    return {name: value for name, value in asked.items() if value is not None}


def parse_scales(text: str) -> tuple[float, ...]:
    """Numbers from "0.5,0.75,1".

    Raises:
        InputError: not of that form.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"'{text}' is no list of scales; write numbers with commas, such as 0.5,0.75,1"
        raise InputError(message) from error


def parse_bytes(text: str) -> int:
    """A number of bytes from "512MB", "1.5G", "800k" or "1048576"; units are powers of 1024.

    Raises:
        InputError: not of that form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not match or float(match[1]) == 0:
        message = f"'{text}' is not an amount of memory; write it like 512MB or 2GB"
        raise InputError(message)
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))


def _work(run: "TrackRun", *, as_json: bool) -> bool:
    """Do the run, showing how it goes; whether it was interrupted."""
    from dataclasses import asdict

    with stop_on_interrupt() as caught, progress_bar() as progress, closing(run.records()) as records:
        task = progress.add_task("tracking", total=run.total_frames)
        for record in records:
            progress.advance(task)
            if as_json:
                typer.echo(json.dumps(asdict(record)))
            if caught:
                return True
    return False


def _report(request: "TrackRequest", *, as_json: bool) -> None:
    summary = json.loads((request.output / "summary.json").read_text(encoding="utf-8"))
    if as_json:
        typer.echo(json.dumps({key: value for key, value in summary.items() if key != "frames"}))
        return
    for warning in summary["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{summary['num_frames']} frames at {summary['fps']:.1f} frames/s with {summary['model']}; objects {summary['object_ids']}")
    typer.echo(f"masks, overlay and summary.json are in {request.output}")
