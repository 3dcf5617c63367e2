"""What a project is after each event, and how undo and redo walk through it: pure bookkeeping, without files or pixels.

Masks appear as the keys under which a store keeps them. Since a key stands for the same bits for ever, going back to an earlier state brings back
exactly what was there.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any

from rotoscope.errors import InputError
from rotoscope.tracking.events import Event
from rotoscope.types import check_object_ids
from rotoscope.video.palette import colour_of


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of a project.

    Attributes:
        object_id: its number, for good.
        name: what the user calls it.
        colour: red, green, blue, in 0..255.
    """

    object_id: int
    name: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Draft:
    """What was drawn on a frame since its masks were last accepted; all of it counts together.

    Attributes:
        base: key of the masks that it started from; None for none.
        interactions: as JSON values.
        region: the part of the frame, x0, y0, x1, y1, that it is about; None for all of it.
    """

    base: str | None
    interactions: tuple[Mapping[str, Any], ...]
    region: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """A frame that a person gave.

    Attributes:
        object_ids: the objects spoken of.
        before: key of the masks that the frame had before; None for none.
    """

    object_ids: frozenset[int]
    before: str | None


@dataclass(slots=True)
class State:
    """A project between two events.

    Attributes:
        objects: by id, in the order in which they were added.
        removed: ids that were used once; they do not come back.
        masks: key of each frame's masks, where it has some.
        settled: the same as of the last finished round; what the next round is fused with.
        given: the frames that a person gave, the one touched last at the end.
        drafts: what may still be added to, by frame.
        pending: given frames that were not carried on yet, in the order in which they were touched.
    """

    objects: dict[int, ObjectInfo] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    masks: dict[int, str] = field(default_factory=dict)
    settled: dict[int, str] = field(default_factory=dict)
    given: dict[int, Given] = field(default_factory=dict)
    drafts: dict[int, Draft] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)

    def snapshot(self) -> "State":
        """A state of its own with the same content."""
        return State(*(copy(getattr(self, entry.name)) for entry in fields(self)))

    def object(self, object_id: int) -> ObjectInfo:
        """The object of an id.

        Raises:
            InputError: there is none, or it was removed.
        """
        if object_id not in self.objects:
            happened = (
                "was removed; undo that, or take another id" if object_id in self.removed else f"does not exist; there are {list(self.objects)}"
            )
            message = f"object {object_id} {happened}"
            raise InputError(message)
        return self.objects[object_id]

    def fresh_object(self, object_id: int | None = None, name: str = "", colour: Sequence[int] | None = None) -> ObjectInfo:
        """An object that is not there yet; by default with the lowest id above all that were ever used, and the palette's colour.

        Raises:
            InputError: the id is in use, or was, or the colour is out of range.
            MaskError: the id is out of range.
        """
        chosen = max((0, *self.objects, *self.removed)) + 1 if object_id is None else object_id
        check_object_ids([chosen])
        if chosen in self.objects:
            message = f"there is an object {chosen} already; rename it, or take another id"
            raise InputError(message)
        if chosen in self.removed:
            message = f"object {chosen} was removed, and its id is not used again; undo that, or take another id"
            raise InputError(message)
        return ObjectInfo(chosen, name or f"object {chosen}", checked_colour(colour or colour_of(chosen)))

    @property
    def given_frames(self) -> list[int]:
        """The frames that speak of an object that is still there, the one touched last at the end."""
        return [frame for frame, given in self.given.items() if not given.object_ids.isdisjoint(self.objects)]

    @property
    def pending_frames(self) -> list[int]:
        """Those of them that were not carried on yet."""
        return [frame for frame in self.pending if frame in self.given_frames]


def checked_colour(colour: Sequence[int]) -> tuple[int, int, int]:
    """Red, green, blue.

    Raises:
        InputError: these are not three whole numbers in 0..255.
    """
    parts = [int(part) for part in colour if isinstance(part, int) and 0 <= part <= 255]
    if len(parts) != 3 or len(colour) != 3:
        message = f"colour {tuple(colour)} is not possible; give red, green and blue as whole numbers from 0 to 255"
        raise InputError(message)
    return parts[0], parts[1], parts[2]


class History:
    """The present state of a project, and those that undo and redo lead to.

    Attributes:
        present: as it is now; changed in place by results of a propagation, and replaced by all else.
        rewinds: how often undo and redo were used.
        steps: how many steps were taken, undone ones included.
    """

    def __init__(self) -> None:
        self.present = State()
        self.rewinds = 0
        self.steps = 0
        self._past: list[State] = []
        self._future: list[State] = []

    @property
    def undoable(self) -> State | None:
        """What undo leads to."""
        return self._past[-1] if self._past else None

    @property
    def redoable(self) -> State | None:
        """What redo leads to."""
        return self._future[-1] if self._future else None

    def apply(self, event: Event) -> None:
        """Follow one event.

        Raises:
            InputError: the event makes no sense here; the history is as it was.
        """
        try:
            if event.kind in ("undo", "redo"):
                self._rewind(*((self._past, self._future) if event.kind == "undo" else (self._future, self._past)))
            elif event.kind in _STEPS:
                changed = self.present.snapshot()
                _STEPS[event.kind](changed, event.body)
                self._past.append(self.present)
                self._future.clear()
                self.present = changed
                self.steps += 1
            else:
                _DETAILS[event.kind](self.present, event.body)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            message = f"event {event.number} ({event.kind}) makes no sense here: {error!r}"
            raise InputError(message) from error

    def _rewind(self, source: list[State], target: list[State]) -> None:
        state = source.pop()
        target.append(self.present)
        self.present = state
        self.rewinds += 1


def object_json(info: ObjectInfo) -> dict[str, Any]:
    """An object as JSON values."""
    return {"object_id": info.object_id, "name": info.name, "colour": list(info.colour)}


def _set_object(state: State, body: Mapping[str, Any]) -> None:
    red, green, blue = body["colour"]
    state.objects[body["object_id"]] = ObjectInfo(body["object_id"], body["name"], (red, green, blue))


def _remove_object(state: State, body: Mapping[str, Any]) -> None:
    del state.objects[body["object_id"]]
    state.removed.add(body["object_id"])


def _draw(state: State, body: Mapping[str, Any]) -> None:
    """Lines, clicks or boxes: the frame gets masks and goes on being a draft; what was painted is accepted at once."""
    frame = body["frame"]
    for info in body["new_objects"]:
        _set_object(state, info)
    known = state.given.pop(frame, None)
    before = known.before if known else state.masks.get(frame)
    state.given[frame] = Given((known.object_ids if known else frozenset()) | frozenset(body["object_ids"]), before)
    state.pending = [*(other for other in state.pending if other != frame), frame]
    state.drafts.pop(frame, None)
    if body["interactions"]:
        region = tuple(body["region"]) if body["region"] else None
        state.drafts[frame] = Draft(body["base"], tuple(body["interactions"]), region)
    state.masks[frame] = body["masks"]


def _accept(state: State, body: Mapping[str, Any]) -> None:
    del state.drafts[body["frame"]]


def _reset_frame(state: State, body: Mapping[str, Any]) -> None:
    """The frame is again as it was before a person touched it."""
    frame = body["frame"]
    before = state.given.pop(frame).before
    state.drafts.pop(frame, None)
    state.pending = [other for other in state.pending if other != frame]
    for masks in (state.masks, state.settled):
        masks.pop(frame, None)
        if before is not None:
            masks[frame] = before


def _reset(state: State, body: Mapping[str, Any]) -> None:
    del body
    for entry in fields(state):
        getattr(state, entry.name).clear()


def _start_round(state: State, body: Mapping[str, Any]) -> None:
    del body
    state.drafts.clear()


def _set_result(state: State, body: Mapping[str, Any]) -> None:
    if body["frame"] in state.given_frames:
        message = f"frame {body['frame']} is given"
        raise ValueError(message)
    state.masks[body["frame"]] = body["masks"]


def _settle(state: State, body: Mapping[str, Any]) -> None:
    state.pending = [frame for frame in state.pending if frame != body["frame"]]
    waiting = {frame: state.settled[frame] for frame in state.pending if frame in state.settled}  # their change is against these
    state.settled = {frame: key for frame, key in state.masks.items() if frame not in state.pending} | waiting


def _lose(state: State, body: Mapping[str, Any]) -> None:
    """Masks that turned out to be damaged: their frames have none any more."""
    lost = set(body["keys"])
    for masks in (state.masks, state.settled):
        for frame in [frame for frame, key in masks.items() if key in lost]:
            del masks[frame]
    for frame in [frame for frame in state.given if frame not in state.masks]:
        del state.given[frame]
        state.drafts.pop(frame, None)
    state.drafts = {frame: draft for frame, draft in state.drafts.items() if draft.base not in lost}
    state.pending = [frame for frame in state.pending if frame in state.given]


_Change = Callable[[State, Mapping[str, Any]], None]

_STEPS: Mapping[str, _Change] = {
    "object": _set_object,
    "remove": _remove_object,
    "draw": _draw,
    "accept": _accept,
    "reset_frame": _reset_frame,
    "reset": _reset,
    "propagate": _start_round,
}
"""What a user does: each can be undone."""

_DETAILS: Mapping[str, _Change] = {"clip": lambda *_: None, "result": _set_result, "settle": _settle, "lost": _lose}
"""What happens on the way; it belongs to the step before."""
