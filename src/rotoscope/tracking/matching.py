"""What a look of the detector means for the objects that are followed: who was seen, who came back, who is new. Pure decisions; no model, no files.

In this order, the best detection first:

1. A detection that overlaps a visible object is of that object (one detection for each object: best assignment by overlap, where the overlap
   with an object of another class counts less).
2. What is left is nobody new where it lies on visible objects: a part of one, several at once, or one of which the tracker lost most.
3. It is new at once if its score is high. In doubt it must be seen twice: in two looks in a row, near, as large and in the same colours.
4. It is an object that went away if the tracker says so, or if class, size and colours agree; then it gets its old id.
5. Otherwise it gets an id that was never used, unless there are too many objects already.

The order in which a detector lists its detections has no say.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.ops.assignment import best_assignment
from rotoscope.tracking.roster import Doubt, Entry, Roster, Sight
from rotoscope.types import MAX_OBJECT_ID, Detections, Frame, Masks

_MOSTLY = 0.8
"""An object is inside a detection when so much of it is."""
_LARGE_PART = 0.25
"""A detection around an object of its class is of that object, not of something behind it, where the object makes up so much of it."""
_OTHER_CLASS = 0.5
"""The overlap with an object of another class counts for so much: a detector may change its mind, but less easily than its boxes."""
_SURER = 0.1
"""A detection is surer than the one that a mask began with if its score is higher by this. So no object gets more than a few masks."""
_TRACKER_KNOWS = 0.15
"""The mean probability over a detection from which on the tracker's opinion of who it is counts."""
_MOST_GROWTH_AWAY, _MOST_GROWTH_IN_DOUBT = 8.0, 2.0
"""How many times larger or smaller something may be: when it comes back, and between two looks in a row."""
_FAR_AWAY, _FAR_IN_DOUBT = 2.0, 1.0
"""How far, in its own sizes, something may be from where it was: when it was hidden for a moment, and between two looks in a row."""
_REMNANT = 0.1
"""Fewer pixels than this share of the smallest detection's are what a tracker leaves of an object that has gone."""
_OPTIONS = {"every": "--every", "max_objects": "--max-objects", "min_score": "--min-score"}
"""What the command line calls a rule."""


@dataclass(frozen=True, slots=True)
class DiscoveryRules:
    """When a detection is a new object, and when it is one that is known.

    Attributes:
        every: how many frames are between two looks of the detector.
        min_score: a detection of at least this score is believed at once; one of half of it must be seen twice.
        min_area: smaller detections, as a share of the frame, are left out.
        max_objects: how many objects are followed at most, those that went away included.
        match_overlap: a detection is of an object if their intersection over union is at least this.
        max_covered: a detection is nobody new if more than this share of it lies on visible objects.
        refresh_below: an object of which the tracker is less confident gets the mask of its detection, if that is believed; 0 for never.
        dispute_below: so does an object whose overlap with its detection is less, if the detection is surer than the one that the object's mask
            began with: the first look caught a part of it, or too much; 0 for never.
        lost_after: an object without pixels for more frames may come back anywhere; before, only near where it was.
        alike: how alike the colours of two sights of one object are at least (`ops.histograms.likeness`).
    """

    every: int = 10
    min_score: float = 0.5
    min_area: float = 0.001
    max_objects: int = 20
    match_overlap: float = 0.3
    max_covered: float = 0.5
    refresh_below: float = 0.5
    dispute_below: float = 0.6
    lost_after: int = 20
    alike: float = 0.8

    def __post_init__(self) -> None:
        for name, count in (("every", self.every), ("max_objects", self.max_objects)):
            if count < 1:
                message = f"{_OPTIONS[name]} {count} finds nothing; give 1 or more"
                raise InputError(message)
        if self.lost_after < 0:
            message = f"lost_after {self.lost_after} is out of range; give 0 or more frames"
            raise InputError(message)
        shares = ("min_score", "min_area", "match_overlap", "max_covered", "refresh_below", "dispute_below", "alike")
        wrong = [name for name in shares if not 0 <= getattr(self, name) <= 1]
        if wrong:
            message = f"{_OPTIONS.get(wrong[0], wrong[0])} {getattr(self, wrong[0])} is out of range; give 0 to 1"
            raise InputError(message)

    @property
    def doubtful_score(self) -> float:
        """Detections below this score are left out."""
        return self.min_score / 2

    def least_area(self, hw: tuple[int, int]) -> int:
        """The smallest area of a detection, in pixels of a frame."""
        return max(1, round(self.min_area * hw[0] * hw[1]))

    def remnant_area(self, hw: tuple[int, int]) -> int:
        """An object with fewer pixels has gone."""
        return max(1, round(_REMNANT * self.least_area(hw)))


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One detection; equal only to itself.

    Attributes:
        mask: its pixels.
        class_id: index into the detector's classes.
        score: in 0..1.
        area: the number of its pixels.
    """

    mask: Bool[Tensor, "h w"] = field(repr=False)
    class_id: int
    score: float
    area: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look means.

    Attributes:
        joining: certain masks of the objects that are new, came back or get a fresh mask, to be merged over the prediction; None without any.
        roster: who is followed now.
        matched: for each visible object that was detected, its detection.
        born: the ids of the new objects.
        returned: those of the objects that came back.
        refreshed: those that got a fresh mask.
        disputed: those of them whose mask was wrong from the beginning.
    """

    joining: Masks | None
    roster: Roster
    matched: Mapping[int, Finding]
    born: tuple[int, ...] = ()
    returned: tuple[int, ...] = ()
    refreshed: tuple[int, ...] = ()
    disputed: tuple[int, ...] = ()


def findings_of(detections: Detections, rules: DiscoveryRules, classes: Collection[int] | None = None) -> list[Finding]:
    """The detections worth a thought, best first, in an order that does not depend on theirs.

    Args:
        detections: of one frame, at its size.
        rules: for the lowest score and the smallest area.
        classes: those that are wanted; None for all.
    """
    least = rules.least_area((detections.masks.shape[1], detections.masks.shape[2]))
    scores = detections.scores if detections.mask_scores is None else detections.mask_scores  # of the mask, where the detector judges it
    found = []
    for mask, class_id, score in zip(detections.masks.cpu(), detections.class_ids.tolist(), scores.tolist(), strict=True):
        area = int(mask.sum())
        if score >= rules.doubtful_score and area >= least and (classes is None or class_id in classes):
            found.append(Finding(mask, class_id, score, area))
    return sorted(found, key=lambda one: (-one.score, one.class_id, -one.area, zlib.crc32(one.mask.contiguous().numpy().tobytes())))


def decide(
    frame: Frame, masks: Masks, findings: Sequence[Finding], roster: Roster, rules: DiscoveryRules, *, settled: Collection[int] = ()
) -> Decision:
    """What the detections of a frame mean.

    Args:
        frame: in which was looked.
        masks: what is known of it without the detector; every object in it is on the roster.
        findings: from `findings_of`.
        roster: before the look.
        rules: see there.
        settled: objects whose mask in this frame is given: they are never refreshed.
    """
    look = _Look(frame, masks, roster, rules)
    matched = look.matched(findings)
    newcomers, doubts = look.believed(look.newcomers([one for one in findings if one not in set(matched.values())]))
    returned = look.returned(newcomers, settled)
    born = look.born([one for one in newcomers if one not in set(returned.values())])
    free = {object_id: one for object_id, one in matched.items() if object_id not in settled and one.score >= rules.min_score}
    disputed = look.refreshed(look.disputed(free))
    refreshed = disputed | look.refreshed(look.unsure(free))
    known = [roster.entries[i].looked_at(look.sight(one)).voted(one.class_id, one.score) for i, one in (matched | returned).items()]
    fresh = [Entry(i, frame.index, is_given=False, sight=look.sight(one)).voted(one.class_id, one.score) for i, one in born.items()]
    begun = born | returned | disputed
    after = replace(
        roster.with_entries([replace(one, mask_score=begun[one.object_id].score) if one.object_id in begun else one for one in (*known, *fresh)]),
        doubts=tuple(Doubt(one.class_id, look.sight(one)) for one in doubts),
        next_id=roster.next_id + len(born),
        last_look=frame.index,
        num_found=roster.num_found + len(findings),
        is_full=roster.is_full or len(born) + len(returned) < len(newcomers),
    )
    joining = look.joining(born | returned | refreshed)
    return Decision(joining, after, matched, tuple(born), tuple(returned), tuple(refreshed), tuple(disputed))


class _Look:
    """One look at a frame: what it starts from, and what follows for the findings."""

    def __init__(self, frame: Frame, masks: Masks, roster: Roster, rules: DiscoveryRules) -> None:
        self._frame = frame
        self._masks = masks
        self._labels = masks.labels().cpu()
        self._roster = roster
        self._rules = rules
        self._least_area = rules.least_area(frame.hw)
        areas, remnant = _counts(self._labels.flatten()), rules.remnant_area(frame.hw)
        self._visible = {object_id: area for object_id, area in areas.items() if object_id != 0 and area >= remnant}
        self._sights: dict[Finding, Sight] = {}

    def sight(self, finding: Finding) -> Sight:
        """What a finding shows."""
        if finding not in self._sights:
            self._sights[finding] = Sight.of(self._frame, finding.mask)
        return self._sights[finding]

    def matched(self, findings: Sequence[Finding]) -> dict[int, Finding]:
        """The visible objects that were detected, each with its detection."""
        likely = torch.zeros((len(findings), len(self._visible)), dtype=torch.float64)
        for row, finding in enumerate(findings):
            for column, (object_id, overlap) in enumerate(self._overlaps(finding).items()):
                is_other = self._roster.entries[object_id].class_id not in (None, finding.class_id)
                likely[row, column] = overlap * (_OTHER_CLASS if is_other else 1.0)
        ids = list(self._visible)
        return {ids[column]: findings[row] for row, column in _pairs(likely, self._rules.match_overlap)}

    def newcomers(self, findings: Sequence[Finding]) -> list[Finding]:
        """Those that are of nobody who is visible, nor of a better one among them, without the pixels that are not theirs."""
        owners = self._labels.clone()
        areas, classes = dict(self._visible), {object_id: entry.class_id for object_id, entry in self._roster.entries.items()}
        kept: list[Finding] = []
        for finding in findings:
            shared = {owner: count for owner, count in _counts(owners[finding.mask]).items() if owner in areas}
            if self._is_explained(finding, shared, areas, classes):
                continue
            free = finding.mask & (owners == 0)
            area = int(free.sum())
            if area < self._least_area:
                continue
            kept.append(replace(finding, mask=free, area=area))
            owner = -len(kept)
            owners[free] = owner
            areas[owner], classes[owner] = area, finding.class_id
        return kept

    def believed(self, newcomers: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
        """The newcomers that are sure, or seen for the second time; and those that stay in doubt."""
        unsure, doubts = [one for one in newcomers if one.score < self._rules.min_score], self._roster.doubts
        likely = torch.zeros((len(unsure), len(doubts)), dtype=torch.float64)
        for row, one in enumerate(unsure):
            for column, doubt in enumerate(doubts):
                likely[row, column] = self._is_same_again(one, doubt)
        confirmed = {unsure[row] for row, _ in _pairs(likely, self._rules.alike)}
        doubtful = [one for one in unsure if one not in confirmed]
        return [one for one in newcomers if one not in set(doubtful)], doubtful

    def returned(self, newcomers: Sequence[Finding], settled: Collection[int]) -> dict[int, Finding]:
        """The objects that went away and are among the newcomers."""
        away = [entry for object_id, entry in self._roster.entries.items() if object_id not in self._visible and object_id not in settled]
        likely = torch.zeros((len(newcomers), len(away)), dtype=torch.float64)
        for row, finding in enumerate(newcomers if away else ()):
            opinion = self._tracker_says(finding)
            for column, entry in enumerate(away):
                likely[row, column] = self._is_back(entry, finding, opinion)
        return {away[column].object_id: newcomers[row] for row, column in _pairs(likely, self._rules.alike)}

    def born(self, newcomers: Sequence[Finding]) -> dict[int, Finding]:
        """New ids for the newcomers, best first, as many as there is room for."""
        room = min(self._rules.max_objects - len(self._roster.entries), MAX_OBJECT_ID + 1 - self._roster.next_id)
        return dict(enumerate(newcomers[: max(0, room)], start=self._roster.next_id))

    def unsure(self, matched: Mapping[int, Finding]) -> dict[int, Finding]:
        """The objects of which the tracker is unsure."""
        confidence = dict(zip(self._masks.object_ids, self._masks.confidence(), strict=True))
        return {object_id: one for object_id, one in matched.items() if confidence[object_id] < self._rules.refresh_below}

    def disputed(self, matched: Mapping[int, Finding]) -> dict[int, Finding]:
        """The objects whose mask began with a detection less sure than the one there is now, which differs."""
        surer = {object_id: one for object_id, one in matched.items() if one.score >= self._roster.entries[object_id].mask_score + _SURER}
        return {object_id: one for object_id, one in surer.items() if self._overlaps(one)[object_id] < self._rules.dispute_below}

    def refreshed(self, matched: Mapping[int, Finding]) -> dict[int, Finding]:
        """The detections without the pixels of others, where enough is left."""
        fresh = {}
        for object_id, finding in matched.items():
            own = finding.mask & ((self._labels == 0) | (self._labels == object_id))
            fresh[object_id] = replace(finding, mask=own, area=int(own.sum()))
        return {object_id: one for object_id, one in fresh.items() if one.area >= self._least_area}

    def joining(self, chosen: Mapping[int, Finding]) -> Masks | None:
        """The masks of the findings under their ids; where two claim a pixel, the earlier one has it."""
        if not chosen:
            return None
        labels = torch.zeros(self._frame.hw, dtype=torch.int32)
        for object_id, finding in reversed(list(chosen.items())):
            labels[finding.mask] = object_id
        return Masks.from_labels(labels, chosen)

    def _overlaps(self, finding: Finding) -> dict[int, float]:
        """Intersection over union with each visible object."""
        shared = _counts(self._labels[finding.mask])
        common = {object_id: shared.get(object_id, 0) for object_id in self._visible}
        return {object_id: common[object_id] / (finding.area + area - common[object_id]) for object_id, area in self._visible.items()}

    def _is_explained(self, finding: Finding, shared: Mapping[int, int], areas: Mapping[int, int], classes: Mapping[int, int | None]) -> bool:
        """Whether a detection is of those on whom it lies."""
        if sum(shared.values()) > self._rules.max_covered * finding.area:
            return True
        around = [owner for owner, count in shared.items() if count >= _MOSTLY * areas[owner] and count >= _LARGE_PART * finding.area]
        return any(classes[owner] in (None, finding.class_id) for owner in around)

    def _tracker_says(self, finding: Finding) -> dict[int, float]:
        """The object that the tracker sees most of in a detection, with its mean probability there; nobody if that is little."""
        if not self._masks.object_ids:
            return {}
        means = self._masks.probs[1:, finding.mask.to(self._masks.probs.device)].mean(dim=1)
        best = int(means.argmax())
        return {self._masks.object_ids[best]: float(means[best])} if float(means[best]) >= _TRACKER_KNOWS else {}

    def _is_same_again(self, finding: Finding, doubt: Doubt) -> float:
        """How likely a finding is what was in doubt at the last look, in 0..1."""
        sight = self.sight(finding)
        is_possible = (
            finding.class_id == doubt.class_id
            and sight.is_near(doubt.sight, sizes=_FAR_IN_DOUBT)
            and sight.growth(doubt.sight) <= _MOST_GROWTH_IN_DOUBT
        )
        return sight.likeness(doubt.sight) if is_possible else 0.0

    def _is_back(self, entry: Entry, finding: Finding, opinion: Mapping[int, float]) -> float:
        """How likely a newcomer is an object that went away: more than 1 if the tracker says so, in 0..1 by colours, 0 if it cannot be."""
        if entry.class_id not in (None, finding.class_id):
            return 0.0
        if entry.object_id in opinion:
            return 1 + opinion[entry.object_id]
        sight = self.sight(finding)
        is_lost = abs(sight.frame_index - entry.sight.frame_index) > self._rules.lost_after
        is_possible = sight.growth(entry.sight) <= _MOST_GROWTH_AWAY and (is_lost or sight.is_near(entry.sight, sizes=_FAR_AWAY))
        return sight.likeness(entry.sight) if is_possible else 0.0


def _pairs(likely: Float[Tensor, "n m"], least: float) -> list[tuple[int, int]]:
    """The best assignment, of pairs that reach a least value alone."""
    good = torch.where(likely >= max(least, 1e-9), likely, 0.0)
    return [(row, column) for row, column in best_assignment(good) if good[row, column] > 0]


def _counts(owners: Int32[Tensor, "n"]) -> dict[int, int]:
    """How often each value occurs."""
    if len(owners) == 0:
        return {}
    low = int(owners.min())
    counts = torch.bincount(owners.long() - low)
    return {low + place: int(counts[place]) for place in counts.nonzero().flatten().tolist()}
