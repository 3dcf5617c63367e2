"""`rotoscope track`: a video and a mask in, masks for every frame out."""

import json
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rotoscope.cli.marks import ARGUMENTS, interactions_of, marks_in
from rotoscope.cli.options import existing_of, takes, video_or_camera
from rotoscope.cli.progress import progress_bar, stop_on_interrupt
from rotoscope.cli.track_options import TrackOptions, search_in
from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.jobs.work import TrackRequest, TrackRun

INTERRUPTED = 130


@takes(TrackOptions)
def track(options: TrackOptions, context: typer.Context) -> int:
    """Follow objects through a video: OUTPUT gets masks/, overlay.webm and summary.json."""
    request = request_of(options, context.meta[ARGUMENTS])
    from rotoscope.jobs.work import TrackRun

    run = TrackRun(request)
    if not options.as_json:
        for note in run.notes:
            typer.echo(f"note: {note}", err=True)
    interrupted = _work(run, as_json=options.as_json)
    _report(request, as_json=options.as_json)
    if interrupted:
        typer.echo(f"stopped; what is done is in {options.output}. Go on with the same command and --resume", err=True)
    return INTERRUPTED if interrupted else 0


def request_of(options: TrackOptions, arguments: Sequence[str]) -> "TrackRequest":
    """What the options ask for; marks are read from the arguments, where they are in their order.

    Raises:
        InputError: options that exclude each other, or that do not make sense.
    """
    existing = existing_of(resume=options.resume, overwrite=options.overwrite)
    from rotoscope.jobs.work import TrackRequest

    start_frame, stop_frame = parse_frames(options.frames, options.max_frames)
    video = video_or_camera(options.video)
    return TrackRequest(
        video=video,
        masks=parse_masks(options.mask or [], video),
        interactions=interactions_of(marks_in(arguments), video),
        interaction_model=options.interaction_model,
        interaction_weights=options.interaction_weights,
        search=search_in(options),
        output=options.output,
        model=options.model,
        weights=options.weights,
        device=options.device,
        direction=options.direction,
        max_memory_bytes=None if options.max_memory is None else parse_bytes(options.max_memory),
        start_frame=start_frame,
        stop_frame=stop_frame,
        resize_masks=options.resize_mask,
        overlay=options.overlay,
        settings=chosen_settings(options.precision, options.long_edge, options.scales, compiled=options.compiled),
        existing=existing,
        youtube_vis=options.youtube_vis,
    )


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
    for one in summary.get("objects", []):
        typer.echo(f"object {one['id']}: {one['class'] or 'given'} {one['score']:.2f}, {_span(one)}")
    typer.echo(f"{summary['num_frames']} frames at {summary['fps']:.1f} frames/s with {summary['model']}; objects {summary['object_ids']}")
    typer.echo(f"masks, overlay and summary.json are in {request.output}")


def _span(one: dict[str, int | None]) -> str:
    return "never in sight" if one["first_frame"] is None else f"{one['num_frames']} frames from {one['first_frame']} to {one['last_frame']}"
