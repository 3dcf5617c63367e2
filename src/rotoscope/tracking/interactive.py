"""The interactive session: a person marks and corrects objects on frames, a model carries the masks to all others, and nothing good is lost.

What a person gives is never altered by anything but that person. Every step is on disk before the call that did it returns, can be undone, and
is the same after undo as before, bit for bit.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.tracking.adopting import adopt
from rotoscope.tracking.carrying import Carrying, PropagationStep
from rotoscope.tracking.drawing import Drawing, nothing
from rotoscope.tracking.edits import Points, add_pixels, brush_pixels, erase_pixels, places_of, signs_of
from rotoscope.tracking.history import ObjectInfo, State, checked_colour, object_json
from rotoscope.tracking.passes import PassSource
from rotoscope.tracking.project import Project
from rotoscope.tracking.rounds import LinearBlend
from rotoscope.tracking.suggest import MaskFacts, facts_of, suggest
from rotoscope.types import Box, Clicks, Frame, Fuser, Interaction, MaskMaker, Masks, Painted, Scribble, Tracker

__all__ = ["Budget", "InteractiveSession", "ObjectInfo", "PropagationStep"]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much memory a session may take, beside its models.

    Attributes:
        mask_bytes: for the soft masks of the clip, compressed: 17 kB for an object at 480p. The others wait on disk.
        memory_bytes: for what the tracker remembers in a pass; None for no limit.
        feature_bytes: for what it computes of frames, whoever is in them, so that later rounds need not: of 480p 8 to 48 MB a frame.
    """

    mask_bytes: int = 256 * 2**20
    memory_bytes: int | None = None
    feature_bytes: int = 2**30


class InteractiveSession:
    """Work on the objects of one clip, with any tracker and any mask maker; use it as a context, or close it.

    Calls may come from several threads. While `propagate` runs, objects may be renamed and recoloured; any other step ends it with an error at its
    next frame.

    Args:
        frames: the clip, by position: a list, or `rotoscope.video.numbered.NumberedFrames` for videos.
        tracker: carries masks from frame to frame.
        mask_maker: makes masks of clicks, lines and boxes; None if masks are only painted.
        fuser: joins results of earlier rounds with newer ones.
        project: a folder to keep the work in, or to go on with; None to keep it only while the session lasts.
        budget: of memory.

    Attributes:
        num_frames: of the clip.
        warnings: what was found damaged, and how far it was recovered.

    Raises:
        InputError: the clip is empty, the project is of another clip, or was made by a newer Rotoscope.
        OutputError: the project cannot be written, or another process works on it.

    Example:
        >>> import numpy as np, torch, rotoscope
        >>> from rotoscope.tracking.interactive import InteractiveSession
        >>> clip = list(rotoscope.read_video(np.zeros((5, 64, 96, 3), np.uint8)))
        >>> with InteractiveSession(clip, rotoscope.load("mast-lite", device="cpu")) as session:
        ...     _ = session.add_mask(0, 1, torch.ones(64, 96, dtype=torch.bool))
        ...     steps = [step.frame.index for step in session.propagate()]
        >>> steps
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        tracker: Tracker,
        *,
        mask_maker: MaskMaker | None = None,
        fuser: Fuser | None = None,
        project: str | Path | None = None,
        budget: Budget | None = None,
    ) -> None:
        if not len(frames):
            message = "the clip has no frames; give at least one"
            raise InputError(message)
        budget = budget or Budget()
        self._hw = frames[0].hw
        self._project = Project(None if project is None else Path(project), len(frames), self._hw, max_mask_bytes=budget.mask_bytes)
        self._drawing = Drawing(self._project, frames, mask_maker)
        passes = PassSource(tracker, frames, max_memory_bytes=budget.memory_bytes, feature_bytes=budget.feature_bytes)
        self._carrying = Carrying(self._project, frames, passes, fuser or LinearBlend())
        self._facts: dict[tuple[str, tuple[int, ...]], MaskFacts] = {}
        self.num_frames = len(frames)
        self.warnings = self._project.warnings

    def __enter__(self) -> "InteractiveSession":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the project. All that was done is on disk already."""
        self._project.close()

    @property
    def objects(self) -> tuple[ObjectInfo, ...]:
        """The objects, in the order in which they were added."""
        return tuple(self._state.objects.values())

    @property
    def given_frames(self) -> list[int]:
        """The frames that a person gave, the one touched last at the end."""
        return self._state.given_frames

    @property
    def pending_frames(self) -> list[int]:
        """Those of them that `propagate` has not carried on yet."""
        return self._state.pending_frames

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return self._project.undoable is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo: one was undone, and nothing was done since."""
        return self._project.redoable is not None

    def masks(self, frame_index: int) -> Masks:
        """The masks of a frame as they are now; all background where there are none.

        Raises:
            InputError: there is no such frame.
            MaskError: their file is damaged.
        """
        self._drawing.check_frame(frame_index)
        with self._project.lock:
            return self._project.masks(frame_index) or nothing(self._hw)

    def has_masks(self, frame_index: int) -> bool:
        """Whether a frame was given or reached by a propagation."""
        self._drawing.check_frame(frame_index)
        return frame_index in self._state.masks

    def add_object(self, object_id: int | None = None, *, name: str = "", colour: Sequence[int] | None = None) -> ObjectInfo:
        """A new object; strokes add theirs by themselves.

        Args:
            object_id: by default the lowest above all that were ever used.
            name: by default "object" with its id.
            colour: red, green, blue in 0..255; by default that of DAVIS's palette.

        Raises:
            InputError: the id is in use, or was used before, or the colour is out of range.
            MaskError: the id is out of range.
        """
        with self._project.lock:
            info = self._state.fresh_object(object_id, name, colour)
            self._project.record("object", object_json(info))
            return info

    def rename_object(self, object_id: int, name: str) -> None:
        """Give an object another name.

        Raises:
            InputError: there is no such object.
        """
        with self._project.lock:
            info = self._state.object(object_id)
            self._project.record("object", object_json(ObjectInfo(object_id, name, info.colour)))

    def recolour_object(self, object_id: int, colour: Sequence[int]) -> None:
        """Give an object another colour: red, green, blue in 0..255.

        Raises:
            InputError: there is no such object, or the colour is out of range.
        """
        with self._project.lock:
            info = self._state.object(object_id)
            self._project.record("object", object_json(ObjectInfo(object_id, info.name, checked_colour(colour))))

    def remove_object(self, object_id: int) -> None:
        """Take an object out of all frames, for good: its id is not used again. Undo brings it back with all its masks.

        Raises:
            InputError: there is no such object.
        """
        with self._project.lock:
            self._state.object(object_id)
            self._project.record("remove", {"object_id": object_id})

    def interact(self, *interactions: Interaction, region: Sequence[int | float] | None = None) -> Masks:
        """Masks of the frame after one or more strokes on it, done as one step; they may be about several objects.

        Strokes on a frame count together, from its masks at the first of them, until `accept`, `propagate`, or something painted or erased. With a
        `region` (x0, y0, x1, y1) the model sees that part of the frame alone, and nothing outside it changes. Objects that are new are added.

        Raises:
            InputError: no stroke, strokes on several frames, a frame or object that does not exist (any more), points outside the frame, clicks
                that contradict each other, only negative strokes for an object without pixels, or strokes without a mask maker.
            MaskError: a mask of another size than the frame.
            OutputError: the step cannot be stored; nothing was done.
        """
        frames = {interaction.frame_index for interaction in interactions}
        if len(frames) != 1:
            message = f"interactions on {len(frames)} frames; give one or more, all on the same frame"
            raise InputError(message)
        strokes = tuple(interaction for interaction in interactions if not isinstance(interaction, Painted))
        if strokes and len(strokes) != len(interactions):
            message = "strokes and painted masks were given together; give them one after the other"
            raise InputError(message)
        painted = [interaction for interaction in interactions if isinstance(interaction, Painted)]
        if painted:
            return self._drawing.painted(frames.pop(), painted, region)
        return self._drawing.stroke(frames.pop(), strokes, region)

    def add_points(
        self,
        frame_index: int,
        object_id: int,
        points: Points,
        labels: Sequence[int] | Tensor | None = None,
        *,
        clear_old_points: bool = True,
        region: Sequence[int | float] | None = None,
    ) -> Masks:
        """Masks of the frame after clicks at `points` (x, y), in pixels; `labels` are 1 on the object and 0 off it, by default all 1.

        As in SAM 2 they take the place of the clicks that still counted for this object on this frame; without `clear_old_points` they count
        together with those. Boxes and lines, and what was done to other objects, count on either way, which SAM 2 does not do for a box.
        """
        places = places_of(points)
        signs = torch.ones(len(places), dtype=torch.bool) if labels is None else signs_of(labels, len(places))
        return self._drawing.stroke(frame_index, [Clicks(frame_index, object_id, places, signs)], region, clear_old_points=clear_old_points)

    def add_box(
        self, frame_index: int, object_id: int, xyxy: Sequence[int | float] | Tensor, *, region: Sequence[int | float] | None = None
    ) -> Masks:
        """Masks of the frame after a box `(x0, y0, x1, y1)` around the object."""
        corners = torch.as_tensor(xyxy, dtype=torch.float32).reshape(-1)
        if len(corners) != 4:
            message = f"a box has four numbers x0, y0, x1, y1; got {len(corners)}"
            raise InputError(message)
        return self.interact(Box(frame_index, object_id, corners), region=region)

    def add_scribble(self, frame_index: int, object_id: int, path: Points, *, positive: bool = True, width_pixels: float = 3.0) -> Masks:
        """Masks of the frame after a line through the object or, with `positive` False, through what it is not. One point is a dot."""
        return self.interact(Scribble(frame_index, object_id, places_of(path), positive, width_pixels))

    def add_mask(self, frame_index: int, object_id: int, mask: Tensor) -> Masks:
        """Masks of the frame after the object got exactly these pixels; an empty mask says that it is not in sight."""
        return self.interact(Painted(frame_index, object_id, mask.bool()))

    def add_brush(self, frame_index: int, object_id: int, path: Points, *, radius_pixels: float = 8.0) -> Masks:
        """Masks of the frame after a round brush added to the object what it passed over."""
        where = brush_pixels(places_of(path), radius_pixels, self._hw)
        return self._drawing.change(frame_index, [object_id], lambda masks: add_pixels(masks, object_id, where))

    def erase(
        self,
        frame_index: int,
        path: Points,
        *,
        object_id: int | None = None,
        radius_pixels: float = 8.0,
    ) -> Masks:
        """Masks of the frame after a round rubber took from the object, or from all objects, what it passed over. Over nothing it changes nothing."""
        where = brush_pixels(places_of(path), radius_pixels, self._hw)
        with self._project.lock:
            masks = self.masks(frame_index)
            ids = masks.object_ids if object_id is None else (self._state.object(object_id).object_id,)
            hit = [one for one in ids if bool((masks.labels() == one)[where].any())]
            if not hit:
                return masks
            return self._drawing.change(frame_index, hit, lambda current: erase_pixels(current, hit, where))

    def accept(self, frame_index: int) -> None:
        """Let later strokes on a frame start from its masks as they are now.

        Raises:
            InputError: there is no such frame, or nothing to accept.
        """
        self._drawing.check_frame(frame_index)
        with self._project.lock:
            if frame_index not in self._state.drafts:
                message = f"frame {frame_index} has no strokes to accept"
                raise InputError(message)
            self._project.record("accept", {"frame": frame_index})

    def reset_frame(self, frame_index: int) -> None:
        """Take back all that a person gave for a frame; it is again as the last propagation before that left it.

        Raises:
            InputError: nothing was given for the frame.
        """
        self._drawing.check_frame(frame_index)
        with self._project.lock:
            if frame_index not in self._state.given:
                message = f"nothing was given for frame {frame_index}; frames given: {sorted(self._state.given)}"
                raise InputError(message)
            self._project.record("reset_frame", {"frame": frame_index})

    def reset(self) -> None:
        """Start over: no objects, no masks. Undo brings all back."""
        with self._project.lock:
            self._project.record("reset", {})

    def undo(self) -> list[int]:
        """Take the last step back: a stroke, a propagation, a change of objects. Gives the frames whose masks changed, or may have.

        Raises:
            InputError: there is no step, or the masks before it are damaged.
        """
        with self._project.lock:
            return self._project.rewind("undo")

    def redo(self) -> list[int]:
        """Do again what was undone. Gives the frames whose masks changed, or may have.

        Raises:
            InputError: nothing was undone, or something was done since.
        """
        with self._project.lock:
            return self._project.rewind("redo")

    def propagate(self, frame_indices: Sequence[int] | None = None) -> Generator[PropagationStep]:
        """Carry given masks to the other frames: from each given frame forwards, then backwards, up to the next given frame.

        Results are kept frame by frame; to stop, stop iterating. Between two given frames they are fused with the earlier ones, the more like them
        the further from the correction. Given frames never change. A propagation, whole or in part, is one step for undo. One that was stopped
        leaves its frame pending, and starts again from there next time.

        Args:
            frame_indices: the given frames to start from, in this order; by default those that are pending.

        Raises:
            InputError: nothing was given, or not these frames.
            PropagationError: in a step: masks or objects were changed meanwhile, or the model gave numbers that are not finite.
            OutputError: in a step: the result cannot be stored; all before it is kept.
        """
        return self._carrying.start(frame_indices)

    def adopt(self, given: Mapping[int, Masks], results: Iterable[tuple[int, Masks]]) -> Generator[int]:
        """Start from masks that were made elsewhere, such as those of `rotoscope track`: see `rotoscope.tracking.adopting.adopt`."""
        with self._project.lock:
            return adopt(self._drawing, given, results)

    def suggest_frames(self, count: int) -> list[int]:
        """The frames that are most worth a look, at most `count`, the best first; given frames are none of them.

        They are those whose masks are in doubt, spread over the clip: see `rotoscope.tracking.suggest`.

        Raises:
            InputError: the count is negative.
        """
        with self._project.lock:
            facts = {index: self._facts_of(key) for index, key in self._state.masks.items()}
            return suggest(facts, self.given_frames, self.num_frames, count)

    @property
    def _state(self) -> State:
        return self._project.state

    def _facts_of(self, key: str) -> MaskFacts:
        """The facts of stored masks, worked out once."""
        name = key, tuple(self._state.objects)
        if name not in self._facts:
            masks = self._project.masks_of(key)
            assert masks is not None, "a key leads to masks"
            self._facts[name] = facts_of(masks)
        return self._facts[name]
