"""Masks made of prototypes and coefficients, and brought to the size of the picture (YOLACT, section 3.2)."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rotoscope.ops.boxes import crop_masks

_PIXELS_AT_ONCE = 1 << 17
"""Of one mask that are held as numbers: half a megabyte stays in the processor's cache, and memory is bounded whatever the size of the picture."""


def soft_masks(
    prototypes: Float[Tensor, "k y x"], coefficients: Float[Tensor, "n k"], boxes: Float[Tensor, "n 4"], *, crop: bool = True
) -> Float[Tensor, "n y x"]:
    """The probability of each pixel to be of each instance, at the size of the prototypes: one matrix product, sigmoid, zero outside the box.

    Args:
        prototypes: of the picture.
        coefficients: of each instance.
        boxes: corners relative to the picture.
        crop: at the box, with a margin of one prototype pixel, so that masks may leave their box by as much (as in the official code).
    """
    masks = (coefficients @ prototypes.flatten(1)).sigmoid().view(-1, *prototypes.shape[1:])
    return crop_masks(masks, boxes) if crop else masks


def enlarged(soft: Float[Tensor, "n y x"], hw: tuple[int, int]) -> Bool[Tensor, "n h w"]:
    """Where the masks are above a half at another size, between pixel centres (`align_corners=False`).

    A pixel can be above a half only beside one that is, so just the surroundings of those are interpolated, block by block; besides the result there
    is never more than a few megabytes.
    """
    count, height, width = soft.shape
    masks = torch.zeros((count, *hw), dtype=torch.bool, device=soft.device)
    if 0 in (count, height, width):
        return masks
    rows, columns = _taps(height, hw[0], soft.device), _taps(width, hw[1], soft.device)
    is_inside = soft > 0.5
    spans = torch.stack((*_reach(is_inside.any(dim=2), rows), *_reach(is_inside.any(dim=1), columns)), dim=1)
    for mask, one, (top, bottom, left, right) in zip(masks, soft, spans.tolist(), strict=True):
        if right <= left:
            continue
        near = columns.cut(left, right)
        wide = torch.lerp(one.index_select(1, near.low), one.index_select(1, near.high), near.weight)
        step = max(1, _PIXELS_AT_ONCE // (right - left))
        for start in range(top, bottom, step):
            end = min(start + step, bottom)
            part = rows.cut(start, end)
            values = wide.index_select(0, part.low).lerp_(wide.index_select(0, part.high), part.weight[:, None])
            torch.gt(values, 0.5, out=mask[start:end, left:right])
    return masks


class _Taps(NamedTuple):
    """Between which two places of a source each place of a target lies, and how near it is to the second."""

    low: Int64[Tensor, "target"]
    high: Int64[Tensor, "target"]
    weight: Float[Tensor, "target"]

    def cut(self, start: int, end: int) -> "_Taps":
        """Those of some places of the target."""
        return _Taps(self.low[start:end], self.high[start:end], self.weight[start:end])


def _taps(source: int, target: int, device: torch.device) -> _Taps:
    places = ((torch.arange(target, dtype=torch.float32, device=device) + 0.5) * (source / target) - 0.5).clamp(min=0)
    low = places.long().clamp(max=source - 1)
    return _Taps(low, (low + 1).clamp(max=source - 1), places - low)


def _reach(is_inside: Bool[Tensor, "n source"], taps: _Taps) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "n"]]:
    """For each mask the first place of the target that sees an inside place of the source, and the one after the last; equal if there is none."""
    length = is_inside.shape[1]
    places = torch.arange(length, device=is_inside.device)
    first = torch.where(is_inside, places, length).amin(dim=1)
    last = torch.where(is_inside, places, -1).amax(dim=1)
    return torch.searchsorted(taps.high, first), torch.searchsorted(taps.low, last, right=True)
