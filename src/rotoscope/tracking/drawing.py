"""Steps on one frame: what a person draws, paints or erases becomes masks, and the masks a step of the project."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch

from rotoscope.errors import InputError
from rotoscope.tracking.edits import Region, Stroke, Strokes, check_strokes, checked_region, from_json, make_masks, paint, to_json
from rotoscope.tracking.history import object_json
from rotoscope.tracking.project import Project
from rotoscope.types import Clicks, Frame, MaskMaker, Masks, Painted


@dataclass(frozen=True, slots=True)
class Drawing:
    """What steps on a frame need.

    Attributes:
        project: where they are kept.
        frames: the clip.
        maker: makes masks of strokes; None if there is none.
    """

    project: Project
    frames: Sequence[Frame]
    maker: MaskMaker | None

    def stroke(self, frame_index: int, strokes: Sequence[Stroke], region: Sequence[int | float] | None, *, clear_old_points: bool = False) -> Masks:
        """The masks of a frame after strokes that count together with those before them, or without the earlier clicks on the same objects."""
        if self.maker is None:
            message = "strokes need a model that makes masks of them; open the session with a mask_maker, or paint masks"
            raise InputError(message)
        with self.project.lock:
            frame = self._frame(frame_index)
            place = None if region is None else checked_region(region, frame.hw)
            base_key, earlier = self._draft(frame_index, place)
            kept = _without_clicks(earlier, {stroke.object_id for stroke in strokes}) if clear_old_points else earlier
            together = Strokes((*kept, *strokes), place)
            base = self.project.masks_of(base_key) or nothing(frame.hw)
            self._check_objects(together.object_ids)
            _check(together, base, were_cleared=len(kept) < len(earlier))
            masks = make_masks(self.maker, frame, together, base)
            touched = list(dict.fromkeys(stroke.object_id for stroke in strokes))
            return self._record(frame_index, masks, touched, (base_key, together))

    def painted(self, frame_index: int, painted: Sequence[Painted], region: Sequence[int | float] | None) -> Masks:
        """The masks of a frame after objects were painted anew; with a region, in there alone."""

        def change(masks: Masks) -> Masks:
            result = masks
            for one in painted:
                result = paint(result, one)
            return result if region is None else _within(checked_region(region, masks.hw), masks, result)

        return self.change(frame_index, [one.object_id for one in painted], change)

    def change(self, frame_index: int, object_ids: Sequence[int], change: Callable[[Masks], Masks]) -> Masks:
        """The masks of a frame after a change by hand, about some objects."""
        with self.project.lock:
            frame = self._frame(frame_index)
            self._check_objects(object_ids)
            masks = change(self.project.masks(frame_index) or nothing(frame.hw))
            return self._record(frame_index, masks, list(dict.fromkeys(object_ids)), None)

    def check_frame(self, frame_index: int) -> None:
        """Refuse frames that are not there.

        Raises:
            InputError: there is no such frame.
        """
        if not 0 <= frame_index < len(self.frames):
            message = f"frame {frame_index} does not exist; the clip has frames 0 to {len(self.frames) - 1}"
            raise InputError(message)

    def _frame(self, frame_index: int) -> Frame:
        self.check_frame(frame_index)
        return self.frames[frame_index]

    def _check_objects(self, object_ids: Sequence[int]) -> None:
        """Refuse objects that were removed, and ids that are out of range."""
        for object_id in object_ids:
            if object_id not in self.project.state.objects:
                self.project.state.fresh_object(object_id)

    def _draft(self, frame_index: int, region: Region | None) -> tuple[str | None, tuple[Stroke, ...]]:
        """What new strokes start from, and the strokes that they add to: those about the same part of the frame."""
        state = self.project.state
        draft = state.drafts.get(frame_index)
        if draft is None or draft.region != region:
            return state.masks.get(frame_index), ()
        strokes = [from_json(values) for values in draft.interactions]
        return draft.base, tuple(stroke for stroke in strokes if stroke.object_id in state.objects)

    def _record(self, frame_index: int, masks: Masks, touched: Sequence[int], drawn: tuple[str | None, Strokes] | None) -> Masks:
        state = self.project.state
        base, strokes = drawn or (None, Strokes(()))
        body = {
            "frame": frame_index,
            "object_ids": list(touched),
            "new_objects": [object_json(state.fresh_object(object_id)) for object_id in touched if object_id not in state.objects],
            "base": base,
            "interactions": [to_json(stroke) for stroke in strokes.interactions],
            "region": strokes.region,
            "masks": self.project.store.put(masks),
        }
        self.project.record("draw", body)
        return self.project.masks(frame_index) or nothing(masks.hw)


def nothing(hw: tuple[int, int]) -> Masks:
    """Masks without objects."""
    return Masks(torch.ones((1, *hw)), ())


def _check(strokes: Strokes, base: Masks, *, were_cleared: bool) -> None:
    try:
        check_strokes(strokes, base, base.hw)
    except InputError as error:
        if not were_cleared:
            raise
        message = f"{error} (the clicks before were cleared: give all of them again, or say clear_old_points=False)"
        raise InputError(message) from error


def _without_clicks(strokes: Sequence[Stroke], object_ids: Collection[int]) -> tuple[Stroke, ...]:
    """The strokes but for clicks on or off some objects."""
    return tuple(stroke for stroke in strokes if not (isinstance(stroke, Clicks) and stroke.object_id in object_ids))


def _within(region: Region, before: Masks, after: Masks) -> Masks:
    """The later masks in a region, and the earlier ones around it."""
    x0, y0, x1, y1 = region
    probs = before.select(after.object_ids).probs.clone()
    probs[:, y0:y1, x0:x1] = after.probs[:, y0:y1, x0:x1]
    return Masks(probs, after.object_ids)
