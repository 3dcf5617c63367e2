"""Detect, then follow: a detector looks every few frames, a tracker carries the masks in between.

`Discoverer` is a propagator: whatever runs, saves and resumes a pass over a clip does so with a search too.
"""

from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rotoscope.errors import PropagationError
from rotoscope.tracking.class_names import class_names_of, name_of
from rotoscope.tracking.matching import Decision, DiscoveryRules, decide, findings_of
from rotoscope.tracking.propagate import checked_prediction, merge_given, propagate
from rotoscope.tracking.roster import Entry, FollowedObject, Roster, Sight
from rotoscope.types import Detections, Detector, Frame, Masks, Propagator

_TRACKER, _ROSTER, _ANCHOR = "tracker.", "roster.", "anchor."
"""How the names of the parts of a state begin."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """What is known of one frame.

    Attributes:
        frame: the picture.
        masks: of the objects found so far; those out of sight have no pixels.
        objects: what is known of each object of the masks, in their order; one that was declared absent and never seen is left out.
    """

    frame: Frame
    masks: Masks
    objects: tuple[FollowedObject, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """What was made of a frame that is not remembered yet."""

    frame_index: int
    masks: Masks
    roster: Roster
    is_given: bool


class Discoverer:
    """A pass of a tracker over a clip in which a detector looks for objects.

    It is a `Propagator` that needs no first mask: until something is found, its masks hold no objects. `predict` looks where a look is due, at the
    first frame and every so many frames, and decides what it means (`tracking.matching`); `remember` makes that last. A frame with objects that
    are new to the tracker, or whose mask was wrong from the beginning, is remembered as given, so that trackers keep it for good; there are only a
    few for each object.

    Args:
        tracker: the pass.
        detector: looks for objects.
        rules: when a detection is an object.
        given: masks that somebody gave, by frame index; they win over the detector and the tracker, and newcomers get ids that none of them has.
        classes: the classes that are wanted, as indices; None for all.

    Attributes:
        class_names: what the detector calls its classes; empty if it does not say.
    """

    def __init__(
        self,
        tracker: Propagator,
        detector: Detector,
        rules: DiscoveryRules | None = None,
        *,
        given: Mapping[int, Masks] | None = None,
        classes: Collection[int] | None = None,
    ) -> None:
        self._tracker = tracker
        self._detector = detector
        self._rules = rules or DiscoveryRules()
        self._given = given or {}
        self._classes = classes
        self.class_names = class_names_of(detector)
        self._roster = Roster(next_id=1 + max((object_id for masks in self._given.values() for object_id in masks.object_ids), default=0))
        self._known: tuple[int, ...] = ()
        self._anchor: tuple[int, Masks] | None = None
        self._step: _Step | None = None

    @property
    def objects(self) -> tuple[FollowedObject, ...]:
        """All objects found so far, in the order in which they came."""
        return tuple(self._described(entry) for entry in self._roster.entries.values())

    @property
    def notes(self) -> list[str]:
        """What the user should know of the search so far, a sentence each; usually nothing."""
        notes = []
        if self._roster.last_look is not None and not any(not entry.is_given for entry in self._roster.entries.values()):
            seen = "the detector saw nothing" if self._roster.num_found == 0 else "nothing that the detector saw was sure or new enough"
            notes.append(f"no object was found: {seen}; a lower --min-score believes it more, a smaller --every looks more often")
        if self._roster.is_full:
            notes.append(f"there was more than the {self._rules.max_objects} objects that are followed at most; raise --max-objects for the rest")
        return notes

    def discovered(self, frame: Frame, masks: Masks) -> Discovered:
        """A frame that was remembered, with what is known of its objects."""
        entries = (self._roster.entries.get(object_id) for object_id in masks.object_ids)
        return Discovered(frame, masks, tuple(self._described(entry) for entry in entries if entry is not None))

    def predict(self, frame: Frame) -> Masks:
        """Masks of a frame: predicted by the tracker, given, and found by the detector where a look is due.

        Raises:
            PropagationError: the numbers of the tracker or the detector are not finite, or the detector's masks do not fit the frame.
        """
        if self._step is None or self._step.frame_index != frame.index:
            self._step = self._made(frame)
        return self._step.masks

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Make what was decided of a frame last, and store it with its masks."""
        step, self._step = self._step, None
        is_known_step = step is not None and step.frame_index == frame.index
        roster = step.roster if step is not None and is_known_step else self._with_given(frame, masks)
        is_given = given or (step is not None and is_known_step and step.is_given) or not set(masks.object_ids) <= set(self._known)
        if masks.object_ids:
            self._tracker.remember(frame, masks, given=is_given)
            self._known = masks.object_ids
        if self._anchor is None:
            self._anchor = frame.index, Masks.from_labels(masks.labels().cpu(), masks.object_ids)
        self._roster = roster.observed(frame.index, masks, least_area=self._rules.remnant_area(frame.hw))

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, by the tracker and of the search."""
        tracker = self._tracker.state() if self._known else {}
        known = {f"{_TRACKER}ids": torch.tensor(self._known, dtype=torch.int64)}
        return {f"{_TRACKER}state.{name}": tensor for name, tensor in tracker.items()} | known | self.handed_over()

    def handed_over(self) -> dict[str, Tensor]:
        """What the next pass over the same clip goes on with, by `restore`: who was found, and the masks of the frame in which both begin."""
        tensors = {f"{_ROSTER}{name}": tensor for name, tensor in self._roster.tensors().items()}
        if self._anchor is not None:
            frame_index, masks = self._anchor
            tensors |= {f"{_ANCHOR}frame": torch.tensor(frame_index), f"{_ANCHOR}labels": masks.labels()}
            tensors[f"{_ANCHOR}ids"] = torch.tensor(masks.object_ids, dtype=torch.int64)
        return tensors

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, or begin another pass with what `handed_over` gave.

        Raises:
            InputError: the tensors are not those of a search with this kind of tracker.
        """
        self._roster = Roster.from_tensors(_part(state, _ROSTER))
        self._known = tuple(state[f"{_TRACKER}ids"].tolist()) if f"{_TRACKER}ids" in state else ()
        if self._known:
            self._tracker.restore(_part(state, f"{_TRACKER}state."))
        if f"{_ANCHOR}frame" in state:
            ids = tuple(state[f"{_ANCHOR}ids"].tolist())
            self._anchor = int(state[f"{_ANCHOR}frame"]), Masks.from_labels(state[f"{_ANCHOR}labels"].cpu(), ids)
        self._step = None

    def _made(self, frame: Frame) -> _Step:
        """What the tracker, the giver and the detector make of a frame."""
        if not self._known and self._anchor is not None and self._anchor[0] == frame.index:  # a second pass begins where the first one did
            return _Step(frame.index, self._anchor[1], replace(self._roster, last_look=frame.index, doubts=()), is_given=True)
        predicted = checked_prediction(frame, self._tracker) if self._known else Masks(torch.ones((1, *frame.hw)), ())
        given = self._given.get(frame.index)
        masks = predicted if given is None else merge_given(predicted if self._known else None, given)
        roster = self._with_given(frame, masks)
        if self._is_due(frame):
            decision = self._look(frame, masks, roster, given)
            masks = masks if decision.joining is None else merge_given(masks, decision.joining)
            return _Step(frame.index, masks, decision.roster, is_given=given is not None or bool(decision.disputed))
        return _Step(frame.index, masks, roster, is_given=given is not None)

    def _look(self, frame: Frame, masks: Masks, roster: Roster, given: Masks | None) -> Decision:
        findings = findings_of(_checked(self._detector.detect(frame), frame), self._rules, self._classes)
        return decide(frame, masks, findings, roster, self._rules, settled=() if given is None else given.object_ids)

    def _is_due(self, frame: Frame) -> bool:
        last = self._roster.last_look
        return last is None or abs(frame.index - last) >= self._rules.every

    def _with_given(self, frame: Frame, masks: Masks) -> Roster:
        """The roster with the objects that are new in a frame because somebody gave them, and a closer look at those that were given."""
        entries, spoken_of = self._roster.entries, self._given[frame.index].object_ids if frame.index in self._given else ()
        ids = [object_id for object_id in masks.object_ids if object_id not in entries or object_id in spoken_of]
        if not ids:
            return self._roster
        labels, changed = masks.labels().cpu(), []
        for object_id in ids:
            if bool((labels == object_id).any()):
                sight = Sight.of(frame, labels == object_id)
                is_known = object_id in entries
                changed.append(entries[object_id].looked_at(sight) if is_known else Entry(object_id, frame.index, is_given=True, sight=sight))
        return replace(self._roster.with_entries(changed), next_id=max(self._roster.next_id, 1 + max(ids)))

    def _described(self, entry: Entry) -> FollowedObject:
        class_id = entry.class_id
        name = None if class_id is None else name_of(self.class_names, class_id)
        return FollowedObject(entry.object_id, class_id, name, entry.score, entry.first_frame, entry.is_given)


def follow(frames: Iterable[Frame], discoverer: Discoverer) -> Generator[tuple[Frame, Masks]]:
    """Masks for each frame, in the order in which the frames come; see `tracking.propagate`. Masks may hold no object."""
    return propagate(frames, discoverer, {}, resumed=True)


def _checked(detections: Detections, frame: Frame) -> Detections:
    """Detections that fit the frame and each other.

    Raises:
        PropagationError: they do not.
    """
    count = len(detections.scores)
    if detections.masks.shape != (count, *frame.hw) or detections.class_ids.shape != (count,):
        message = (
            f"the detector gave {count} scores, {len(detections.class_ids)} classes and masks of {list(detections.masks.shape)} "
            f"for frame {frame.index} of {list(frame.hw)}; there must be one of each for an object, at the size of the frame"
        )
        raise PropagationError(message)
    judged = detections.scores if detections.mask_scores is None else detections.mask_scores
    if not bool((torch.isfinite(detections.scores) & torch.isfinite(judged)).all()):
        message = f"the detector gave scores that are not finite on frame {frame.index}; check its weights"
        raise PropagationError(message)
    return detections


def _part(state: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}
