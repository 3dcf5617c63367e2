"""What a training is made of: the protocol between the loop, which knows no system, and the recipes, which know no loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from rotoscope.training.schedules import Rate

Batch = Mapping[str, Tensor]
"""What a step computes on, by name. Tensors only, so that any batch can be moved to a device, and saved when something goes wrong in it."""


class Draw(NamedTuple):
    """Which batch is meant. A batch is a function of its draw alone: so a resumed run, and one on more processes, sees the same batches.

    Attributes:
        step: of the optimiser, from 0.
        part: of the step, from 0: with accumulation or several processes a step has several parts.
        size: samples in this part.
        seed: of the run.
    """

    step: int
    part: int
    size: int
    seed: int

    def generator(self) -> torch.Generator:
        """The source of all that is random about the batch, on the CPU."""
        mixed = ((self.seed * 1_000_003 + self.step) * 1_009 + self.part) % 2**63
        return torch.Generator().manual_seed(mixed)


class ParameterGroup(NamedTuple):
    """Parameters that are trained in the same way.

    Attributes:
        name: unique in the training; it names the group in the record.
        parameters: which.
        rate: of learning.
        weight_decay: see the optimiser.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    rate: Rate
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True)
class SamplePictures:
    """One sample of a batch, to be looked at.

    Attributes:
        images: its frames, RGB bytes.
        truth: its labels; 255 is void.
        predicted: the labels that the network gave.
    """

    images: UInt8[Tensor, "t 3 h w"]
    truth: Int64[Tensor, "t h w"]
    predicted: Int64[Tensor, "t h w"]


@dataclass(frozen=True, slots=True)
class StepLosses:
    """What the network made of a batch.

    Attributes:
        total: what is minimised: a mean over the samples, so that the parts of a step can be averaged.
        figures: what the record shows of the step, detached scalars.
        pictures: of one sample; None where nobody asked.
    """

    total: Float[Tensor, ""]
    figures: Mapping[str, Tensor]
    pictures: SamplePictures | None = None


@runtime_checkable
class Task(Protocol):
    """What a recipe gives to the loop.

    Attributes:
        model: what is trained, averaged and saved.
    """

    model: nn.Module

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All that is trained; what is in no group stays as it is."""
        ...

    def batch(self, draw: Draw) -> Batch:
        """The samples of a draw, on the CPU. Called from other threads, ahead of time."""
        ...

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The losses of a batch that lies on the model's device; the global random state is set by the loop and belongs to the batch."""
        ...


@runtime_checkable
class Noted(Protocol):
    """A task whose weights say something of themselves.

    Attributes:
        notes: what the metadata of the exported file shall hold.
    """

    notes: Mapping[str, str]
