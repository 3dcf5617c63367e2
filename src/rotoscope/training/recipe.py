"""What every recipe states: how long, how many at a time, how the weights move. Systems add fields of their own."""

from dataclasses import dataclass
from typing import Literal

from rotoscope.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings that the loop reads.

    Attributes:
        steps: of the optimiser.
        batch_size: samples of one part of a step on one process.
        accumulate: parts of a step on one process, one after the other; a step sees batch_size * accumulate * processes samples.
        optimiser: AdamW decouples the weight decay, Adam adds it to the gradient; SGD has `momentum`.
        momentum: of SGD.
        clip_norm: the largest norm of the gradient, over all parameters; None for no limit.
        average_decay: of the moving average of the weights (EMA), which is what is exported; None for none. It is never above
            (1 + step) / (10 + step), so that the first weights are soon forgotten.
        precision: bfloat16 computes the network under autocast; weights stay float32.
        seed: of all that is random.
        save_every: steps between two saved states.
        keep: how many saved states stay.
        record_every: steps between two lines of the record.
        picture_every: steps between two sample pictures; 0 for none.
        prefetch: batches made ahead, in as many threads; 0 makes each when it is needed.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    momentum: float = 0.9
    clip_norm: float | None = None
    average_decay: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    save_every: int = 1000
    keep: int = 2
    record_every: int = 20
    picture_every: int = 1000
    prefetch: int = 2

    def __post_init__(self) -> None:
        """Refuse what no training can be.

        Raises:
            InputError: a number is out of its range.
        """
        at_least_1 = ("steps", "batch_size", "accumulate", "save_every", "keep", "record_every")
        least = {**dict.fromkeys(at_least_1, 1), "picture_every": 0, "prefetch": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                message = f"{name}={getattr(self, name)} is too small; give {bound} or more"
                raise InputError(message)
        if self.clip_norm is not None and not self.clip_norm > 0:
            message = f"clip_norm={self.clip_norm} leaves no gradient; give a number above 0, or none"
            raise InputError(message)
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            message = f"average_decay={self.average_decay} is no average; give 0 to less than 1, or none"
            raise InputError(message)
