"""The losses of YOLACT and YOLACT++ (YOLACT's sheet, section 4): boxes B, classes C, masks M, semantic segmentation S, judged masks I, and others.

B, C, M, I and D are sums over a batch divided by its positives (by 1 if there are none: an image without objects is no division by zero),
S, E and P are divided by the number of images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.ops.boxes import area, decode, encode, intersection
from rotoscope.training.detection.class_losses import class_loss
from rotoscope.training.detection.mask_losses import Judged, Positives, diversity_loss, mask_loss, small_masks
from rotoscope.training.detection.matching import Matches, match_priors
from rotoscope.training.detection.settings import LossSettings
from rotoscope.training.detection.truth import ANY_CLASS, Truth

MaskJudge = Callable[[Float[Tensor, "m 1 y x"]], Float[Tensor, "m c"]]
"""A network that gives the overlap to expect of masks, for each class."""

_SPARSE_AREA = 20 * 20 / 70 / 70
_SPARSE_WEIGHT = 0.1
"""The share of a prototype that is expected to be used, and the weight of the loss (official code)."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The positives of a batch: the offsets and the aims of all, and those of each image."""

    offsets: Float[Tensor, "m 4"]
    aims: Float[Tensor, "m 4"]
    priors: Float[Tensor, "m 4"]
    images: list[Positives]


def detection_losses(
    outputs: RawOutputs, truths: Sequence[Truth], settings: LossSettings, *, judge: MaskJudge | None = None, existence: Tensor | None = None
) -> dict[str, Float[Tensor, ""]]:
    """The losses by their letters; what is minimised is their sum.

    Args:
        outputs: of the network, in any precision; losses are computed in float32.
        truths: of each image, on the device of the outputs.
        settings: see there.
        judge: of masks (YOLACT++), for the loss I.
        existence: logits `[n, c]` of each class being in the image, for the loss E.
    """
    priors = outputs.priors.float()
    matches = [match_priors(priors, truth, settings) for truth in truths]
    targets = torch.stack([match.targets for match in matches])
    found = _found(outputs, priors, truths, matches, settings)
    count = max(len(found.aims), 1)
    losses = {"B": settings.box_weight * F.smooth_l1_loss(found.offsets, found.aims, reduction="sum") / count}
    losses |= _of_masks(outputs, truths, found, settings, judge)
    overlaps = _overlaps(decode(found.offsets, found.priors), decode(found.aims, found.priors), settings)
    losses["C"] = settings.class_weight * class_loss(outputs.class_logits.float(), targets, settings, overlaps) / count
    if outputs.semantic_logits is not None and settings.semantic_weight:
        images = [_semantic_loss(logits.float(), truth) for logits, truth in zip(outputs.semantic_logits, truths, strict=True)]
        losses["S"] = settings.semantic_weight * torch.stack(images).mean()
    if settings.prototype_loss != "none":
        losses["P"] = _prototype_loss(outputs.prototypes.float(), settings) / len(truths)
    if existence is not None and settings.existence_weight:
        losses["E"] = settings.existence_weight * _existence_loss(existence.float(), truths) / len(truths)
    return losses


def _found(outputs: RawOutputs, priors: Float[Tensor, "p 4"], truths: Sequence[Truth], matches: Sequence[Matches], settings: LossSettings) -> _Found:
    offsets, aims, where, images = [], [], [], []
    for index, (truth, match) in enumerate(zip(truths, matches, strict=True)):
        is_positive = match.is_positive
        owners, own = match.truth_indices[is_positive], priors[is_positive]
        predicted, boxes = outputs.offsets[index][is_positive].float(), truth.boxes[owners]
        offsets.append(predicted)
        aims.append(encode(boxes, own))
        where.append(own)
        crops = decode(predicted, own).detach() if settings.crop == "predicted" else boxes
        images.append(Positives(owners, outputs.coefficients[index][is_positive].float(), crops))
    return _Found(torch.cat(offsets), torch.cat(aims), torch.cat(where), images)


@torch.no_grad()
def _overlaps(first: Float[Tensor, "m 4"], second: Float[Tensor, "m 4"], settings: LossSettings) -> Float[Tensor, " m"]:
    """Intersection over union, pair by pair, 0 for boxes beyond all bounds; see `LossSettings.least_union`."""
    shared = intersection(first[:, None], second[:, None])[:, 0, 0]
    union = area(first) + area(second) - shared
    return (shared / union.clamp(min=max(settings.least_union, torch.finfo(union.dtype).tiny))).nan_to_num(0.0).clamp(max=1)


def _of_masks(
    outputs: RawOutputs, truths: Sequence[Truth], found: _Found, settings: LossSettings, judge: MaskJudge | None
) -> dict[str, Float[Tensor, ""]]:
    """M, and D and I where there are such."""
    count = max(len(found.aims), 1)
    prototypes = outputs.prototypes.float()
    with_objects = [index for index, positives in enumerate(found.images) if len(positives.boxes)]
    parts = [mask_loss(prototypes[index], found.images[index], truths[index], settings) for index in with_objects]
    nothing = prototypes.sum() * 0  # a loss of zero that still has a gradient, as other processes expect
    losses = {"M": settings.mask_weight * sum((loss for loss, _ in parts), start=nothing) / count}
    if settings.diversity_weight:
        losses["D"] = settings.diversity_weight * sum((diversity_loss(found.images[index]) for index in with_objects), start=nothing) / count
    if judge is not None:
        losses["I"] = settings.mask_iou_weight * sum(_judge_losses([judged for _, judged in parts], judge, settings), start=nothing) / count
    return losses


def _judge_losses(parts: Sequence[Judged], judge: MaskJudge, settings: LossSettings) -> list[Float[Tensor, ""]]:
    """I: how far the judge is from the true overlap of masks, at most so many of a batch."""
    if not any(len(part.overlaps) for part in parts):
        return []
    masks, overlaps, class_ids = (torch.cat([getattr(part, name) for part in parts]) for name in ("masks", "overlaps", "class_ids"))
    if settings.max_judged is not None and len(masks) > settings.max_judged:
        drawn = torch.randperm(len(masks))[: settings.max_judged].to(masks.device)
        masks, overlaps, class_ids = masks[drawn], overlaps[drawn], class_ids[drawn]
    expected = judge(masks).float().gather(1, class_ids[:, None])[:, 0]
    return [F.smooth_l1_loss(expected, overlaps, reduction="sum")]


def _semantic_loss(logits: Float[Tensor, "c y x"], truth: Truth) -> Float[Tensor, ""]:
    """S of an image: the classes of each pixel, the mean over the pixels of the sum over the classes. Where any class is right, one must be there."""
    masks = small_masks(truth, (logits.shape[1], logits.shape[2]), binary=True)
    is_any = truth.class_ids == ANY_CLASS
    shown = torch.zeros_like(logits)
    for class_id in torch.unique(truth.class_ids[~is_any]):
        shown[class_id] = masks[truth.class_ids == class_id].amax(dim=0)
    losses = F.binary_cross_entropy_with_logits(logits, shown, reduction="none").sum(dim=0)
    if bool(is_any.any()):
        is_something = masks[is_any].amax(dim=0).bool()
        log_none = F.logsigmoid(-logits).sum(dim=0)
        something = -torch.log(-torch.expm1(log_none.clamp(max=-1e-6)))
        losses = torch.where(is_something, something, losses)
    return losses.mean()


def _prototype_loss(prototypes: Float[Tensor, "n k y x"], settings: LossSettings) -> Float[Tensor, ""]:
    if settings.prototype_loss == "sparse":
        return prototypes.abs().mean() * (_SPARSE_WEIGHT / _SPARSE_AREA)
    return -prototypes.log_softmax(dim=1).amax(dim=1).mean()


def _existence_loss(logits: Float[Tensor, "n c"], truths: Sequence[Truth]) -> Float[Tensor, ""]:
    """E: which classes each image shows."""
    shown = torch.zeros_like(logits)
    for row, truth in zip(shown, truths, strict=True):
        row[truth.class_ids[truth.class_ids != ANY_CLASS]] = 1
    return F.binary_cross_entropy_with_logits(logits, shown, reduction="sum")
