"""What a group of objects remembers: the frame before, and frames that are kept for long, as many as the budget holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.models.aot.stored import LayerMemory, Stored
from rotoscope.nn.attention import split_heads

_SMOOTHING = 0.1
"""Share of the newest frame in the running mean of the attention that a remembered frame receives."""
_GROWTH = 4
"""Frames for which room is made at a time, without a budget."""


@dataclass(slots=True)
class KeptFrame:
    """A frame in long-term memory.

    Attributes:
        step: its place in the pass.
        given: its masks came from a person or from ground truth.
        attention: running mean of the attention that it received, 1 being the fair share.
    """

    step: int
    given: bool
    attention: float = 1.0


class LongTermMemory:
    """Keys and values of kept frames, side by side, so that reading them copies nothing.

    Without a limit every frame stays, as in the official code. With one, given frames stay for ever, and the newer half of the rest stays as a ring;
    of the older half the frame that receives the least attention makes room for the next one.
    """

    def __init__(self) -> None:
        self.frames: list[KeptFrame] = []
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._cells = 0

    def __len__(self) -> int:
        return len(self.frames)

    def layer(self, index: int) -> Stored:
        """Everything kept for one layer; a view."""
        used = len(self.frames) * self._cells
        return Stored(self._keys[index][:, :used], self._values[index][:, :used])

    def add(self, step: int, layers: Sequence[Stored], *, given: bool, most_frames: int | None) -> None:
        """Keep a frame; one of the same step is replaced. Over the limit the least useful predicted frame goes, possibly this one."""
        slot = next((slot for slot, frame in enumerate(self.frames) if frame.step == step), len(self.frames))
        if slot == len(self.frames) and most_frames is not None and slot >= most_frames:
            spare = self._least_useful(most_frames)
            if spare is None and not given:
                return
            slot = slot if spare is None else spare
        if slot == len(self.frames):
            self._make_room(layers, slot + 1, most_frames)
            self.frames.append(KeptFrame(step, given))
        self.frames[slot] = KeptFrame(step, given)
        here = slice(slot * self._cells, (slot + 1) * self._cells)
        for keys, values, stored in zip(self._keys, self._values, layers, strict=True):
            keys[:, here], values[:, here] = stored.key, stored.value

    def shrink(self, most_frames: int) -> None:
        """Let the least useful predicted frames go until no more than so many frames are left, or only given ones."""
        while len(self.frames) > most_frames:
            slot = self._least_useful(most_frames)
            if slot is None:
                break
            last = len(self.frames) - 1
            source, target = (slice(place * self._cells, (place + 1) * self._cells) for place in (last, slot))
            for buffer in (*self._keys, *self._values):
                buffer[:, target] = buffer[:, source].clone()
            self.frames[slot] = self.frames[last]
            self.frames.pop()
        room = max(most_frames, len(self.frames)) * self._cells
        if self._keys and self._keys[0].shape[1] > room:
            self._keys, self._values = ([buffer[:, :room].clone() for buffer in buffers] for buffers in (self._keys, self._values))

    def note_attention(self, shares: Sequence[float]) -> None:
        """Take into account which share of its attention a frame paid to each kept one."""
        for frame, share in zip(self.frames, shares, strict=True):
            frame.attention += _SMOOTHING * (share * len(self.frames) - frame.attention)

    def _least_useful(self, most_frames: int) -> int | None:
        """The slot of the predicted frame that may go; None if all are given."""
        predicted = sorted((slot for slot, frame in enumerate(self.frames) if not frame.given), key=lambda slot: self.frames[slot].step)
        num_given = len(self.frames) - len(predicted)
        recent = max(most_frames - num_given, 0) // 2
        older = predicted[: len(predicted) - recent]
        return min(older, key=lambda slot: self.frames[slot].attention, default=None)

    def _make_room(self, layers: Sequence[Stored], num_frames: int, most_frames: int | None) -> None:
        self._cells = layers[0].key.shape[1]
        if self._keys and self._keys[0].shape[1] >= num_frames * self._cells:
            return
        room = max(num_frames, most_frames) if most_frames is not None else num_frames + max(_GROWTH, num_frames // 4)
        for position, parts in enumerate((self._keys, self._values)):
            grown = [stored[position].new_empty((1, room * self._cells, stored[position].shape[2])) for stored in layers]
            for buffer, new in zip(parts, grown, strict=False):
                new[:, : buffer.shape[1]] = buffer
            parts[:] = grown

    def state(self) -> dict[str, Tensor]:
        """All that is kept, as named tensors."""
        tensors = {
            "steps": torch.tensor([frame.step for frame in self.frames], dtype=torch.int64),
            "given": torch.tensor([frame.given for frame in self.frames], dtype=torch.bool),
            "attention": torch.tensor([frame.attention for frame in self.frames], dtype=torch.float64),
        }
        for index in range(len(self._keys)):
            tensors[f"key.{index}"], tensors[f"value.{index}"] = (part.clone() for part in self.layer(index))
        return tensors

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], device: str) -> "LongTermMemory":
        """The memory that `state` describes; a KeyError says which tensor is missing."""
        memory = cls()
        num_layers = sum(name.startswith("key.") for name in state)
        memory._keys = [state[f"key.{index}"].to(device, copy=True) for index in range(num_layers)]
        memory._values = [state[f"value.{index}"].to(device, copy=True) for index in range(num_layers)]
        rows = zip(state["steps"].tolist(), state["given"].tolist(), state["attention"].tolist(), strict=True)
        memory.frames = [KeptFrame(*row) for row in rows]
        memory._cells = memory._keys[0].shape[1] // len(memory.frames) if memory.frames else 0
        return memory


class GroupMemory:
    """Both memories of one group of at most ten objects."""

    def __init__(self) -> None:
        self.long_term = LongTermMemory()
        self.short_term: tuple[Stored, ...] = ()
        self.last_kept_step = 0

    def layers(self) -> list[LayerMemory]:
        """What each layer reads."""
        return [LayerMemory(self.long_term.layer(index), stored) for index, stored in enumerate(self.short_term)]

    def state(self) -> dict[str, Tensor]:
        """Both memories as named tensors."""
        tensors = {f"long_term.{name}": tensor for name, tensor in self.long_term.state().items()}
        for index, stored in enumerate(self.short_term):
            tensors[f"short_term.key.{index}"], tensors[f"short_term.value.{index}"] = stored
        tensors["last_kept_step"] = torch.tensor(self.last_kept_step)
        return tensors

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], device: str) -> "GroupMemory":
        """The memories that `state` describes; a KeyError says which tensor is missing."""
        memory = cls()
        prefix = "long_term."
        memory.long_term = LongTermMemory.restored({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}, device)
        num_layers = sum(name.startswith("short_term.key.") for name in state)
        memory.short_term = tuple(
            Stored(state[f"short_term.key.{index}"].to(device), state[f"short_term.value.{index}"].to(device)) for index in range(num_layers)
        )
        memory.last_kept_step = int(state["last_kept_step"])
        return memory


def attention_shares(query: Float[Tensor, "n l c"], key: Float[Tensor, "n m c"], num_frames: int, *, num_heads: int, sample: int = 64) -> list[float]:
    """Which share of its attention a frame pays to each of the frames whose keys lie one after the other; they sum to 1.

    Taken over evenly spread query cells, not all, because it only ranks frames.
    """
    asked, keys = split_heads(query[:, :: max(query.shape[1] // sample, 1)], num_heads), split_heads(key, num_heads)
    weights = (asked @ keys.transpose(-1, -2) * keys.shape[-1] ** -0.5).float().softmax(dim=-1)
    shares: list[float] = weights.mean(dim=(0, 1, 2)).reshape(num_frames, -1).sum(dim=1).tolist()
    return shares
