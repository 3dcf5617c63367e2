"""What a layer remembers of a frame."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Stored(NamedTuple):
    """Keys and values of one frame (or several, one after the other) for one layer, projected once, when they are stored.

    The values know which object each cell belongs to; in DeAOT they are the visual ones and the ID ones side by side.
    """

    key: Float[Tensor, "n m c"]
    value: Float[Tensor, "n m d"]


class LayerMemory(NamedTuple):
    """What a layer reads: any number of frames that are kept for long, and the frame before."""

    long_term: Stored
    short_term: Stored
