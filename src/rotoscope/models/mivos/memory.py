"""What a pass of MiVOS remembers: keys and values of frames, object by object, in the order in which they came."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.memory import FrameMemory, MemorySchedule
from rotoscope.ops.affinity import KeyValue


class Remembered(NamedTuple):
    """One frame in memory.

    Attributes:
        frame_index: which.
        object_ids: the objects known then.
        keys: of their cells.
        values: of their cells.
    """

    frame_index: int
    object_ids: tuple[int, ...]
    keys: Float[Tensor, "n m c"]
    values: Float[Tensor, "n m v"]

    def of(self, object_id: int) -> KeyValue | None:
        """What it holds of one object; None if the object was not known then."""
        if object_id not in self.object_ids:
            return None
        position = self.object_ids.index(object_id)
        return KeyValue(self.keys[position], self.values[position])

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.keys, self.values))


class ClipMemory:
    """Given frames for ever, every so many predicted ones counted from the last given frame, and the frame before.

    Given frames may lie anywhere in the clip, also ahead of the pass. A frame that comes again takes the place of what was known of it.

    Args:
        every: how far apart the predicted frames are that stay.
        max_bytes: the budget; None for no limit.
        keep_replaced: official behaviour: what was given for a frame before stays beside what is given now.
    """

    def __init__(self, every: int, *, max_bytes: int | None = None, keep_replaced: bool = False) -> None:
        schedule = MemorySchedule(anchors=(), recent=(1,), every=every)
        self._frames: FrameMemory[Remembered] = FrameMemory(schedule, lambda entry: entry.num_bytes, max_bytes=max_bytes)
        self._every = every
        self._keep_replaced = keep_replaced
        self._origin = (0, 0)  # a step, and the frame that it is counted from

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def frame_indices(self) -> list[int]:
        """The frames in memory, in the order in which they came."""
        return [entry.frame_index for _, entry, _ in self._frames]

    @property
    def used_bytes(self) -> int:
        """The size of all that is remembered."""
        return self._frames.used_bytes

    def add(self, entry: Remembered, *, given: bool) -> None:
        """Store a frame.

        Raises:
            MemoryBudgetError: the frames that must stay do not fit the budget.
        """
        stored = list(self._frames)
        for step, old, was_given in stored:
            if old.frame_index == entry.frame_index and not (was_given and self._keep_replaced):
                self._frames.drop(step)
        if given or not stored:
            last = max((step for step, _, _ in stored), default=-1)
            self._origin = ((last // self._every + 1) * self._every, entry.frame_index)
        self._frames.add(self._step(entry.frame_index), entry, given=given)

    def serving(self, frame_index: int, object_id: int) -> list[KeyValue]:
        """What the memory holds of an object for reading at a frame; all there is, if the schedule names no frame that knows the object."""
        references = [entry.of(object_id) for _, entry in self._frames.references(self._step(frame_index))]
        found = [part for part in references if part is not None]
        return found or [part for _, entry, _ in self._frames if (part := entry.of(object_id)) is not None]

    def given_at(self, frame_index: int) -> Remembered | None:
        """What was given last for a frame."""
        found = [entry for _, entry, given in self._frames if given and entry.frame_index == frame_index]
        return found[-1] if found else None

    def state(self) -> dict[str, Tensor]:
        """All of it, as named tensors, none of them copied."""
        tensors = {"origin": torch.tensor(self._origin)}
        for step, entry, given in self._frames:
            parts = (torch.tensor([entry.frame_index, given]), torch.tensor(entry.object_ids, dtype=torch.int64), entry.keys, entry.values)
            tensors |= {f"frames.{step}.{name}": tensor for name, tensor in zip(_PARTS, parts, strict=True)}
        return tensors

    def restore(self, state: Mapping[str, Tensor], device: str) -> None:
        """Replace all of it by what `state` gave.

        Raises:
            InputError: the tensors are not those of such a memory.
        """
        try:
            steps = sorted({int(name.split(".")[1]) for name in state if name.startswith("frames.")})
            parts = {step: [state[f"frames.{step}.{name}"] for name in _PARTS] for step in steps}
            facts = {step: tuple(int(number) for number in about.tolist()) for step, (about, _, _, _) in parts.items()}
            step, frame_index = (int(number) for number in state["origin"].tolist())
            entries = {
                step: Remembered(facts[step][0], tuple(ids.tolist()), keys.to(device), values.to(device))
                for step, (_, ids, keys, values) in parts.items()
            }
        except (KeyError, ValueError, IndexError) as error:
            message = f"this is not the state of such a pass: {error} is missing or misnamed; start the clip again without --resume"
            raise InputError(message) from error
        self._frames.clear()
        self._origin = (step, frame_index)
        for number, entry in entries.items():
            self._frames.add(number, entry, given=bool(facts[number][1]))

    def _step(self, frame_index: int) -> int:
        step, origin = self._origin
        return step + abs(frame_index - origin)


_PARTS = ("about", "object_ids", "keys", "values")
