"""Images and videos to one folder of detections. Resumable: a killed run goes on after its last picture, with the same results."""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from rotoscope._version import __version__
from rotoscope.errors import InputError, PropagationError
from rotoscope.jobs.detect import DEFAULT_SCORE, DEFAULT_TOP_K, Choice, choose, class_ids, find, in_batches
from rotoscope.jobs.detect_folder import DetectFolder, PictureRecord, SkippedRecord, own_categories, read_known_numbers
from rotoscope.jobs.detect_inputs import NamedPicture, Place, Unreadable, VideoFrames, open_inputs
from rotoscope.jobs.detect_writers import FoundObject, PictureWriter, Wanted, objects_of, result_of, results_of, stored_objects
from rotoscope.jobs.locked import Existing
from rotoscope.models import registry
from rotoscope.models.checkpoints import sha256
from rotoscope.tracking.class_names import class_names_of, name_of
from rotoscope.types import Detections, Detector
from rotoscope.video.write import ThreadedWriter

WAITING_PICTURES = 2
"""How many pictures with their masks wait to be written: 15 masks of a 4K frame take 120 MB."""


@dataclass(frozen=True, slots=True)
class DetectRequest:
    """What to look for, in what, and where the results go.

    Attributes:
        inputs: images, folders of images, videos, stream URLs and camera numbers.
        output: the folder for the results.
        model: a name of the registry.
        weights: a weights file; None for those that ship or were imported.
        device: "auto", "cpu", "cuda", ...
        score: the least score of a detection.
        top_k: how many of a picture are kept, at most.
        classes: the names of the classes that are kept; None for all.
        batch: how many pictures the model looks at together.
        max_frames: look at so many frames of each video at most; needed for live streams.
        wanted: what to write besides the JSON.
        ground_truth: a COCO file whose numbers of images and classes to use, and whose images alone to look at.
        existing: what to do when the folder holds a run already.
        settings: fields of the model's config to change.
    """

    inputs: tuple[str | Path | int, ...]
    output: Path
    model: str = registry.DEFAULT_DETECTOR
    weights: Path | None = None
    device: str = "auto"
    score: float = DEFAULT_SCORE
    top_k: int = DEFAULT_TOP_K
    classes: tuple[str, ...] | None = None
    batch: int = 1
    max_frames: int | None = None
    wanted: Wanted = field(default_factory=Wanted)
    ground_truth: Path | None = None
    existing: Existing = "refuse"
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PictureReport:
    """What was found in one picture, without its masks.

    Attributes:
        image: its entry in `images.json`.
        detections: best first: `class`, `category_id`, `bbox` as x, y, width, height, and `score`.
        skipped: why it could not be read; None if it was.
    """

    image: dict[str, Any]
    detections: list[dict[str, Any]] = field(default_factory=list)
    skipped: str | None = None


class DetectRun:
    """A checked request: iterate `reports()` to do the work, stop iterating to stop it; what was done stays and can be resumed.

    Attributes:
        inputs: the opened inputs.
        names: of the model's classes.
        categories: their numbers in the results.
        choice: which detections are kept.
        notes: what was noticed about the inputs.
        total_pictures: how many reports a whole run gives, but for damaged frames.
        summary: that of the run, once `reports()` has ended.

    Raises:
        InputError, CheckpointError: an input or the model cannot be used. Nothing was written.
    """

    def __init__(self, request: DetectRequest) -> None:
        Choice(request.score, request.top_k)
        for number, option in ((request.batch, "--batch"), (request.max_frames, "--max-frames")):
            if number is not None and number < 1:
                message = f"{option} {number} is no picture at all; give 1 or more"
                raise InputError(message)
        self.request = request
        known = None if request.ground_truth is None else read_known_numbers(request.ground_truth)
        self.inputs = open_inputs(request.inputs, max_frames=request.max_frames, known_ids=None if known is None else known.images)
        self.detector = _load(request)
        self.names = class_names_of(self.detector)
        self.choice = Choice(request.score, request.top_k, class_ids(self.names, request.classes))
        self.categories, note = (own_categories(self.names), "") if known is None else known.categories_for(self.names)
        self.notes = [*self.inputs.notes, *([note] if note else [])]
        self.total_pictures = self.inputs.num_pictures
        self.summary: dict[str, Any] = {}

    def reports(self) -> Generator[PictureReport]:
        """Do the work: a report for each picture, in the order of the inputs; pictures done by an earlier process are not repeated.

        Raises:
            OutputError: the folder cannot be used or written to; what was written before stays valid.
        """
        with DetectFolder(self.request.output, _plan_of(self), existing=self.request.existing) as folder:
            if (summary := folder.completed()) is not None:
                self.summary = summary
                return
            session = _Session(self, folder)
            try:
                yield from session.run()
            finally:
                self.summary = session.close()


class _Session:
    """One process's share of a run."""

    def __init__(self, run: DetectRun, folder: DetectFolder) -> None:
        self._run = run
        self._folder = folder
        self._output = PictureWriter(run.request.output, run.request.wanted, run.names)
        self._writer = ThreadedWriter(WAITING_PICTURES)
        self._finished = False
        self._seconds_before, self._next = 0.0, Place(0, 0)
        for record in folder.records():
            self._seconds_before, self._next = record.seconds, Place(record.place.source, record.place.index + 1)
        self._started = time.monotonic()

    def run(self) -> Iterator[PictureReport]:
        """All pictures that are left."""
        self._redraw()
        with closing(self._run.inputs.pictures(self._next)) as pictures:
            for some in in_batches(pictures, self._run.request.batch):
                yield from self._look_at(some)
        self._finished = True

    def _look_at(self, some: list[NamedPicture | Unreadable]) -> Iterator[PictureReport]:
        readable = [picture for picture in some if isinstance(picture, NamedPicture)]
        started = time.perf_counter()
        kept = iter([objects_of(choose(found, self._run.choice)) for found in _find(self._run.detector, readable)])
        seconds = (time.perf_counter() - started) / max(1, len(readable))
        for picture in some:
            if isinstance(picture, Unreadable):
                self._writer.submit(partial(self._folder.append, SkippedRecord(picture.place, picture.file_name, picture.reason, self._seconds())))
                yield PictureReport({"file_name": picture.file_name}, skipped=picture.reason)
            else:
                objects = next(kept)
                image = _image_entry(picture, self._video(picture.place.source))
                self._writer.submit(partial(self._write, picture, image, objects, seconds))
                yield PictureReport(image, [self._about_object(one) for one in objects])

    def _write(self, picture: NamedPicture, image: dict[str, Any], objects: list[FoundObject], network_seconds: float) -> None:
        """Everything about a picture; the record last, so that what has a record is complete. Runs in the writer's thread."""
        files = self._output.write(picture, objects, self._video(picture.place.source))
        results = results_of(objects, picture.image_id, self._run.categories)
        ids = [one.class_id for one in objects]
        self._folder.append(PictureRecord(picture.place, image, results, ids, files, network_seconds, self._seconds()))

    def _about_object(self, one: FoundObject) -> dict[str, Any]:
        result = result_of(one, self._run.categories)
        return {"class": name_of(self._run.names, one.class_id), **result}

    def _redraw(self) -> None:
        """Draw the frames that an earlier process did of the video at which it stopped, so that its overlay is whole."""
        video = self._video(self._next.source)
        if self._run.request.wanted.overlay == "none" or video is None or self._next.index == 0:
            return
        records = self._records_of(self._next.source)
        record = next(records, None)
        with closing(video.clip.frames(0, self._next.index)) as frames:
            for frame in frames:
                if record is not None and record.place.index == frame.index:
                    self._output.draw_frame(record.place, frame, stored_objects(record), video)
                    record = next(records, None)

    def _records_of(self, source: int) -> Iterator[PictureRecord]:
        for record in self._folder.records():
            if isinstance(record, PictureRecord) and record.place.source == source:
                yield record

    def _video(self, source: int) -> VideoFrames | None:
        """The video that a source is, if it is one."""
        found = self._run.inputs.sources[source] if source < len(self._run.inputs.sources) else None
        return found if isinstance(found, VideoFrames) else None

    def _seconds(self) -> float:
        return round(self._seconds_before + time.monotonic() - self._started, 3)

    def close(self) -> dict[str, Any]:
        """Finish what was begun: all records on disk, a playable overlay, the COCO files, the summary.

        Raises:
            OutputError: some of it could not be written.
        """
        summary: list[dict[str, Any]] = []
        with ExitStack() as stack:  # each step runs even if one before it failed
            stack.callback(lambda: summary.append(self._folder.finish(self._about(), self._run.categories)))
            stack.callback(self._output.close)
            stack.callback(self._close_writer)  # the last pushed is the first to run
        return summary[0]

    def _close_writer(self) -> None:
        try:
            self._writer.close()
        except BaseException:
            self._finished = False
            raise

    def _about(self) -> dict[str, Any]:
        request, seconds = self._run.request, self._seconds()
        return {
            "complete": self._finished,
            "inputs": [str(one) for one in request.inputs],
            "model": registry.spec_of(request.model).name,
            "seconds": seconds,
            "notes": self._run.notes,
            "warnings": self._run.inputs.warnings,
        }


def _find(detector: Detector, pictures: list[NamedPicture]) -> list[Detections]:
    """What the detector finds in each picture.

    Raises:
        PropagationError: it failed; the message names the pictures.
    """
    try:
        return find(detector, [picture.frame for picture in pictures])
    except RuntimeError as error:
        names = ", ".join(picture.file_name for picture in pictures)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"the model failed on {names} ({reason}); what was done before stays, and --resume goes on from there"
        raise PropagationError(message) from error


def _load(request: DetectRequest) -> Detector:
    """The detector. Where it has such settings, it is told beforehand what the results leave out, so that it makes no masks of that."""
    spec = registry.spec_of(request.model)
    early: dict[str, object] = {}
    if spec.task == "detect":
        config = registry.module_of(spec).VARIANTS[spec.name]
        known = {entry.name for entry in fields(config)}
        early = {"min_score": request.score} if "min_score" in known else {}
        names = request.settings.get("class_names", getattr(config, "class_names", ()))
        if request.classes and "only_classes" in known and isinstance(names, tuple) and set(request.classes) <= set(names):
            early["only_classes"] = request.classes
    return registry.load_detector(spec.name, weights=request.weights, device=request.device, **{**early, **request.settings})


def _image_entry(picture: NamedPicture, video: VideoFrames | None) -> dict[str, Any]:
    height, width = picture.frame.hw
    entry = {"id": picture.image_id, "file_name": picture.file_name, "width": width, "height": height}
    if video is None:
        return entry
    return {**entry, "video": video.clip.name, "frame_index": picture.frame.index, "time_seconds": picture.frame.time_seconds}


def _plan_of(run: DetectRun) -> dict[str, Any]:
    """What a resumed run must have in common with the one it goes on with."""
    request = run.request
    spec = registry.spec_of(request.model)
    weights = request.weights or registry.find_weights(spec).path
    return {
        "task": "detect",
        "rotoscope": __version__,
        "inputs": [str(one) for one in request.inputs],
        "pictures": [source.num_pictures for source in run.inputs.sources],
        "model": spec.name,
        "weights": None if weights is None else sha256(weights),
        "score": request.score,
        "top_k": request.top_k,
        "classes": request.classes,
        "wanted": asdict(request.wanted),
        "ground_truth": None if request.ground_truth is None else sha256(request.ground_truth),
        "settings": dict(request.settings),
    }
