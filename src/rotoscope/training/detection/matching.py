"""Which prior is to find which object."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rotoscope.ops.boxes import corners_of, covered, iou
from rotoscope.training.detection.settings import LossSettings
from rotoscope.training.detection.truth import ANY_CLASS, Truth

NEUTRAL = -1
"""Target of priors that count for nothing."""
BACKGROUND = 0
"""Target of priors that find nothing; class c has the target c + 1."""
ANY_OBJECT = -2
"""Target of priors that find an object of no stated class."""
_FORCED = 2.0  # an overlap above all thresholds


@dataclass(frozen=True, slots=True)
class Matches:
    """What each of p priors is to find in an image.

    Attributes:
        targets: `NEUTRAL`, `BACKGROUND`, a class + 1, or `ANY_OBJECT`.
        truth_indices: the object that it overlaps most; of use where the prior is positive.
    """

    targets: Int64[Tensor, " p"]
    truth_indices: Int64[Tensor, " p"]

    @property
    def is_positive(self) -> Bool[Tensor, " p"]:
        """Priors that are to find an object."""
        return positive(self.targets)


def positive(targets: Int64[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Where a target is an object."""
    return (targets > BACKGROUND) | (targets == ANY_OBJECT)


@torch.no_grad()
def match_priors(priors: Float[Tensor, "p 4"], truth: Truth, settings: LossSettings) -> Matches:
    """Give each object its priors: its best free one in any case, and those that overlap it enough (SSD's rule).

    Args:
        priors: centre x, y, width and height.
        truth: of the image; without objects all priors are background, or neutral in a crowd.
        settings: see there.
    """
    boxes = corners_of(priors)
    if len(truth):
        overlaps, owners = _claims(iou(truth.boxes, boxes))
        classes = truth.class_ids[owners]
        targets = torch.where(classes == ANY_CLASS, ANY_OBJECT, classes + 1)
        targets = torch.where(overlaps < settings.positive_overlap, NEUTRAL, targets)
        targets = torch.where(overlaps < settings.negative_overlap, BACKGROUND, targets)
    else:
        targets = owners = torch.zeros(len(priors), dtype=torch.int64, device=priors.device)
    if len(truth.crowd_boxes) and settings.crowd_share < 1:
        in_crowd = covered(boxes, truth.crowd_boxes).amax(dim=1) > settings.crowd_share
        targets = torch.where(in_crowd & ~positive(targets), NEUTRAL, targets)
    return Matches(targets, owners)


def _claims(overlaps: Float[Tensor, "m p"]) -> tuple[Float[Tensor, " p"], Int64[Tensor, " p"]]:
    """The largest overlap of each prior and whose it is, once each object has claimed a prior: the largest overlap of all claims first.

    With more objects than priors the last ones go without.
    """
    best, owners = overlaps.max(dim=0)
    left = overlaps.clone()
    for _ in range(min(overlaps.shape)):
        largest, candidates = left.max(dim=1)
        row = largest.argmax()
        column = candidates[row]
        left[:, column] = left[row, :] = -1
        best[column], owners[column] = _FORCED, row
    return best, owners
