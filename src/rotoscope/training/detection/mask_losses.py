"""The losses of the masks (M, and D on their coefficients), and what teaches the judge of masks (I)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from rotoscope.ops.boxes import area, crop_masks
from rotoscope.training.detection.settings import LossSettings
from rotoscope.training.detection.truth import ANY_CLASS, Truth

_OUTSIDE = 100.0
"""What a pixel of the object beyond the crop costs: its probability is 0 there, and torch limits the logarithm to -100."""
_LEAST = 1e-4  # added to areas (official code)


@dataclass(frozen=True, slots=True)
class Judged:
    """Masks with their true overlap, for the judge of masks.

    Attributes:
        masks: probabilities, cropped.
        overlaps: of the masks, cut at one half, with the truth.
        class_ids: of the objects.
    """

    masks: Float[Tensor, "m 1 y x"]
    overlaps: Float[Tensor, " m"]
    class_ids: Int64[Tensor, " m"]


@dataclass(frozen=True, slots=True)
class Positives:
    """The m positive priors of an image.

    Attributes:
        truth_indices: the object of each.
        coefficients: as the network gives them.
        boxes: that masks are cropped by: x0, y0, x1, y1, relative.
    """

    truth_indices: Int64[Tensor, " m"]
    coefficients: Float[Tensor, "m k"]
    boxes: Float[Tensor, "m 4"]

    def some(self, most: int) -> "Positives":
        """At most so many, drawn by the global random numbers."""
        if len(self.boxes) <= most:
            return self
        drawn = torch.randperm(len(self.boxes))[:most].to(self.boxes.device)
        return Positives(self.truth_indices[drawn], self.coefficients[drawn], self.boxes[drawn])


def small_masks(truth: Truth, hw: tuple[int, int], *, binary: bool) -> Float[Tensor, "m y x"]:
    """True masks at another size."""
    masks = F.interpolate(truth.masks[None].float(), hw, mode="bilinear", align_corners=False)[0] if len(truth) else truth.masks.new_zeros(0, *hw)
    return (masks > 0.5).float() if binary else masks


def mask_loss(prototypes: Float[Tensor, "k y x"], positives: Positives, truth: Truth, settings: LossSettings) -> tuple[Float[Tensor, ""], Judged]:
    """The sum of the losses of an image's masks, before their weight and the division by the number of positives; and what the judge can learn.

    The loss of a mask is the cross-entropy of its pixels within the crop, over the area of the box in prototype pixels (sheet, section 4, M).
    """
    chosen = positives.some(settings.max_masks)
    hw = (prototypes.shape[1], prototypes.shape[2])
    aims = small_masks(truth, hw, binary=settings.is_mask_binary)[chosen.truth_indices]
    logits = torch.einsum("mk,kyx->myx", chosen.coefficients, prototypes)
    everywhere = F.binary_cross_entropy_with_logits(logits, aims, reduction="none")
    inside = torch.ones_like(logits) if settings.crop == "none" else crop_masks(torch.ones_like(logits), chosen.boxes)
    losses = torch.where(inside > 0, everywhere, _OUTSIDE * aims) * _pixel_weights(aims, settings)
    per_mask = losses.sum(dim=(1, 2)) / (logits.shape[1] * logits.shape[2])
    if settings.is_area_normalised:
        pixels = logits.shape[1] * logits.shape[2]
        boxes = area(chosen.boxes).clamp(min=max(settings.least_box_area, 1e-6) / pixels)
        per_mask = per_mask / (boxes * (pixels if settings.crop == "none" else 1))  # official code: no weight where nothing is cropped
    total = per_mask.sum() * (len(positives.boxes) / max(len(chosen.boxes), 1))
    if settings.whole_mask_weight:
        total = total + settings.whole_mask_weight * everywhere.sum() / (logits.shape[1] * logits.shape[2])
    return total, _judged(logits.sigmoid() * inside, aims, truth.class_ids[chosen.truth_indices], settings)


def _pixel_weights(aims: Float[Tensor, "m y x"], settings: LossSettings) -> Float[Tensor, "m #y #x"] | float:
    """How much each pixel counts within its mask; see `is_root_normalised` and `balance_weight`."""
    weights: Tensor | float = 1.0
    if settings.is_root_normalised:
        weights = weights / (aims.sum(dim=(1, 2), keepdim=True).sqrt() + _LEAST)
    if settings.balance_weight:
        shown = (aims > 0.5).float()
        object_share, rest_share = (part / (part.sum(dim=(1, 2), keepdim=True) + _LEAST) for part in (shown, 1 - shown))
        weights = weights * (object_share * settings.balance_weight + rest_share) * (aims.shape[1] * aims.shape[2])
    return weights


def _judged(masks: Float[Tensor, "m y x"], aims: Float[Tensor, "m y x"], class_ids: Int64[Tensor, " m"], settings: LossSettings) -> Judged:
    """The masks whose objects are large enough and of a stated class. Gradients flow through them, as in the official code."""
    counts = (aims.sum(dim=(1, 2)) > settings.least_judged_area) & (class_ids != ANY_CLASS)
    masks, aims, class_ids = masks[counts], aims[counts], class_ids[counts]
    found = (masks > 0.5).float()
    shared = (found * aims).sum(dim=(1, 2))
    union = found.sum(dim=(1, 2)) + aims.sum(dim=(1, 2)) - shared
    return Judged(masks[:, None], (shared / union.clamp(min=1)).detach(), class_ids)


def diversity_loss(positives: Positives) -> Float[Tensor, ""]:
    """D of an image: coefficients of one object are to point the same way, those of different objects apart (YOLACT, official code)."""
    directions = F.normalize(positives.coefficients, dim=1)
    likeness = (directions @ directions.T + 1) / 2
    is_same = positives.truth_indices[:, None] == positives.truth_indices
    return torch.where(is_same, 1 - likeness, likeness).sum() / max(len(directions), 1)
