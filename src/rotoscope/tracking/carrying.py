"""Rounds of correction as steps of a project: each result is kept at once, given frames are left alone, and stopping loses nothing."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from rotoscope.errors import InputError, PropagationError
from rotoscope.tracking.drawing import nothing
from rotoscope.tracking.passes import GivenFrame, PassSource, with_others
from rotoscope.tracking.project import Project
from rotoscope.tracking.rounds import propagate_round, stretches
from rotoscope.types import Frame, Fuser, Masks


@dataclass(frozen=True, slots=True)
class PropagationStep:
    """One frame of a propagation.

    Attributes:
        frame: that was reached.
        masks: of it, as they are now kept.
        corrected: the given frame that the masks come from.
        done: how many frames were reached, this one included.
        total: how many there will be; a frame between two corrected ones is reached from both.
    """

    frame: Frame
    masks: Masks
    corrected: int
    done: int
    total: int


class Carrying:
    """Carries given masks through a clip.

    Args:
        project: where masks come from and results go.
        frames: the clip.
        passes: where propagators come from.
        fuser: joins results of earlier rounds with newer ones.
    """

    def __init__(self, project: Project, frames: Sequence[Frame], passes: PassSource, fuser: Fuser) -> None:
        self._project = project
        self._frames = frames
        self._passes = passes
        self._fuser = fuser
        self._running: _Run | None = None

    def start(self, corrections: Sequence[int] | None) -> Generator[PropagationStep]:
        """The steps of a propagation from given frames, in their order; by default from those that are pending.

        Raises:
            InputError: nothing was given, or a frame was not.
        """
        with self._project.lock:
            given = self._project.state.given_frames
            if not given:
                message = "there is nothing to carry on: mark an object on a frame first"
                raise InputError(message)
            missing = [index for index in corrections or () if index not in given]
            if missing:
                message = f"frames {missing} were not given; propagation starts from given frames, which are {sorted(given)}"
                raise InputError(message)
            if self._running is not None:
                self._passes.replace()
            self._running = _Run(self._project, self._frames)
            return self._steps(self._running, list(self._project.state.pending_frames if corrections is None else corrections))

    def _steps(self, run: "_Run", corrections: Sequence[int]) -> Generator[PropagationStep]:
        lengths = [1 + run.reach(corrected) for corrected in corrections]
        done = 0
        try:
            for corrected, length in zip(corrections, lengths, strict=True):
                with closing(self._round(run, corrected)) as results:
                    for position, (frame, masks) in enumerate(results, start=1):
                        kept = self._keep(run, frame, masks, corrected, is_last=position == length)
                        done += 1
                        yield PropagationStep(frame, kept, corrected, done, sum(lengths))
        except GeneratorExit:
            raise
        except BaseException:
            self._passes.forget()
            raise
        finally:
            if self._running is run:
                self._running = None

    def _round(self, run: "_Run", corrected: int) -> Generator[tuple[Frame, Masks]]:
        with self._project.lock:
            run.check(self._running)
            given = {index: self._given(index) for index in run.given}
            earlier = _Earlier(self._project, dict(self._project.state.settled))
            propagator = self._passes.for_round(given[corrected], list(given.values()))
        correction = (corrected, given[corrected].masks)
        return propagate_round(self._frames, propagator, correction, given=list(given), earlier=earlier, fuser=self._fuser)

    def _given(self, index: int) -> GivenFrame:
        masks = self._project.masks(index)
        assert masks is not None, "a given frame has masks"
        return GivenFrame(index, self._project.state.masks[index], masks)

    def _keep(self, run: "_Run", frame: Frame, masks: Masks, corrected: int, *, is_last: bool) -> Masks:
        """Store a result, unless the frame is the given one; with the last, the round is done."""
        with self._project.lock:
            run.check(self._running)
            if frame.index != corrected:
                known = with_others(masks, self._project.masks_of(self._project.state.settled.get(frame.index)))
                there = [object_id for object_id in known.object_ids if object_id in self._project.state.objects]
                key = self._project.store.put(known.select(there))
                run.record("result", {"frame": frame.index, "masks": key})
            if is_last:
                run.record("settle", {"frame": corrected})
            return self._project.masks(frame.index) or nothing(frame.hw)


class _Run:
    """One propagation: what it started from, so that it notices when that changes."""

    def __init__(self, project: Project, frames: Sequence[Frame]) -> None:
        self._project = project
        self._num_frames = len(frames)
        self.given = project.state.given_frames
        self._origin = self._facts()
        self._step: int | None = None

    def reach(self, corrected: int) -> int:
        """How many frames a round changes."""
        return sum(len(stretch.frame_indices) for stretch in stretches(corrected, self.given, self._num_frames))

    def check(self, running: "_Run | None") -> None:
        """Refuse to go on from what is no longer so.

        Raises:
            PropagationError: masks or objects were changed meanwhile, or another propagation was started.
        """
        if running is not self or self._facts() != self._origin:
            what = "masks or objects were changed" if running is self else "another propagation was started"
            message = f"{what} while masks were carried on; what was done so far is kept: propagate again to go on from there"
            raise PropagationError(message)

    def record(self, kind: str, body: Mapping[str, object]) -> None:
        """Add to the step that is this propagation; renaming an object on the way starts another step."""
        if self._step != self._project.steps:
            self._project.record("propagate", {"frames": self.given})
            self._step = self._project.steps
        self._project.record(kind, body)

    def _facts(self) -> tuple[object, ...]:
        state = self._project.state
        return self._project.rewinds, list(state.objects), [(index, state.masks[index]) for index in state.given_frames]


class _Earlier(Mapping[int, Masks]):
    """Masks of earlier rounds, read when they are asked for."""

    def __init__(self, project: Project, keys: Mapping[int, str]) -> None:
        self._project = project
        self._keys = keys

    def __getitem__(self, frame_index: int) -> Masks:
        masks = self._project.masks_of(self._keys[frame_index])
        assert masks is not None, "a key leads to masks"
        return masks

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
