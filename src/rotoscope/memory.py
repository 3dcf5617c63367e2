"""Which frames a pass remembers, and for how long: schedules, bounded memories, and a bounded cache of features.

Frames are counted in *steps*: the distance from the first frame of the pass, so that a backward pass keeps the same schedule.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from threading import Lock
from typing import Any, Generic, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError, MemoryBudgetError, PropagationError
from rotoscope.types import Frame, Masks

Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class MemorySchedule:
    """Which steps of a pass serve as references for the next one.

    Attributes:
        anchors: steps that stay for ever (MAST: 0 and 5).
        recent: which of the latest frames serve, 1 being the last one stored (MAST: 1, 3, 5). Frames that a clip lacks are not counted.
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

    @property
    def num_recent(self) -> int:
        """How many of the latest frames must be kept so that the recent ones are there when their turn comes."""
        return max(self.recent, default=0)


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
        latest = sorted(self._slots)[-max(1, self.schedule.num_recent) :]
        for old in [old for old, slot in self._slots.items() if not (slot.given or self.schedule.is_long_term(old) or old in latest)]:
            del self._slots[old]
        self._fit_budget(newest=step)

    def drop(self, step: int) -> None:
        """Forget one step, also if it was given: a newer mask of that frame takes its place."""
        self._slots.pop(step, None)

    def references(self, target: int) -> list[tuple[int, Entry]]:
        """The entries that serve a target step, as (step, entry), by ascending step."""
        before = [step for step in sorted(self._slots) if step < target]
        recent = {before[-age] for age in self.schedule.recent if age <= len(before)}
        return [
            (step, slot.entry)
            for step, slot in sorted(self._slots.items())
            if (slot.given and self.schedule.given_serve) or self.schedule.is_long_term(step) or step in recent
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


@dataclass(frozen=True, slots=True)
class RememberedFrame:
    """A frame on a model's own grid.

    Attributes:
        features: of the frame.
        masks: of every object known so far, on the same grid.
        gap: how many frames ago it was.
    """

    features: Float[Tensor, "c h w"]
    masks: Masks
    gap: int


class MaskMemory:
    """What trackers by label propagation remember: frames as features, and masks on the grid of the features.

    Objects may join at any frame; every frame is read with the channels of all the objects.

    Args:
        schedule: which frames serve and stay.
        max_bytes: the budget for features and masks; None for no limit.
    """

    def __init__(self, schedule: MemorySchedule, *, max_bytes: int | None = None) -> None:
        self._frames: FrameMemory[tuple[Tensor, Masks]] = FrameMemory(schedule, bytes_in, max_bytes=max_bytes)
        self._first: int | None = None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Every object remembered, in the order in which they came."""
        newest = [masks for _, (_, masks), _ in self._frames][-1:]
        return newest[0].object_ids if newest else ()

    def with_all_objects(self, masks: Masks) -> Masks:
        """The masks over the objects remembered, and those that are new in them."""
        known = self.object_ids
        return masks.select((*known, *(object_id for object_id in masks.object_ids if object_id not in known)))

    def add(self, frame_index: int, features: Float[Tensor, "c h w"], masks: Masks, *, given: bool) -> None:
        """Store a frame; the first one stored starts the count of steps.

        Raises:
            MemoryBudgetError: the frames that must stay do not fit the budget.
        """
        if self._first is None:
            self._first = frame_index
        self._frames.add(self._step(frame_index), (features, masks), given=given)

    def references(self, frame_index: int) -> list[RememberedFrame]:
        """The frames that serve a frame, oldest first.

        Raises:
            PropagationError: nothing is remembered yet.
        """
        if not len(self._frames):
            message = f"frame {frame_index} cannot be predicted: no frame is remembered yet; remember one with its masks first"
            raise PropagationError(message)
        target, ids = self._step(frame_index), self.object_ids
        return [RememberedFrame(features, masks.select(ids), target - step) for step, (features, masks) in self._frames.references(target)]

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, as named tensors."""
        tensors = {} if self._first is None else {"first": torch.tensor(self._first)}
        for step, (features, masks), given in self._frames:
            parts = (features, masks.probs, torch.tensor(masks.object_ids, dtype=torch.int64), torch.tensor(given))
            tensors |= {f"frames.{step}.{name}": tensor for name, tensor in zip(_PARTS, parts, strict=True)}
        return tensors

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Replace all that is remembered by what `state` gave.

        Raises:
            InputError: the tensors are not those of such a memory.
        """
        try:
            steps = sorted({int(name.split(".")[1]) for name in state if name.startswith("frames.")})
            frames = {step: [state[f"frames.{step}.{name}"].to(device) for name in _PARTS] for step in steps}
            masks = {step: Masks(probs, tuple(object_ids.tolist())) for step, (_, probs, object_ids, _) in frames.items()}
            first = int(state["first"]) if steps else None
        except (KeyError, ValueError, IndexError) as error:
            message = f"this is not the state of such a pass: {error} is missing or misnamed; start the clip again without --resume"
            raise InputError(message) from error
        self._frames.clear()
        self._first = first
        for step, (features, _, _, given) in frames.items():
            self._frames.add(step, (features, masks[step]), given=bool(given))

    def _step(self, frame_index: int) -> int:
        return 0 if self._first is None else abs(frame_index - self._first)


_PARTS = ("features", "probs", "object_ids", "given")


class FrameCache:
    """What was computed of frames, by frame index: always of the newest few, and of the first ones as far as a budget reaches.

    What is kept within the budget stays: a clip that is walked again from end to end would find nothing in a cache that drops the oldest.

    Args:
        newest: how many frames are held in any case, the least recently used going first.
        max_bytes: of what is held for good, pictures of the frames included.

    Attributes:
        hits: how often `get` found the frame.

    Raises:
        InputError: it could hold nothing.
    """

    def __init__(self, newest: int = 2, *, max_bytes: int = 0) -> None:
        if newest < 1 or max_bytes < 0:
            message = f"a cache of {newest} frames and {max_bytes} bytes holds nothing; give 1 frame or more, and 0 bytes or more"
            raise InputError(message)
        self._most_new, self._bytes_left = newest, max_bytes
        self._lock = Lock()
        self.hits = 0
        self._newest: OrderedDict[int, tuple[Tensor, Any]] = OrderedDict()
        self._kept: dict[int, tuple[Tensor, Any]] = {}

    def __len__(self) -> int:
        return len(self._newest.keys() | self._kept.keys())

    def get(self, frame: Frame, compute: Callable[[], Entry]) -> Entry:
        """The entry of a frame, computed only if it is not held; a frame that has the same index but other pixels is another frame."""
        with self._lock:
            held = self._newest.get(frame.index) or self._kept.get(frame.index)
        if held is None or not (held[0] is frame.image or torch.equal(held[0], frame.image)):
            held = frame.image, compute()
        else:
            self.hits += 1
        with self._lock:
            self._hold(frame.index, held)
        return cast("Entry", held[1])

    def _hold(self, index: int, held: tuple[Tensor, Any]) -> None:
        if self._kept.get(index) is not held:
            self._bytes_left += bytes_in(self._kept.pop(index, None))
            size = bytes_in(held)
            if size <= self._bytes_left:
                self._kept[index] = held
                self._bytes_left -= size
        self._newest[index] = held
        self._newest.move_to_end(index)
        while len(self._newest) > self._most_new:
            self._newest.popitem(last=False)


def bytes_in(entry: object) -> int:
    """The size of all tensors in a tensor, a data class, a tuple or a list; anything else in them counts for nothing."""
    if isinstance(entry, Tensor):
        return entry.nbytes
    if is_dataclass(entry):
        return sum(bytes_in(getattr(entry, field.name)) for field in fields(entry))
    return sum(bytes_in(one) for one in entry) if isinstance(entry, tuple | list) else 0
