"""What is true of an image that a detector learns from."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

ANY_CLASS = -1
"""The class id of an object of which nobody said what it is: any class is right, the background is not."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The m objects of an image.

    Attributes:
        boxes: x0, y0, x1, y1 relative to the image, in 0..1; none is empty.
        class_ids: from 0, without the background; or `ANY_CLASS`.
        masks: at any size; what is beyond half is the object.
        crowd_boxes: of groups that nobody told apart: what is found in them is neither right nor wrong.
    """

    boxes: Float[Tensor, "m 4"]
    class_ids: Int64[Tensor, " m"]
    masks: Float[Tensor, "m h w"]
    crowd_boxes: Float[Tensor, "c 4"]

    def __len__(self) -> int:
        return len(self.class_ids)


def boxes_around(masks: Bool[Tensor, "m h w"]) -> Float[Tensor, "m 4"]:
    """The tightest box x0, y0, x1, y1 around each mask, relative to its size; zeros where there is nothing."""
    sides = []
    for dim in (1, 2):  # columns first
        used = masks.any(dim=dim).to(torch.uint8)
        length = used.shape[1]
        first, last = used.argmax(dim=1), length - used.flip(1).argmax(dim=1)
        sides.append((first / length, last * used.any(dim=1) / length))
    (x0, x1), (y0, y1) = sides
    return torch.stack((x0, y0, x1, y1), dim=1)
