"""`rotoscope evaluate`: how good are the masks, by the measures of the field."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rotoscope.cli import evaluate_coco
from rotoscope.cli.progress import progress_bar
from rotoscope.cli.tables import print_table
from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.datasets.davis import AnnotatedClip
    from rotoscope.evaluation.davis import ClipFiles, ClipScores
    from rotoscope.evaluation.davis_interactive import Rules, Sample, Session, SessionMaker, Start
    from rotoscope.types import Fuser

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Score masks by the measures of the field.")
app.command("coco")(evaluate_coco.coco)

FRAMES_PER_WORKER = 1000
"""A frame takes about 3 ms and a process 0.3 s to start: for fewer frames, more processes gain nothing."""


@app.callback()
def evaluate() -> None:
    """Score masks by the measures of the field."""


@app.command("davis")
def davis(
    *,
    predictions: Annotated[Path | None, typer.Option(help="Predicted masks: CLIP/00000.png, indexed or 0/255.")] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="The DAVIS root with the annotations of the predictions.")] = None,
    model: Annotated[str | None, typer.Option(help="Run this model of `rotoscope weights list` and score it.")] = None,
    data: Annotated[Path | None, typer.Option(help="The DAVIS root to run the model on.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A weights file; by default what ships or was imported.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Keep the model's masks in this folder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    clips: Annotated[str | None, typer.Option(help="Only these clips: a,b,c.")] = None,
    year: Annotated[Literal["auto", "2016", "2017"], typer.Option(help="2016: one merged object. 2017: object ids.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that score; by default up to one per core.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the figures to FILE, and those per frame to FILE-frames.csv.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write a plot of J and F over the frames of each clip to this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of the table.")] = False,
) -> None:
    """J, F and J&F on DAVIS, of masks in a folder (--predictions, --ground-truth) or of a model (--model, --data).

    The first and the last frame of a clip are not scored; the total is the mean over all objects of all clips, as officially.
    """
    root = _root(predictions, ground_truth, model, data)
    if model is None and (weights is not None or output is not None):
        message = "--weights and --output belong to --model; with --predictions nothing is run"
        raise InputError(message)
    from rotoscope.datasets.davis import read_davis
    from rotoscope.evaluation.davis import find_predictions, score_clips

    chosen = read_davis(root, clips=_names(clips), year=year, with_frames=model is not None)
    _prepare_outputs(csv, plots)
    fps = None
    with ExitStack() as stack:
        if model is not None:
            predictions = output or Path(stack.enter_context(TemporaryDirectory(prefix="rotoscope-")))
            fps = _run(model, weights, device, chosen, predictions)
        assert predictions is not None, "_root lets nothing else pass"
        files = find_predictions(chosen, predictions)
        scores = _score(files, workers or _enough_workers(files), score_clips)
    _show(scores, fps, as_json=as_json)
    _write(scores, csv, plots)


@app.command("davis17-unsupervised")
def davis17_unsupervised(
    *,
    predictions: Annotated[Path, typer.Option(help="Label maps, CLIP/00000.png: up to 20 ids per clip, any numbers.")],
    data: Annotated[Path, typer.Option(help="The DAVIS root; Annotations_unsupervised is taken where it is there.")],
    clips: Annotated[str | None, typer.Option(help="Only these clips: a,b,c.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that score; by default up to one per core.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the figures to FILE, and those per frame to FILE-frames.csv.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of the table.")] = False,
) -> None:
    """J, F and J&F on DAVIS-2017 of objects that nobody pointed out: predicted ids are matched to annotated ones, the best way over the clip.

    All frames are scored; ids that are left over cost nothing, and an object without an id counts as not found.
    """
    from rotoscope.datasets.davis import read_davis
    from rotoscope.evaluation.davis_unsupervised import ANNOTATIONS_FOLDER, as_dict, find_proposals, score_proposals

    folder = ANNOTATIONS_FOLDER if (data / ANNOTATIONS_FOLDER).is_dir() else "Annotations"
    files = find_proposals(read_davis(data, clips=_names(clips), annotations_folder=folder), predictions)
    _prepare_outputs(csv, None)
    scores = _score(files, workers or _enough_workers(files), score_proposals)
    if as_json:
        typer.echo(json.dumps(as_dict(scores)))
    else:
        _show(scores, None, as_json=False)
        if folder != ANNOTATIONS_FOLDER:
            typer.echo(f"note: {data} has no {ANNOTATIONS_FOLDER}, with which the challenge is scored; {folder} was taken", err=True)
    _write(scores, csv, None)


@app.command("davis-interactive")
def davis_interactive(
    *,
    model: Annotated[str, typer.Option(help="The tracker of `rotoscope weights list` that carries masks on.")],
    data: Annotated[Path, typer.Option(help="The DAVIS root to work on, with every frame annotated.")],
    weights: Annotated[Path | None, typer.Option(help="A weights file of the tracker.")] = None,
    interaction_model: Annotated[str | None, typer.Option(help="Makes masks of lines; by default the one that ships.")] = None,
    interaction_weights: Annotated[Path | None, typer.Option(help="A weights file of it.")] = None,
    fuser: Annotated[str, typer.Option(help="Joins rounds: a model, blend (by nearness), or none.")] = "blend",
    fuser_weights: Annotated[Path | None, typer.Option(help="A weights file of it.")] = None,
    scribbles: Annotated[Path | None, typer.Option(help="First lines: CLIP/001.json. By default Scribbles in the root; else the robot's.")] = None,
    starts: Annotated[int, typer.Option(min=1, help="From how many frames the robot starts each clip, without scribbles.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Chooses those frames.")] = 0,
    interactions: Annotated[int, typer.Option(min=1, help="At most so many with a clip, from one start.")] = 8,
    seconds: Annotated[float, typer.Option(help="The budget of one interaction, for each object.")] = 30.0,
    per_frame: Annotated[int, typer.Option(min=1, help="So many on a frame before masks are carried on; MiVOS: 3.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    clips: Annotated[str | None, typer.Option(help="Only these clips: a,b,c.")] = None,
    year: Annotated[Literal["auto", "2016", "2017"], typer.Option(help="2016: one merged object. 2017: object ids.")] = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write figures, the curve and what was drawn to this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of the table.")] = False,
) -> None:
    """AUC-J&F and J&F@60s on DAVIS interactive: a robot draws lines where masks are wrong, a session answers, against the clock.

    A session is a tracker, a model that makes masks of lines, and a fuser that joins rounds. Every frame is scored, as officially.
    """
    from rotoscope.datasets.davis import read_davis
    from rotoscope.evaluation.davis_interactive import Rules, find_starts

    rules = Rules(interactions, interactions * seconds, per_frame)
    chosen = read_davis(data, clips=_names(clips), year=year, with_frames=True)
    folder = scribbles if scribbles is not None else data / "Scribbles" if (data / "Scribbles").is_dir() else None
    found = find_starts(chosen, folder, num_drawn=starts, seed=seed)
    _check_no_results(output)
    begin = _session_maker(model, weights, (interaction_model, interaction_weights), (fuser, fuser_weights), device)
    samples = _play(found, begin, rules, output)
    _show_curve(samples, rules, output, as_json=as_json)


def _check_no_results(output: Path | None) -> None:
    """Refuse a folder that holds results, and make one that is not there, before any work is done."""
    if output is None:
        return
    from rotoscope.evaluation.interactive_report import JSON_FILE
    from rotoscope.evaluation.report import prepare_new_results

    prepare_new_results(output, JSON_FILE)


def _session_maker(
    model: str, weights: Path | None, interaction: tuple[str | None, Path | None], fuser: tuple[str, Path | None], device: str
) -> "SessionMaker":
    """What begins a session on a clip; the models are loaded once."""
    from rotoscope.models import registry
    from rotoscope.tracking.rounds import LinearBlend, NewerWins

    if fuser[0] in ("blend", "none") and fuser[1] is not None:
        message = f"--fuser-weights belong to a model; --fuser {fuser[0]} has none"
        raise InputError(message)
    tracker = registry.load(model, weights=weights, device=device)
    maker = registry.load_mask_maker(interaction[0] or registry.DEFAULT_MASK_MAKER, weights=interaction[1], device=device)
    without_model: dict[str, Fuser] = {"blend": LinearBlend(), "none": NewerWins()}
    joined = without_model[fuser[0]] if fuser[0] in without_model else registry.load_fuser(fuser[0], weights=fuser[1], device=device)

    def begin(clip: "AnnotatedClip", object_ids: tuple[int, ...]) -> "Session":
        from rotoscope.evaluation.davis_interactive import DrivenSession
        from rotoscope.tracking.interactive import InteractiveSession
        from rotoscope.video.read import read_video

        session = InteractiveSession(list(read_video(clip.frame_paths[0].parent)), tracker, mask_maker=maker, fuser=joined)
        for object_id in object_ids:
            session.add_object(object_id)
        return DrivenSession(session)

    return begin


def _play(starts: "Sequence[Start]", begin: "SessionMaker", rules: "Rules", output: Path | None) -> "list[Sample]":
    """All samples; after each round the report is written, so that a run that is stopped is not lost."""
    from rotoscope.evaluation.davis_interactive import play
    from rotoscope.evaluation.interactive_report import write_report

    ended: list[Sample] = []
    with progress_bar() as progress:
        task = progress.add_task("interacting", total=len(starts) * rules.interactions)
        for number, start in enumerate(starts):
            progress.update(task, description=f"{start.clip.name}/{start.name}", completed=number * rules.interactions)
            so_far: list[Sample] = []
            for sample in play(start, begin, rules):
                so_far = [sample]
                progress.advance(task)
                if output is not None:
                    write_report(output, ended + so_far, rules)
            ended += so_far
        progress.update(task, completed=len(starts) * rules.interactions)
    return ended


def _show_curve(samples: "Sequence[Sample]", rules: "Rules", output: Path | None, *, as_json: bool) -> None:
    from rotoscope.evaluation.interactive_report import as_dict, notes, table, write_plot

    if as_json:
        typer.echo(json.dumps(as_dict(samples, rules)))
    else:
        print_table(table(samples, rules))
    for note in notes(samples):
        typer.echo(f"note: {note}", err=True)
    if output is not None:
        write_plot(output, samples, rules)
        typer.echo(f"wrote the figures, the curve and what was drawn to {output}", err=True)


def _root(predictions: Path | None, ground_truth: Path | None, model: str | None, data: Path | None) -> Path:
    """The DAVIS root, from whichever of the two pairs of options was given."""
    if predictions is not None and ground_truth is not None and model is None and data is None:
        return ground_truth
    if model is not None and data is not None and predictions is None and ground_truth is None:
        return data
    message = "give either --predictions DIR and --ground-truth DIR, to score masks, or --model NAME and --data DIR, to run a model and score it"
    raise InputError(message)


def _names(clips: str | None) -> list[str] | None:
    return None if clips is None else [name.strip() for name in clips.split(",") if name.strip()]


def _prepare_outputs(csv: Path | None, plots: Path | None) -> None:
    """Make the folders of the results, so that a wrong path is reported before the work and not after it."""
    from rotoscope.evaluation.report import prepare_folder

    if csv is not None and csv.is_dir():
        message = f"--csv {csv} is a folder; give the name of a file in it"
        raise InputError(message)
    for folder in (csv and csv.parent, plots):
        if folder is not None:
            prepare_folder(folder)


def _run(model: str, weights: Path | None, device: str, clips: "Sequence[AnnotatedClip]", output: Path) -> float:
    """Run the model over the clips; how many frames it tracked per second."""
    from rotoscope.models import registry

    tracker = registry.load(model, weights=weights, device=device)
    from rotoscope.evaluation.run import frames_per_second, track_clips

    done = []
    with progress_bar() as progress:
        task = progress.add_task("tracking", total=sum(len(clip.frame_paths) for clip in clips))
        for frame in track_clips(clips, tracker, output):
            done.append(frame)
            progress.update(task, advance=1, description=frame.clip)
    return frames_per_second(done)


def _enough_workers(files: "Sequence[ClipFiles]") -> int:
    num_frames = sum(len(clip.annotation_paths) for clip in files)
    return min(os.cpu_count() or 1, 1 + num_frames // FRAMES_PER_WORKER)


def _score(files: "Sequence[ClipFiles]", workers: int, score: "Callable[..., Iterator[ClipScores]]") -> "list[ClipScores]":
    scores = []
    with progress_bar() as progress:
        task = progress.add_task("scoring", total=sum(len(clip.annotation_paths) for clip in files))
        for clip in score(files, workers=workers):
            scores.append(clip)
            progress.advance(task, len(clip.frame_names))
    return scores


def _show(scores: "Sequence[ClipScores]", fps: float | None, *, as_json: bool) -> None:
    from rotoscope.evaluation.report import as_dict, table

    if as_json:
        typer.echo(json.dumps(as_dict(scores, fps=fps)))
        return
    print_table(table(scores))
    for clip in scores:
        for note in clip.notes:
            typer.echo(f"note: {note}", err=True)
    if fps is not None:
        typer.echo(f"{fps:.1f} frames/s, the loading of the model and the writing of masks not counted")


def _write(scores: "Sequence[ClipScores]", csv: Path | None, plots: Path | None) -> None:
    from rotoscope.evaluation.report import write_csv, write_plots

    if csv is not None:
        for path in write_csv(csv, scores):
            typer.echo(f"wrote {path}", err=True)
    if plots is not None:
        typer.echo(f"wrote {len(write_plots(plots, scores))} plots to {plots}", err=True)
