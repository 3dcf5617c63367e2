"""Losses of segmentation: cross-entropy on the hardest pixels, and the soft Jaccard index."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

VOID = 255
"""Label of pixels that count for nothing."""


def bootstrapped_cross_entropy(logits: Float[Tensor, "n classes h w"], labels: Int64[Tensor, "n h w"], *, share: float) -> Float[Tensor, "n"]:
    """The mean cross-entropy of the hardest pixels of each sample.

    Args:
        logits: of each class; classes that a sample does not use have logits so low that their probability is 0.
        labels: class of each pixel; void pixels have loss 0 but are counted.
        share: of the pixels, in 0..1; 1 takes all.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none").flatten(1)
    if share >= 1:
        return losses.mean(dim=1)
    return losses.topk(int(share * losses.shape[1]), dim=1, sorted=False).values.mean(dim=1)


def hard_share(step: int, *, num_steps: int, least: float = 0.15, warm_up: float = 0.5) -> float:
    """The share of pixels that count as hard: it falls from 1 to `least` over the first `warm_up` of the training (AOT, appendix)."""
    progress = min(1.0, step / (num_steps * warm_up + 1e-5))  # the official code's margin, which decides about one pixel
    return progress * least + (1 - progress)


def hard_share_between(step: int, start: int, end: int, *, least: float = 0.15) -> float:
    """The share of pixels that count as hard: 1 until `start`, `least` from `end` on, and in between on a straight line (MiVOS, official code)."""
    progress = min(1.0, max(0.0, (step - start) / max(end - start, 1)))
    return 1 - progress * (1 - least)


def soft_jaccard_loss(logits: Float[Tensor, "n classes h w"], labels: Int64[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    """One minus the soft intersection over union of each sample, averaged over the classes in its labels, the background among them.

    The union is the intersection plus both one-sided remainders plus 1e-6; void pixels are left out (AOT, official code).
    """
    is_valid = (labels != VOID)[:, None]
    probs = logits.softmax(dim=1) * is_valid
    classes = torch.arange(logits.shape[1], device=labels.device)[:, None, None]
    truth = (labels[:, None] == classes).to(probs)
    shared, claimed, true = (part.sum(dim=(2, 3)) for part in (probs * truth, probs, truth))
    missed = 1 - shared / (claimed + true - shared + 1e-6)
    is_present = (true > 0).to(probs)
    return (missed * is_present).sum(dim=1) / is_present.sum(dim=1)


def mean_overlap(found: Bool[Tensor, "n h w"], truth: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """The mean intersection over union of the samples whose truth shows something, for the record of a training; 0 if none does."""
    shared, union = (found & truth).sum(dim=(1, 2)), (found | truth).sum(dim=(1, 2))
    is_seen = truth.flatten(1).any(dim=1)
    overlap: Tensor = (shared / union.clamp(min=1) * is_seen).sum() / is_seen.sum().clamp(min=1)
    return overlap
