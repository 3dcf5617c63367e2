"""What YOLACT's network gives for a batch of pictures, before anything is decided."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """The outputs of the network for n pictures.

    Attributes:
        offsets: of the boxes, encoded relative to the priors (centre x, y, log width, log height, each over its variance).
        class_logits: for the background (index 0) and each class.
        coefficients: of the prototypes, in -1..1 (after tanh).
        prototypes: non-negative (after ReLU), at twice the size of P3.
        priors: `(centre x, centre y, width, height)` relative to the picture.
        semantic_logits: for each class at the size of P3; None unless the network is training.
    """

    offsets: Float[Tensor, "n p 4"]
    class_logits: Float[Tensor, "n p classes"]
    coefficients: Float[Tensor, "n p k"]
    prototypes: Float[Tensor, "n k y x"]
    priors: Float[Tensor, "p 4"]
    semantic_logits: Float[Tensor, "n c y3 x3"] | None = None
