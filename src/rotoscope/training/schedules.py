"""Learning rates over the steps of a training."""

import math
from dataclasses import dataclass


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
