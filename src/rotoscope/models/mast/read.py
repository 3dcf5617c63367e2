"""MAST's memory read: each cell copies what the most similar cells of the reference frames hold. No parameters."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.ops.local import SoftmaxPart, dilated_window_offsets, join_parts, shifted_window_part, window_part

LONG_GAP = 15
"""References farther back than this many frames are localised first (sheet 2.2)."""
LOCALISATION_RADIUS = 12
"""Of the dilated search, whatever the radius of the read (sheet 2.3)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A frame to read from: its features, what its cells hold, and how many frames ago it was."""

    features: Float[Tensor, "c h w"]
    value: Float[Tensor, "v h w"]
    gap: int


def search_dilation(gap: int) -> int:
    """The step of the dilated search: 2 from 16 frames on, 3 from 30, 4 from 45 (sheet 2.3)."""
    return min(4, gap // 15 + 1)


def read_memory(
    target: Float[Tensor, "c h w"],
    references: Sequence[Reference],
    *,
    radius: int,
    logit_scale: float = 1.0,
    one_offset_for_all_values: bool = False,
) -> Float[Tensor, "v h w"]:
    """What the target's cells copy from the references: one softmax over the windows in all of them.

    Windows reach beyond the frame, where the logit and the value are 0, so the channels of a distribution may sum to less than 1. References more
    than 15 frames back are searched in a wide dilated window first, and read around the place found there.

    Args:
        target: features of the frame that asks.
        references: at least one, oldest first.
        radius: of the window read: 12 in use, 6 in training.
        logit_scale: factor on the dot products; the released weights have 1.
        one_offset_for_all_values: the official code's fault: values of all far references are read at the offsets of the last of them.
    """
    query = target * logit_scale
    offsets = {
        index: dilated_window_offsets(query, reference.features, radius=LOCALISATION_RADIUS, dilation=search_dilation(reference.gap))
        for index, reference in enumerate(references)
        if reference.gap > LONG_GAP
    }
    last = max(offsets, default=-1)

    def part(index: int, reference: Reference) -> SoftmaxPart:
        if index not in offsets:
            return window_part(query, reference.features, reference.value, radius=radius)
        at = offsets[last] if one_offset_for_all_values else None
        return shifted_window_part(query, reference.features, reference.value, offsets[index], radius=radius, value_offsets=at)

    return join_parts(part(index, reference) for index, reference in enumerate(references)).view(-1, *target.shape[1:])


def to_coarse(maps: Tensor) -> Tensor:
    """Every fourth row and column, from the first: where the cells of the feature grid are centred (sheet 3.4)."""
    return maps[..., ::4, ::4]


def to_full_size(coarse: Float[Tensor, "v h w"], hw: tuple[int, int], *, aligned: bool = False) -> Float[Tensor, "v h2 w2"]:
    """Coarse maps at the size of the frame, linearly interpolated.

    The official code takes cell i to pixel 4i + 1.5, though it was read at pixel 4i: masks move by 1.5 pixels. With `aligned` it goes back to 4i.
    """
    if not aligned:
        return F.interpolate(coarse[None], hw, mode="bilinear", align_corners=False)[0]
    height, width = 4 * (coarse.shape[1] - 1) + 1, 4 * (coarse.shape[2] - 1) + 1
    exact = F.interpolate(coarse[None], (height, width), mode="bilinear", align_corners=True)
    return F.pad(exact, (0, max(0, hw[1] - width), 0, max(0, hw[0] - height)), mode="replicate")[0, :, : hw[0], : hw[1]]
