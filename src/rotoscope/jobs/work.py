"""One clip to one folder. Resumable: a killed run goes on from its last save and gives the same masks."""

import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rotoscope._files import write_atomically
from rotoscope._version import __version__
from rotoscope.errors import InputError
from rotoscope.jobs.discover import Search, SearchRequest, found_as_json
from rotoscope.jobs.folder import FrameRecord, Progress, RunFolder, record_of
from rotoscope.jobs.locked import Existing
from rotoscope.jobs.marks import check_marks, marked_masks, marks_as_json
from rotoscope.jobs.plan import Direction, Pass, plan_passes, plan_search
from rotoscope.jobs.track import GivenMasks, TrackResult, frames_of, result_of
from rotoscope.jobs.youtube_vis import check_youtube_vis, write_youtube_vis
from rotoscope.models import registry
from rotoscope.models.checkpoints import sha256
from rotoscope.tracking.discover import Discoverer, follow
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Frame, Interaction, Masks, Propagator, Tracker
from rotoscope.video.draw import overlay
from rotoscope.video.masks import read_stored_labels
from rotoscope.video.read import Clip, open_clip
from rotoscope.video.write import OverlayVideo, ThreadedWriter, write_labels

SAVE_EVERY_SECONDS = 20.0
"""A killed run loses at most so much work; saves are rarer still where one takes more than a twentieth of that."""

OverlayCodec = Literal["vp9", "h264", "none"]


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """What to track, with what, and where the results go.

    Attributes:
        video: a file, folder, stream URL or camera number.
        masks: mask files by frame index.
        output: the folder for the results.
        interactions: what was marked on frames; together with masks of the same frame it corrects them.
        interaction_model: the maker of masks that reads the marks, a name of the registry.
        interaction_weights: its weights file; None for those that ship or were imported.
        search: what to look for besides, or instead; None to follow only what was given.
        model: a name of the registry.
        weights: a weights file; None for those that ship or were imported.
        device: "auto", "cpu", "cuda", ...
        direction: see `rotoscope.jobs.plan.plan_passes`.
        max_memory_bytes: the budget for remembered frames.
        start_frame: the first frame to cover.
        stop_frame: where to stop, without this frame; needed for live streams.
        resize_masks: accept masks of another size.
        overlay: the codec of the overlay video, or "none".
        existing: what to do when the folder holds a run already.
        youtube_vis: the file for the masks as YouTube-VIS JSON, once the run is finished; None for none.
        settings: fields of the model's config to change.
    """

    video: str | int
    masks: Mapping[int, Path]
    output: Path
    interactions: tuple[Interaction, ...] = ()
    interaction_model: str = registry.DEFAULT_MASK_MAKER
    interaction_weights: Path | None = None
    search: SearchRequest | None = None
    model: str = "default"
    weights: Path | None = None
    device: str = "auto"
    direction: Direction = "both"
    max_memory_bytes: int | None = None
    start_frame: int = 0
    stop_frame: int | None = None
    resize_masks: bool = False
    overlay: OverlayCodec = "vp9"
    existing: Existing = "refuse"
    youtube_vis: Path | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


class TrackRun:
    """A checked request: iterate `records()` to do the work, stop iterating to stop it; what was done stays and can be resumed.

    Attributes:
        clip: the opened video.
        passes: the walks over it, in order.
        given: the given masks.
        total_frames: how many records a whole run gives; None for a live stream.
        notes: what was noticed about the given masks.

    Raises:
        InputError, CheckpointError: the video, a mask or the model cannot be used. Nothing was written.
    """

    def __init__(self, request: TrackRequest) -> None:
        self.request = request
        self.clip = open_clip(request.video)
        if self.clip.is_live and request.stop_frame is None:
            message = f"{self.clip.name} is a live stream without an end; say how many frames to take with --max-frames"
            raise InputError(message)
        if self.clip.is_live and request.existing == "resume":
            message = f"{self.clip.name} is a live stream, which cannot be resumed; use --overwrite, or another folder with -o"
            raise InputError(message)
        check_marks(request.interactions, self.clip)
        check_youtube_vis(request.youtube_vis)
        marked = {one.frame_index for one in request.interactions}
        plan, within = plan_passes if request.search is None else plan_search, slice(request.start_frame, request.stop_frame)
        self.passes = plan({*request.masks, *marked}, self.clip.num_frames, direction=request.direction, within=within)
        self.given = GivenMasks(request.masks, self.clip.hw, resize=request.resize_masks)
        if request.interactions:
            self.given = self._marked(request, self.given)
        self.notes = self.given.notes
        self._search = None if request.search is None else Search.load(request.search, device=request.device)
        self._tracker: Tracker = registry.load(request.model, weights=request.weights, device=request.device, **request.settings)
        lengths = [one_pass.length for one_pass in self.passes]
        self.total_frames = None if None in lengths else sum(length or 0 for length in lengths) - (len(lengths) - 1)

    def _marked(self, request: TrackRequest, given: GivenMasks) -> GivenMasks:
        """The given masks, and those that the marks make."""
        maker = registry.load_mask_maker(request.interaction_model, weights=request.interaction_weights, device=request.device)
        made = marked_masks(self.clip, request.interactions, maker, given)
        joined = GivenMasks({**request.masks, **made}, self.clip.hw, resize=request.resize_masks)
        joined.notes = given.notes
        return joined

    def records(self) -> Generator[FrameRecord]:
        """Do the work: a record per frame, in the order of the passes; frames done by an earlier process are not repeated.

        Raises:
            OutputError: the folder cannot be used or written to; what was written before stays valid.
            PropagationError: the model failed on a frame; the message names it.
        """
        request = self.request
        with RunFolder(request.output, self.clip.name, _plan_of(request, self.clip), existing=request.existing) as folder:
            progress, memory = folder.restore()
            if not progress.finished:
                session = _Session(self, folder, progress)
                try:
                    yield from session.run(memory)
                finally:
                    session.close()
            if request.youtube_vis is not None:
                write_youtube_vis(request.youtube_vis, folder, self.clip)

    def start(self) -> Propagator:
        """A new pass of the model, or of a search with it."""
        propagator = self._tracker.start(max_memory_bytes=self.request.max_memory_bytes)
        return propagator if self._search is None else self._search.start(propagator, self.given)


class _Session:
    """One process's share of a run: it writes what the passes give, and keeps how far they are."""

    def __init__(self, run: TrackRun, folder: RunFolder, progress: Progress) -> None:
        self._run = run
        self._folder = folder
        self._progress = progress
        self._started = self._saved = time.monotonic()
        self._save_seconds = 0.0
        self._frames_done = 0
        self._propagator: Propagator | None = None
        self._handed_over: dict[str, Tensor] = {}
        self._discoverer: Discoverer | None = None
        self._writer = ThreadedWriter()
        self._video: OverlayVideo | None = None

    def run(self, memory: Mapping[str, Tensor]) -> Iterator[FrameRecord]:
        """All passes from where the run is; `memory` is what the model remembered there."""
        passes = self._run.passes
        for number in range(self._progress.pass_number, len(passes)):
            start = self._progress.next_frame
            self._begin(memory)
            self._progress = replace(self._progress, pass_number=number)
            yield from self._run_pass(passes[number], start)
            memory = self._handed_over = {} if self._discoverer is None else self._discoverer.handed_over()
            self._progress = replace(self._progress, pass_number=number + 1, next_frame=None)
        if passes[-1].reverse:
            self._draw_stored()
        self._progress = replace(self._progress, finished=True)

    def _begin(self, memory: Mapping[str, Tensor]) -> None:
        """Start a pass that remembers what was saved in its midst, or what the one before handed over."""
        propagator = self._run.start()
        self._discoverer = propagator if isinstance(propagator, Discoverer) else None
        if memory:
            propagator.restore(memory)
        if self._progress.next_frame is None:
            self._handed_over = dict(memory)
        self._propagator = propagator

    def _run_pass(self, one_pass: Pass, start: int | None) -> Iterator[FrameRecord]:
        propagator, given = self._propagator, self._run.given
        assert propagator is not None, "a pass has its propagator"
        frames = self._frames(one_pass, start)
        results = follow(frames, self._discoverer) if self._discoverer else propagate(frames, propagator, given, resumed=start is not None)
        with closing(frames), closing(results):
            while (step := self._next(results)) is not None:
                frame, masks = step
                record = self._write(result_of(frame, masks, given=frame.index in given), draw=not one_pass.reverse)
                self._progress = replace(self._progress, next_frame=frame.index + (-1 if one_pass.reverse else 1))
                if not (one_pass.reverse and len(self._run.passes) > 1 and record.given):  # the forward pass starts with this frame
                    self._frames_done += 1
                    yield record
                self._save_now_and_then()

    def _next(self, results: Iterator[tuple[Frame, Masks]]) -> tuple[Frame, Masks] | None:
        """The next result; while it is being made, what the model remembers is not fit to be saved."""
        propagator, self._propagator = self._propagator, None
        step = next(results, None)
        self._propagator = propagator
        return step

    def _frames(self, one_pass: Pass, start: int | None) -> Generator[Frame]:
        """The frames still to do. With an overlay, those done before are read again on the way, and drawn with their stored masks."""
        todo = one_pass if start is None else one_pass.rest(start)
        if one_pass.reverse or self._run.request.overlay == "none" or self._run.clip.is_live:
            yield from frames_of(self._run.clip, todo)
            return
        first_stored = min((*self._stored_records(), todo.start))
        for frame in frames_of(self._run.clip, replace(todo, start=first_stored)):
            if frame.index < todo.start:
                self._draw(frame, read_stored_labels(self._folder.mask_path(frame)))
            else:
                yield frame

    def _write(self, result: TrackResult, *, draw: bool) -> FrameRecord:
        path = self._folder.mask_path(result.frame)
        record = record_of(result, path.name)
        self._writer.submit(partial(write_labels, path, result.labels))
        self._writer.submit(partial(self._folder.append, record))
        if draw:
            self._draw(result.frame, result.labels)
        return record

    def _draw(self, frame: Frame, labels: NDArray[np.int32]) -> None:
        if self._run.request.overlay == "none":
            return
        if self._video is None:
            self._video = OverlayVideo(self._folder.overlay_path(self._run.request.overlay), frame.hw, self._run.clip.fps, self._run.request.overlay)
        self._writer.submit(partial(_draw_on, self._video, frame, labels))

    def _draw_stored(self) -> None:
        """The overlay of a run that only went backwards."""
        records = self._stored_records()
        if self._run.request.overlay != "none" and records:
            for frame in frames_of(self._run.clip, Pass(min(records), max(records) + 1)):
                self._draw(frame, read_stored_labels(self._folder.mask_path(frame)))

    def _stored_records(self) -> dict[int, FrameRecord]:
        """The records so far, once all that was submitted is on disk."""
        self._writer.flush()
        return self._folder.records()

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved > max(SAVE_EVERY_SECONDS, 20 * self._save_seconds):
            self._save()

    def _save(self) -> None:
        begun = time.monotonic()
        self._writer.flush()
        memory = self._handed_over if self._propagator is None or self._progress.next_frame is None else self._propagator.state()
        self._folder.save(replace(self._progress, seconds=self._seconds()), memory)
        self._saved = time.monotonic()
        self._save_seconds = self._saved - begun

    def _seconds(self) -> float:
        return self._progress.seconds + time.monotonic() - self._started

    def close(self) -> None:
        """Finish what was begun: masks and records on disk, a playable overlay, the state to resume from, the summary.

        Raises:
            OutputError: some of it could not be written.
        """
        with ExitStack() as stack:  # each step runs even if one before it failed
            stack.callback(self._write_summary)
            if self._video is not None:
                stack.callback(self._video.close)
            stack.callback(self._writer.close)
            if self._propagator is not None:
                stack.callback(self._save)  # the last pushed is the first to run: once all that was submitted is on disk

    def _write_summary(self) -> None:
        records = list(self._folder.records().values())
        request, seconds = self._run.request, self._seconds()
        summary = {
            "rotoscope": __version__,
            "video": str(request.video),
            "model": registry.spec_of(request.model).name,
            "complete": self._progress.finished,
            "num_frames": len(records),
            "height": self._run.clip.hw[0],
            "width": self._run.clip.hw[1],
            "seconds": round(seconds, 3),
            "fps": round(len(records) / seconds, 3),
            "object_ids": sorted({object_id for record in records for object_id in record.objects}),
            "warnings": [*self._run.notes, *self._run.clip.warnings, *(self._discoverer.notes if self._discoverer else ())],
            **(found_as_json(self._discoverer, records) if self._discoverer else {}),
            "frames": [asdict(record) for record in records],
        }
        write_atomically(self._folder.summary, (json.dumps(summary, indent=1) + "\n").encode())


def _draw_on(video: OverlayVideo, frame: Frame, labels: NDArray[np.int32]) -> None:
    video.write(overlay(frame.image, labels), frame.time_seconds)


def _plan_of(request: TrackRequest, clip: Clip) -> dict[str, Any]:
    """What a resumed run must have in common with the one it goes on with."""
    spec = registry.spec_of(request.model)
    weights = request.weights or registry.find_weights(spec).path
    return {
        "rotoscope": __version__,
        "video": str(request.video),
        "size": list(clip.hw),
        "masks": {str(frame_index): sha256(path) for frame_index, path in sorted(request.masks.items())},
        "model": spec.name,
        "weights": sha256(weights) if weights is not None else None,
        "direction": request.direction,
        "max_memory_bytes": request.max_memory_bytes,
        "frames": [request.start_frame, request.stop_frame],
        "overlay": request.overlay,
        "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in request.settings.items()},  # as JSON gives it back
        **_marks_of(request),
        **({} if request.search is None else request.search.as_json()),
    }


def _marks_of(request: TrackRequest) -> dict[str, Any]:
    """What was marked, and what made masks of it; nothing where nothing was."""
    if not request.interactions:
        return {}
    weights = request.interaction_weights or registry.find_weights(registry.spec_of(request.interaction_model)).path
    return {
        "interactions": marks_as_json(request.interactions),
        "interaction_model": request.interaction_model,
        "interaction_weights": None if weights is None else sha256(weights),
    }
