"""How good a mask is, seen from the mask alone (YOLACT++, section 5.1: fast mask re-scoring)."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.errors import InputError

_CHANNELS = (1, 8, 16, 32, 64, 128)  # official code
LEAST_SIDE = 63
"""Of the masks, in cells: five unpadded convolutions of stride 2 leave one cell of it."""


class MaskIouNetwork(nn.Module):
    """For each class the overlap with the truth (intersection over union) that a mask of it would have."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, 2) for inputs, outputs in pairwise(_CHANNELS))  # not padded: official code
        self.classify = nn.Conv2d(_CHANNELS[-1], num_classes, 1)

    def forward(self, masks: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n c"]:
        """The expected overlap of each mask for each class, not negative; about 0..1 once trained.

        Args:
            masks: probabilities at the size of the prototypes, zero outside their boxes.

        Raises:
            InputError: the masks are smaller than `LEAST_SIDE`.
        """
        if min(masks.shape[2:]) < LEAST_SIDE:
            size = f"{masks.shape[2]}x{masks.shape[3]}"
            message = f"prototypes of {size} cells are too small to judge masks on; use pictures of at least {4 * LEAST_SIDE} pixels a side"
            raise InputError(message)
        x = masks
        for conv in self.narrow:
            x = F.relu(conv(x))
        return F.relu(self.classify(x)).amax(dim=(2, 3))
