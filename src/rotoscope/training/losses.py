"""Losses of segmentation: cross-entropy on the hardest pixels, and the soft Jaccard index."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

VOID = 255
"""Label of pixels that count for nothing."""


def bootstrapped_cross_entropy(logits: Float[Tensor, "classes h w"], labels: Int64[Tensor, "h w"], *, share: float) -> Float[Tensor, ""]:
    """The mean cross-entropy of the hardest pixels.

    Args:
        logits: of each class.
        labels: class of each pixel; void pixels have loss 0 but are counted.
        share: of the pixels, in 0..1; 1 takes all.
    """
    losses = F.cross_entropy(logits[None], labels[None], ignore_index=VOID, reduction="none").flatten()
    return losses.topk(int(share * losses.numel()), sorted=False).values.mean()


def hard_share(step: int, *, num_steps: int, least: float = 0.15, warm_up: float = 0.5) -> float:
    """The share of pixels that count as hard: it falls from 1 to `least` over the first `warm_up` of the training (AOT, appendix)."""
    progress = min(1.0, step / (num_steps * warm_up + 1e-5))  # the official code's margin, which decides about one pixel
    return progress * least + (1 - progress)


def soft_jaccard_loss(logits: Float[Tensor, "classes h w"], labels: Int64[Tensor, "h w"]) -> Float[Tensor, ""]:
    """One minus the soft intersection over union, averaged over the classes that occur in the labels, the background among them.

    The union is the intersection plus both one-sided remainders plus 1e-6; void pixels are left out (AOT, official code).
    """
    is_valid = labels != VOID
    probs = logits.softmax(dim=0)[:, is_valid]
    present = torch.unique(labels[is_valid])
    truth = (labels[is_valid][None] == present[:, None]).to(probs)
    claimed = probs[present]
    shared = (claimed * truth).sum(dim=1)
    union = shared + (claimed * (1 - truth)).sum(dim=1) + ((1 - claimed) * truth).sum(dim=1)
    loss: Tensor = (1 - shared / (union + 1e-6)).mean()
    return loss
