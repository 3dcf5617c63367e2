"""Which frames a pass remembers, and for how long: schedules, bounded memories, and a bounded cache of features.

Frames are counted in *steps*: the distance from the first frame of the pass, so that a backward pass keeps the same schedule.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from rotoscope.errors import InputError, MemoryBudgetError

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class MemorySchedule:
    """Which steps of a pass serve as references for the next one.

    Attributes:
        anchors: steps that stay for ever (MAST: 0 and 5).
        recent: ages that serve, 1 being the frame before (MAST: 1, 3, 5).
        every: each step divisible by this stays too (MiVOS: 5); None for none.
        given_serve: given frames serve for ever, whatever their step. They are kept in any case.
    """

    anchors: tuple[int, ...] = (0,)
    recent: tuple[int, ...] = (1,)
    every: int | None = None
    given_serve: bool = True

    def __post_init__(self) -> None:
        if any(age < 1 for age in self.recent) or any(step < 0 for step in self.anchors):
            message = f"recent ages {self.recent} start at 1 and anchors {self.anchors} at 0"
            raise InputError(message)
        if self.every is not None and self.every < 1:
            message = f"every {self.every} frames is not possible; give 1 or more"
            raise InputError(message)

    def is_long_term(self, step: int) -> bool:
        """Whether a step stays for the whole pass, though nobody gave it."""
        return step in self.anchors or (self.every is not None and step % self.every == 0)

    def is_recent(self, step: int, target: int) -> bool:
        """Whether a step is of an age that serves the target step."""
        return target - step in self.recent

    def may_be_dropped(self, step: int, latest: int) -> bool:
        """Whether no later target will read the step, when `latest` is the newest one stored."""
        return not self.is_long_term(step) and latest + 1 - step > max(self.recent, default=0)


@dataclass(slots=True)
class _Slot(Generic[Entry]):
    entry: Entry
    given: bool
    num_bytes: int


class FrameMemory(Generic[Entry]):
    """Remembered frames by step: kept as the schedule says, within a budget of bytes.

    Over the budget, predicted long-term frames go first, the oldest first but for the first frame of the pass; then recent ones, the oldest
    first. Given frames, the first frame and the newest one never go.

    Args:
        schedule: which steps serve and stay.
        num_bytes: the size of an entry.
        max_bytes: the budget; None for no limit.
    """

    def __init__(self, schedule: MemorySchedule, num_bytes: Callable[[Entry], int], *, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes <= 0:
            message = f"a memory budget of {max_bytes} bytes holds nothing; give a positive number"
            raise InputError(message)
        self.schedule = schedule
        self.max_bytes = max_bytes
        self._num_bytes = num_bytes
        self._slots: dict[int, _Slot[Entry]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[tuple[int, Entry, bool]]:
        """All that is stored, as (step, entry, given), by ascending step."""
        return iter([(step, self._slots[step].entry, self._slots[step].given) for step in sorted(self._slots)])

    @property
    def used_bytes(self) -> int:
        """The size of all entries."""
        return sum(slot.num_bytes for slot in self._slots.values())

    def add(self, step: int, entry: Entry, *, given: bool) -> None:
        """Store an entry, then drop what the schedule no longer needs and what the budget cannot hold.

        Raises:
            MemoryBudgetError: the frames that must stay do not fit the budget; the message says how much they need.
        """
        self._slots[step] = _Slot(entry, given, self._num_bytes(entry))
        latest = max(self._slots)
        for old in [old for old, slot in self._slots.items() if not slot.given and self.schedule.may_be_dropped(old, latest)]:
            del self._slots[old]
        self._fit_budget(newest=step)

    def references(self, target: int) -> list[tuple[int, Entry]]:
        """The entries that serve a target step, as (step, entry), by ascending step."""
        return [
            (step, slot.entry)
            for step, slot in sorted(self._slots.items())
            if (slot.given and self.schedule.given_serve) or self.schedule.is_long_term(step) or self.schedule.is_recent(step, target)
        ]

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()

    def _fit_budget(self, newest: int) -> None:
        if self.max_bytes is None:
            return
        first = min(self._slots)
        spare = [step for step, slot in self._slots.items() if not slot.given and step not in (first, newest)]
        spare.sort(key=lambda step: (not self.schedule.is_long_term(step), step))
        while self.used_bytes > self.max_bytes and spare:
            del self._slots[spare.pop(0)]
        if self.used_bytes > self.max_bytes:
            needed = self.used_bytes / 2**20
            message = (
                f"the {len(self._slots)} frames that must stay in memory need {needed:.1f} MB, "
                f"but the budget is {self.max_bytes / 2**20:.1f} MB; raise the budget or give fewer masks"
            )
            raise MemoryBudgetError(message)


class FrameCache(Generic[Entry]):
    """The features of the last few frames, by frame index; the least recently used goes first.

    Attributes:
        hits: how often `get` found the frame.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            message = f"a cache of {capacity} frames holds nothing; give 1 or more"
            raise InputError(message)
        self.capacity = capacity
        self.hits = 0
        self._entries: OrderedDict[int, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, frame_index: int, compute: Callable[[], Entry]) -> Entry:
        """The entry of a frame, computed only if it is not held."""
        if frame_index in self._entries:
            self.hits += 1
        else:
            self._entries[frame_index] = compute()
        self._entries.move_to_end(frame_index)
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)
        return self._entries[frame_index]
