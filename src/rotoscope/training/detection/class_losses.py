"""The loss of the classes (C): cross-entropy with hard negatives, focal losses, objectness.

All are sums over a batch. Targets are those of `matching`; logits are float32 with the background, or the objectness, at index 0.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rotoscope.training.detection.matching import ANY_OBJECT, BACKGROUND, NEUTRAL, positive
from rotoscope.training.detection.settings import LossSettings


def class_loss(
    logits: Float[Tensor, "n p classes"], targets: Int64[Tensor, "n p"], settings: LossSettings, overlaps: Float[Tensor, " positives"]
) -> Float[Tensor, ""]:
    """The loss of the kind that the settings name.

    Args:
        logits: as the network gives them.
        targets: of each prior.
        settings: see there.
        overlaps: of the predicted boxes of positives with their objects, in order; used by "objectness".
    """
    if settings.class_loss == "mined":
        return _mined(logits, targets, settings)
    flat, wanted = logits.flatten(0, 1), targets.flatten()
    flat, wanted, overlaps = flat[wanted != NEUTRAL], wanted[wanted != NEUTRAL], overlaps.to(flat)
    if settings.class_loss == "softmax-focal":
        return _softmax_focal(flat, wanted, settings)
    if settings.class_loss == "sigmoid-focal":
        return _sigmoid_focal(flat, wanted, settings)
    is_object = positive(wanted)
    classes = _cross_entropy(flat[is_object, 1:], wanted[is_object], settings, shift=1).sum()
    if settings.class_loss == "objectness-focal":
        log_right = F.logsigmoid(torch.where(is_object, flat[:, 0], -flat[:, 0]))
        return classes + _focal(log_right, is_object, settings).sum()
    aims = torch.zeros_like(flat[:, 0]).masked_scatter(is_object, overlaps)
    return classes + F.binary_cross_entropy_with_logits(flat[:, 0], aims, reduction="sum")


def _mined(logits: Float[Tensor, "n p classes"], targets: Int64[Tensor, "n p"], settings: LossSettings) -> Float[Tensor, ""]:
    """Cross-entropy of positives and of the hardest negatives of each image (SSD's mining)."""
    counts = positive(targets) | hard_negatives(logits, targets, settings)
    chosen = targets[counts]
    losses = _cross_entropy(logits[counts], chosen, settings)
    if settings.is_class_balanced:
        losses = losses * _rarity(chosen, logits.shape[2])
    return losses.sum()


@torch.no_grad()
def hard_negatives(logits: Float[Tensor, "n p classes"], targets: Int64[Tensor, "n p"], settings: LossSettings) -> Bool[Tensor, "n p"]:
    """The negatives that count: of each image the hardest, so many for each positive."""
    by_confidence = settings.mining == "confidence"
    hardness = logits.softmax(dim=2)[..., 1:].amax(dim=2) if by_confidence else logits.logsumexp(dim=2) - logits[..., 0]
    hardness = torch.where(targets == BACKGROUND, hardness, 0.0)
    num_positive = positive(targets).sum(dim=1)
    wanted = (settings.negatives_per_positive * num_positive).long().clamp(max=targets.shape[1] - 1)
    wanted = torch.where(num_positive == 0, settings.lone_negatives, wanted)
    order = hardness.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return (ranks < wanted[:, None]) & (targets == BACKGROUND)


def _cross_entropy(
    logits: Float[Tensor, "m classes"], targets: Int64[Tensor, " m"], settings: LossSettings, *, shift: int = 0
) -> Float[Tensor, " m"]:
    """The cross-entropy of each; `shift` is 1 where the logits have no background.

    Where any object is right, it is that of the sum of the objects' probabilities, weighted by how likely each class is beforehand.
    """
    is_any = targets == ANY_OBJECT
    stated = F.cross_entropy(logits, torch.where(is_any, shift, targets) - shift, reduction="none")
    if not bool(is_any.any()):
        return stated
    objects = logits[:, 1 - shift :]
    if settings.class_prior:
        likely = torch.tensor(settings.class_prior).to(objects)
        objects = objects + (likely / likely.max()).log()
    return torch.where(is_any, logits.logsumexp(dim=1) - objects.logsumexp(dim=1), stated)


def _rarity(targets: Int64[Tensor, " m"], num_classes: int) -> Float[Tensor, " m"]:
    """One minus the share of each target's class in the batch, so scaled that evenly spread classes weigh 1.

    The official code takes the shares of the whole training so far; a batch has no memory here.
    """
    present = torch.where(targets == ANY_OBJECT, BACKGROUND, targets)
    shares = torch.bincount(present, minlength=num_classes)[present] / max(len(targets), 1)
    return (1 - shares).clamp(min=1 / num_classes) * num_classes / (num_classes - 1)


def _focal(log_right: Float[Tensor, "*shape"], is_object: Bool[Tensor, "*shape"], settings: LossSettings) -> Float[Tensor, "*shape"]:
    """The focal loss of what was right with a probability (Lin et al., ICCV 2017, equation 5)."""
    weight = torch.where(is_object, settings.focal_alpha, 1 - settings.focal_alpha)
    return -weight * (1 - log_right.exp()) ** settings.focal_gamma * log_right


def _softmax_focal(logits: Float[Tensor, "m classes"], targets: Int64[Tensor, " m"], settings: LossSettings) -> Float[Tensor, ""]:
    return _focal(-_cross_entropy(logits, targets, settings), positive(targets), settings).sum()


def _sigmoid_focal(logits: Float[Tensor, "m classes"], targets: Int64[Tensor, " m"], settings: LossSettings) -> Float[Tensor, ""]:
    """Over the classes alone: the background has no sigmoid. Where any class is right, only the likeliest is taught."""
    objects = logits[:, 1:]
    classes = torch.where(targets == ANY_OBJECT, objects.argmax(dim=1) + 1, targets)
    is_right = F.one_hot(classes, logits.shape[1])[:, 1:].bool()
    losses = _focal(F.logsigmoid(torch.where(is_right, objects, -objects)), is_right, settings)
    is_unsure = (targets == ANY_OBJECT)[:, None] & ~is_right
    return torch.where(is_unsure, 0.0, losses).sum()
