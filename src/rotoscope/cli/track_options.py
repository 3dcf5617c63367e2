"""The options of `rotoscope track`, and what they ask for."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.jobs.discover import SearchRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackOptions:
    """What was typed; each field is an option."""

    video: Annotated[str, typer.Argument(help="A video file, a folder of images, a stream URL, or a camera number.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the results.")]
    mask: Annotated[
        list[str] | None, typer.Option("--mask", help="The first frame's mask; FRAME=FILE for another frame; a folder of masks. Repeatable.")
    ] = None
    click: Annotated[list[str] | None, typer.Option("--click", help="x,y is on the object; x,y,0 is off it. In pixels; repeatable.")] = None
    box: Annotated[list[str] | None, typer.Option("--box", help="x0,y0,x1,y1 around the object, in pixels. Repeatable.")] = None
    scribbles: Annotated[list[str] | None, typer.Option("--scribbles", help="Lines on objects: a JSON file of DAVIS interactive. Repeatable.")] = None
    object_id: Annotated[list[str] | None, typer.Option("--object", help="Which object the clicks and boxes after it are for; 1 unless stated.")] = (
        None
    )
    frame: Annotated[list[str] | None, typer.Option("--frame", help="Which frame they are on; 0 unless stated.")] = None
    interaction_model: Annotated[str, typer.Option(help="The model that makes masks of clicks, boxes and lines.")] = "s2m-lite"
    interaction_weights: Annotated[Path | None, typer.Option(help="Its weights file; by default what ships or was imported.")] = None
    detect: Annotated[bool, typer.Option("--detect", help="Find objects with a detector and follow them; masks and marks may be given besides.")] = (
        False
    )
    classes: Annotated[str | None, typer.Option(help="Find only these classes, such as person,dog.")] = None
    every: Annotated[int | None, typer.Option(help="Let the detector look at every so many frames; 10 unless stated.")] = None
    min_score: Annotated[float | None, typer.Option(help="Believe detections from this score on, and twice seen from half of it on; 0.5.")] = None
    max_objects: Annotated[int | None, typer.Option(help="Follow at most so many objects, the best; 20 unless stated.")] = None
    detector: Annotated[str | None, typer.Option(help="A detector of `rotoscope weights list`; yolact-lite unless stated.")] = None
    detector_weights: Annotated[Path | None, typer.Option(help="Its weights file; by default what ships or was imported.")] = None
    model: Annotated[str, typer.Option(help="A model of `rotoscope weights list`.")] = "default"
    weights: Annotated[Path | None, typer.Option(help="A weights file; by default what ships or was imported.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Arithmetic of AOT and DeAOT.")] = "float32"
    compiled: Annotated[bool, typer.Option("--compile", help="Compile AOT and DeAOT: faster after a minute's start.")] = False
    long_edge: Annotated[int | None, typer.Option(help="Shrink frames until neither side is longer, for AOT and DeAOT.")] = None
    scales: Annotated[str | None, typer.Option(help="Sizes at which RGMP sees each frame: 0.5,0.75,1 unless stated; 1 alone is fast.")] = None
    direction: Annotated[Literal["both", "forward", "backward"], typer.Option(help="Which frames to cover, from the given ones on.")] = "both"
    max_frames: Annotated[int | None, typer.Option(help="Only the first so many frames; needed for live streams.")] = None
    frames: Annotated[str | None, typer.Option(help="Only the frames START:STOP, STOP not included, such as 100:250.")] = None
    max_memory: Annotated[str | None, typer.Option(help="The budget for remembered frames, such as 512MB.")] = None
    resize_mask: Annotated[bool, typer.Option("--resize-mask", help="Accept masks of another size than the video.")] = False
    overlay: Annotated[Literal["vp9", "h264", "none"], typer.Option(help="The codec of the overlay video.")] = "vp9"
    youtube_vis: Annotated[Path | None, typer.Option(help="Write the masks as YouTube-VIS JSON to this file too, once all is done.")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per frame on stdout, then the summary.")] = False


def search_in(options: TrackOptions) -> "SearchRequest | None":
    """What to look for; None where nothing is to be found.

    Raises:
        InputError: an option of the detector without --detect, or a rule that makes no sense.
    """
    from rotoscope.jobs.discover import SearchRequest
    from rotoscope.tracking.matching import DiscoveryRules

    rules = {"every": options.every, "min_score": options.min_score, "max_objects": options.max_objects}
    others = {"classes": options.classes, "detector": options.detector, "detector_weights": options.detector_weights}
    stated = [f"--{name.replace('_', '-')}" for name, value in (others | rules).items() if value is not None]
    if not options.detect:
        if stated:
            message = f"{stated[0]} is for the detector; add --detect"
            raise InputError(message)
        return None
    request = SearchRequest(
        weights=options.detector_weights,
        classes=() if options.classes is None else tuple(name.strip() for name in options.classes.split(",")),
        rules=DiscoveryRules(**{name: value for name, value in rules.items() if value is not None}),  # type: ignore[arg-type] # each has its own
    )
    return request if options.detector is None else replace(request, detector=options.detector)
