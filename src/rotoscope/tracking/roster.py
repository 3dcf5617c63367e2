"""Who is followed: every object of a search through a clip, with what is known of it. Values that never change; each step makes new ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.ops.histograms import NUM_BINS, colour_histogram, likeness
from rotoscope.types import Frame, Masks

_LEAST_SHARE = 0.1
"""Of a new sight in the mean of an object's colours, so that old ones fade."""


@dataclass(frozen=True, slots=True)
class FollowedObject:
    """What a search knows of an object.

    Attributes:
        object_id: its id, for ever.
        class_id: index into the detector's classes, by the votes of all the detections of it so far; None while no detection was of it.
        class_name: what the class is called; None without a class.
        score: in 0..1: the mean of the detections' scores; 1 for an object that was given.
        first_frame: the earliest frame so far in which it has pixels.
        is_given: whether somebody gave it, rather than the detector.
    """

    object_id: int
    class_id: int | None
    class_name: str | None
    score: float
    first_frame: int
    is_given: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """What a region of a frame shows, in short.

    Attributes:
        frame_index: of the frame.
        area: in pixels.
        centre_xy: the mean of its pixels.
        colours: a histogram (`ops.histograms`).
    """

    frame_index: int
    area: int
    centre_xy: tuple[float, float]
    colours: Float[Tensor, "bins"] = field(repr=False)

    @classmethod
    def of(cls, frame: Frame, region: Bool[Tensor, "h w"]) -> "Sight":
        """The sight of a region that has pixels."""
        rows, columns = region.nonzero(as_tuple=True)
        centre = float(columns.double().mean()), float(rows.double().mean())
        return Sight(frame.index, len(rows), centre, colour_histogram(frame.image, region))

    def is_near(self, other: "Sight", *, sizes: float) -> bool:
        """Whether their centres are at most so many sizes of the larger one apart, size being the root of the area."""
        (x0, y0), (x1, y1) = self.centre_xy, other.centre_xy
        return (x1 - x0) ** 2 + (y1 - y0) ** 2 <= sizes**2 * max(self.area, other.area)

    def growth(self, other: "Sight") -> float:
        """How many times larger the larger one is."""
        return max(self.area, other.area) / min(self.area, other.area)

    def likeness(self, other: "Sight") -> float:
        """How alike their colours are, in 0..1."""
        return likeness(self.colours, other.colours)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of the roster.

    Attributes:
        object_id: its id.
        first_frame: the earliest frame in which it has pixels.
        is_given: whether somebody gave it.
        sight: where and how large it was when it last had pixels; its colours are a mean over the looks at it.
        num_sights: that the mean is of.
        votes: the sum of the scores of the detections of it, by class.
        num_votes: how many detections that is.
        mask_score: of the detection that its mask began with; 1 for a given mask.
    """

    object_id: int
    first_frame: int
    is_given: bool
    sight: Sight
    num_sights: int = 1
    votes: Mapping[int, float] = field(default_factory=dict)
    num_votes: int = 0
    mask_score: float = 1.0

    @property
    def class_id(self) -> int | None:
        """The class with the most votes; ties go to the lower one."""
        return max(self.votes, key=lambda class_id: (self.votes[class_id], -class_id), default=None)

    @property
    def score(self) -> float:
        """See `FollowedObject`."""
        return 1.0 if self.is_given or not self.num_votes else sum(self.votes.values()) / self.num_votes

    def voted(self, class_id: int, score: float) -> "Entry":
        """The entry after one more detection of the object."""
        return replace(self, votes={**self.votes, class_id: self.votes.get(class_id, 0.0) + score}, num_votes=self.num_votes + 1)

    def looked_at(self, sight: Sight) -> "Entry":
        """The entry after a closer look, which adds to what is known of its colours."""
        share = max(1 / (self.num_sights + 1), _LEAST_SHARE)
        colours = self.sight.colours + share * (sight.colours - self.sight.colours)
        return replace(self.seen(sight.frame_index, sight.area, sight.centre_xy, colours), num_sights=self.num_sights + 1)

    def seen(self, frame_index: int, area: int, centre_xy: tuple[float, float], colours: Tensor | None = None) -> "Entry":
        """The entry after a frame in which the object has pixels."""
        sight = Sight(frame_index, area, centre_xy, self.sight.colours if colours is None else colours)
        return replace(self, sight=sight, first_frame=min(self.first_frame, frame_index))


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that a detector saw once and was not sure of."""

    class_id: int
    sight: Sight


@dataclass(frozen=True, slots=True)
class Roster:
    """All objects of a search, and what is to be remembered between looks.

    Attributes:
        entries: the objects by id, in the order in which they came; none ever leaves.
        doubts: what the last look left in doubt.
        next_id: the id of the next newcomer; it only grows.
        last_look: the frame in which was looked last; None before the first look.
        num_found: how many detections there were in all the looks.
        is_full: whether a newcomer was left out because there were too many objects.
    """

    entries: Mapping[int, Entry] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()
    next_id: int = 1
    last_look: int | None = None
    num_found: int = 0
    is_full: bool = False

    def with_entries(self, changed: Sequence[Entry]) -> "Roster":
        """The roster with entries replaced or added."""
        return replace(self, entries={**self.entries, **{entry.object_id: entry for entry in changed}})

    def observed(self, frame_index: int, masks: Masks, *, least_area: int) -> "Roster":
        """The roster after a frame: where the objects are that have at least so many pixels."""
        places = {object_id: place for object_id, place in places_of(masks).items() if place[0] >= least_area and object_id in self.entries}
        return self.with_entries([self.entries[object_id].seen(frame_index, area, (x, y)) for object_id, (area, x, y) in places.items()])

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors; `from_tensors` is the inverse."""
        sights = [*(entry.sight for entry in self.entries.values()), *(doubt.sight for doubt in self.doubts)]
        rows = [_plain(entry) for entry in self.entries.values()]
        doubts = [_plain(doubt) for doubt in self.doubts]
        others = {"next_id": self.next_id, "last_look": self.last_look, "num_found": self.num_found, "is_full": self.is_full}
        colours = torch.stack([sight.colours for sight in sights]) if sights else torch.zeros((0, NUM_BINS))
        return {"table": _bytes_of(json.dumps({"entries": rows, "doubts": doubts, **others})), "colours": colours}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Roster":
        """The roster that `tensors` described.

        Raises:
            InputError: they describe none.
        """
        try:
            table = json.loads(tensors["table"].cpu().numpy().tobytes())
            colours = iter(tensors["colours"].cpu())
            entries = [_entry(row, next(colours)) for row in table.pop("entries")]
            doubts = tuple(Doubt(row["class_id"], _sight(row["sight"], next(colours))) for row in table.pop("doubts"))
            return cls({entry.object_id: entry for entry in entries}, doubts, **table)
        except (KeyError, ValueError, TypeError, StopIteration) as error:
            message = f"this is not the state of a search: {error!r}; start the clip again without --resume"
            raise InputError(message) from error


def places_of(masks: Masks) -> dict[int, tuple[int, float, float]]:
    """Area and centre (x, y) of each object that has pixels."""
    winners = masks.probs.max(dim=0).indices
    height, width = winners.shape
    channels, num = winners.flatten(), masks.probs.shape[0]
    rows = torch.arange(height, dtype=torch.float64, device=channels.device).repeat_interleave(width)
    columns = torch.arange(width, dtype=torch.float64, device=channels.device).repeat(height)
    areas = torch.bincount(channels, minlength=num)
    xs, ys = (torch.bincount(channels, weights=along, minlength=num) / areas.clamp(min=1) for along in (columns, rows))
    found = zip(masks.object_ids, areas.tolist()[1:], xs.tolist()[1:], ys.tolist()[1:], strict=True)
    return {object_id: (area, x, y) for object_id, area, x, y in found if area > 0}


def _plain(one: Entry | Doubt) -> dict[str, Any]:
    """An entry or a doubt as JSON can hold it, its colours left out."""
    row = asdict(one)
    del row["sight"]["colours"]
    return row


def _entry(row: dict[str, Any], colours: Tensor) -> Entry:
    return Entry(**{**row, "sight": _sight(row["sight"], colours), "votes": {int(class_id): vote for class_id, vote in row["votes"].items()}})


def _sight(row: dict[str, Any], colours: Tensor) -> Sight:
    return Sight(**{**row, "centre_xy": tuple(row["centre_xy"]), "colours": colours})


def _bytes_of(text: str) -> UInt8[Tensor, "n"]:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
