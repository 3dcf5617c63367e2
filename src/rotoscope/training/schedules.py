"""Learning rates over the steps of a training."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class PolynomialRate:
    """A linear warm-up from the least rate, then a polynomial fall back to it (AOT, official code).

    Attributes:
        base: the highest rate.
        least: where it starts and ends.
        num_steps: of the whole training.
        warm_up: share of the steps in which the rate rises.
        power: of the fall.
    """

    base: float
    least: float
    num_steps: int
    warm_up: float = 0.05
    power: float = 0.9

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        rising = int(self.num_steps * self.warm_up)
        if step < rising:
            return self.least + (self.base - self.least) * step / rising
        progress = (step - rising) / (self.num_steps - rising + 1)
        return self.least + (self.base - self.least) * math.pow(1 - progress, self.power)


@runtime_checkable
class Rate(Protocol):
    """A learning rate over the steps of a training."""

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        ...


@dataclass(frozen=True, slots=True)
class Shifted:
    """Another rate, brought nearer to the least one by a factor (AOT: the encoder's).

    Attributes:
        rate: the other.
        factor: 1 leaves it as it is, 0 gives the least one.
        least: where it is brought.
    """

    rate: Rate
    factor: float
    least: float

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return self.least + self.factor * (self.rate.at(step) - self.least)


@dataclass(frozen=True, slots=True)
class Until:
    """Another rate before a step, and 0 from that step on.

    Attributes:
        rate: the other.
        end: the first step at rest.
    """

    rate: Rate
    end: int

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return self.rate.at(step) if step < self.end else 0.0


@dataclass(frozen=True, slots=True)
class SteppedRate:
    """A rate that falls at once by a factor, whenever one of some steps is reached (MiVOS: by 10).

    Attributes:
        base: at the start.
        falls_at: the steps.
        factor: what remains of it each time.
    """

    base: float
    falls_at: tuple[int, ...] = ()
    factor: float = 0.1

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return self.base * self.factor ** sum(step >= fall for fall in self.falls_at)


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """Another rate, to which it rises over the first steps on a straight line (YOLACT, official code).

    Attributes:
        rate: the other.
        start: where it begins.
        steps: over which it rises.
    """

    rate: Rate
    start: float
    steps: int

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if step >= self.steps:
            return self.rate.at(step)
        return self.start + (self.rate.at(step) - self.start) * step / self.steps
