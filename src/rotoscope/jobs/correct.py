"""Corrections of the masks of a clip, kept in a project: done in order, carried on to the other frames, written out; stopped and undone at will."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from rotoscope.errors import InputError
from rotoscope.jobs.folder import FinishedRun, read_finished
from rotoscope.jobs.locked import plan_path
from rotoscope.jobs.project.corrections import Correction, Drawn, apply, needs_maker, prepared
from rotoscope.jobs.project.export import OpenProject, OutputRequest, check_output, masked_frames, write_results
from rotoscope.jobs.project.folder import is_project, noted_clip, remember_clip, remembered_clip, steps_of, unseen_frames
from rotoscope.models import registry
from rotoscope.tracking.interactive import Budget, InteractiveSession
from rotoscope.types import FeatureStore, Frame, Propagator, Tracker
from rotoscope.video.numbered import NumberedFrames
from rotoscope.video.read import Clip, open_clip
from rotoscope.video.streams import is_live_source

Stage = Literal["taking over", "correcting", "propagating", "writing"]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The models of a session.

    Attributes:
        tracker, tracker_weights: carries masks on; a name of the registry, and a weights file or None.
        maker, maker_weights: makes masks of marks.
        fuser, fuser_weights: joins rounds; "blend" mixes them by the distance in time.
        device: "auto", "cpu", "cuda", ...
        max_memory_bytes: the budget for remembered frames.
        settings: fields of the tracker's config to change.
    """

    tracker: str = "default"
    tracker_weights: Path | None = None
    maker: str = registry.DEFAULT_MASK_MAKER
    maker_weights: Path | None = None
    fuser: str = "blend"
    fuser_weights: Path | None = None
    device: str = "auto"
    max_memory_bytes: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CorrectRequest:
    """What to do with a project.

    Attributes:
        project: its folder; begun if there is none.
        clip: where its clip is; None if the project knows.
        origin: the folder of a finished `rotoscope track` that a fresh project starts from.
        corrections: in their order.
        propagate: carry what is pending on to the other frames.
        output: where the masks go afterwards; None to write none.
        models: which ones work.
        resize_masks: accept masks of another size.
    """

    project: Path
    clip: str | None = None
    origin: Path | None = None
    corrections: tuple[Correction, ...] = ()
    propagate: bool = True
    output: OutputRequest | None = None
    models: ModelChoice = field(default_factory=ModelChoice)
    resize_masks: bool = False


@dataclass(frozen=True, slots=True)
class CorrectStep:
    """How far the work is: a frame of a stage was finished; None for a correction that is about no frame."""

    stage: Stage
    frame_index: int | None
    done: int
    total: int


class CorrectRun:
    """A checked request on a project that is open: iterate `steps()` to do the work, stop iterating to stop it. Use it as a context, or close it.

    Attributes:
        request: as it was given.
        notes: what was noticed about given masks.
        session: the work.

    Raises:
        InputError, CheckpointError: the project, the clip, a correction or a model cannot be used. No project was begun.
        OutputError: the project cannot be written, or another process works on it.
    """

    def __init__(self, request: CorrectRequest) -> None:
        self.request = request
        self._origin = None if request.origin is None else read_finished(request.origin)
        self._path = _clip_path(request, self._origin)
        self._clip = None if self._path is None else open_clip(self._path)
        self._frames = _numbered(request.project, self._clip)
        self._corrections, self.notes = prepared(request.corrections, self._clip, resize=request.resize_masks)
        if self._origin is not None:
            _check_origin(self._origin, self._frames)
        if request.output is not None and self._clip is not None:
            check_output(request.output, request.project, self._clip.name)
        with ExitStack() as undone:
            self.session = undone.enter_context(_opened(request, self._frames))
            if self._path is not None:
                remember_clip(request.project, self._path)
            self._close = undone.pop_all().close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the project. All that was done is on disk already."""
        self._close()

    def steps(self) -> Generator[CorrectStep]:
        """Do the work: first masks from elsewhere, then the corrections, then the propagation, then the results.

        Raises:
            InputError: a correction does not fit what is there; those before it are kept.
            OutputError: the disk is full, for instance; what was done before is kept.
            PropagationError: the model failed on a frame; the message names it.
        """
        if self._origin is not None:
            yield from self._taken_over(self._origin)
        yield from self._corrected()
        if self.request.propagate and self.session.pending_frames:
            with closing(self.session.propagate()) as results:
                for step in results:
                    yield CorrectStep("propagating", step.frame.index, step.done, step.total)
        if self.request.output is not None:
            yield from self._written(self.request.output)

    def report(self, *, num_suggested: int = 0) -> dict[str, Any]:
        """The project as it is now, as JSON values; so many frames are suggested for a look."""
        session, hw = self.session, self._frames[0].hw
        return {
            "project": str(self.request.project),
            "clip": noted_clip(self.request.project),
            "num_frames": session.num_frames,
            "height": hw[0],
            "width": hw[1],
            "objects": [asdict(info) for info in session.objects],
            "given_frames": sorted(session.given_frames),
            "pending_frames": session.pending_frames,
            "frames_without_masks": sorted(set(range(session.num_frames)) - set(masked_frames(session))),
            "suggested_frames": session.suggest_frames(num_suggested) if num_suggested else [],
            "steps": [asdict(step) for step in steps_of(self.request.project)],
            "notes": self.notes,
            "warnings": [*session.warnings, *([] if self._clip is None else self._clip.warnings)],
        }

    def _taken_over(self, origin: FinishedRun) -> Iterator[CorrectStep]:
        given = {record.frame_index: origin.masks_of(record) for record in origin.records if record.given}
        results = ((record.frame_index, origin.masks_of(record)) for record in origin.records if not record.given)
        for done, index in enumerate(self.session.adopt(given, results), start=1):
            yield CorrectStep("taking over", index, done, len(origin.records))

    def _corrected(self) -> Iterator[CorrectStep]:
        total, hw = len(self._corrections), self._frames[0].hw
        for done, correction in enumerate(self._corrections, start=1):
            try:
                for index in apply(self.session, correction, self.request.project, hw):
                    yield CorrectStep("correcting", index, done, total)
            except InputError as error:
                if done == 1:
                    raise
                message = f"{error} (what the command did before that is kept; see --list, and --undo)"
                raise type(error)(message) from error

    def _written(self, output: OutputRequest) -> Iterator[CorrectStep]:
        assert self._clip is not None, "a request with an output opens the clip"
        assert self._path is not None, "and knows where it is"
        project = OpenProject(self.request.project, self.session, self._frames, self._clip, str(self._path))
        total = len(masked_frames(self.session))
        with closing(write_results(project, output)) as records:
            for done, record in enumerate(records, start=1):
                yield CorrectStep("writing", record.frame_index, done, total)


class _LoadedOnUse:
    """A tracker whose model is loaded when the first pass starts."""

    def __init__(self, load: Callable[[], Tracker]) -> None:
        self._load = load

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> Propagator:
        """A new pass."""
        return self._load().start(max_memory_bytes=max_memory_bytes, features=features)


def _clip_path(request: CorrectRequest, origin: FinishedRun | None) -> Path | None:
    """Where the clip is; None if nobody needs to see it.

    Raises:
        InputError: there is no project and no clip to begin one with, the clip is not where it was, or it is live.
    """
    draws = any(isinstance(one, Drawn) for one in request.corrections)
    begins = draws or request.propagate or origin is not None
    if not is_project(request.project):
        _check_beginning(request, begins=begins, has_clip=request.clip is not None or origin is not None)
    if request.clip is not None:
        if (request.clip.isdecimal() and not Path(request.clip).exists()) or is_live_source(request.clip):
            message = f"{request.clip} is a live source, whose frames come only once; record it first"
            raise InputError(message)
        return Path(request.clip)
    if origin is not None and not is_project(request.project):
        if Path(origin.video).exists():
            return Path(origin.video)
        message = f"the clip of the run was {origin.video}, which is not there from here; say where it is with --clip CLIP"
        raise InputError(message)
    if not (begins or request.output is not None) and unseen_frames(request.project) is not None:
        return None
    return remembered_clip(request.project)


def _check_beginning(request: CorrectRequest, *, begins: bool, has_clip: bool) -> None:
    """Refuse to begin a project without a clip, or for something that needs one that is there."""
    if plan_path(request.project).is_file():
        message = f"{request.project} holds results and no project; begin one from them in another folder, with --from {request.project}"
        raise InputError(message)
    if not has_clip or not begins:
        message = f"there is no project {request.project}; begin it with --clip CLIP and a mark such as --click x,y, or with --from OUT"
        raise InputError(message)


def _numbered(project: Path, clip: Clip | None) -> Sequence[Frame]:
    if clip is not None:
        return NumberedFrames(clip)
    frames = unseen_frames(project)
    assert frames is not None, "without them the clip is opened"
    return frames


def _check_origin(origin: FinishedRun, frames: Sequence[Frame]) -> None:
    last, hw = origin.records[-1].frame_index, frames[0].hw
    if origin.hw != hw or last >= len(frames):
        message = (
            f"the run has masks of {origin.hw[1]}x{origin.hw[0]} up to frame {last}, but the clip has {len(frames)} frames of {hw[1]}x{hw[0]}; "
            "take the clip that was tracked"
        )
        raise InputError(message)


def _opened(request: CorrectRequest, frames: Sequence[Frame]) -> InteractiveSession:
    """The session, with the models that the corrections need, loaded before a project is begun."""
    models = request.models

    @cache
    def tracker() -> Tracker:
        return registry.load(models.tracker, weights=models.tracker_weights, device=models.device, **models.settings)

    maker, fuser = None, None
    if any(needs_maker(correction) for correction in request.corrections):
        maker = registry.load_mask_maker(models.maker, weights=models.maker_weights, device=models.device)
    if request.propagate and request.corrections:
        tracker()
    if request.propagate and models.fuser != "blend":
        fuser = registry.load_fuser(models.fuser, weights=models.fuser_weights, device=models.device)
    budget = Budget(memory_bytes=models.max_memory_bytes)
    return InteractiveSession(frames, _LoadedOnUse(tracker), mask_maker=maker, fuser=fuser, project=request.project, budget=budget)
