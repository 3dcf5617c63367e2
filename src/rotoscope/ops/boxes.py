"""Boxes: how much they overlap, how networks encode them, which of many to keep, and masks cut to them. None at all is valid everywhere.

Corners are `(x0, y0, x1, y1)` with x0 <= x1 and y0 <= y1; centres are `(centre x, centre y, width, height)`. Units are the caller's.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

VARIANCES = (0.1, 0.2)
"""Of centres and of sizes: what offsets are divided by, so that they spread about 1 (Liu et al., SSD, ECCV 2016, official code)."""

_FIRST_DEPTH = 16
"""Candidates of each class that fast suppression looks at first."""
_PAIRS_AT_ONCE = 1 << 19
"""Overlaps that are held at once: they then stay in the processor's cache, and memory is bounded for any number of classes."""
_BLOCK = 256
"""Candidates that classic suppression looks at together."""


class Kept(NamedTuple):
    """What suppression leaves, best first: which box, and as which class."""

    indices: Int64[Tensor, "n"]
    class_ids: Int64[Tensor, "n"]


def corners_of(centres: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The corners of boxes that are given by centre and size."""
    middle, half = centres[..., :2], centres[..., 2:] / 2
    return torch.cat((middle - half, middle + half), dim=-1)


def centres_of(corners: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Centre and size of boxes that are given by their corners."""
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def encode(corners: Float[Tensor, "*b 4"], priors: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The offsets that lead from priors (centres) to boxes: of the centre in sizes of the prior, and of the size as a logarithm.

    Each is divided by its variance. A box without extent has no logarithm: its offsets are not finite.
    """
    boxes = centres_of(corners)
    shift = (boxes[..., :2] - priors[..., :2]) / (VARIANCES[0] * priors[..., 2:])
    stretch = (boxes[..., 2:] / priors[..., 2:]).log() / VARIANCES[1]
    return torch.cat((shift, stretch), dim=-1)


def decode(offsets: Float[Tensor, "*b 4"], priors: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """The corners of the boxes to which offsets lead from priors (centres); the inverse of `encode`. They may leave the picture."""
    middle = priors[..., :2] + offsets[..., :2] * VARIANCES[0] * priors[..., 2:]
    size = priors[..., 2:] * (offsets[..., 2:] * VARIANCES[1]).exp()
    return corners_of(torch.cat((middle, size), dim=-1))


def area(boxes: Float[Tensor, "*b n 4"], *, corner_pixels: bool = False) -> Float[Tensor, "*b n"]:
    """Width times height; with `corner_pixels` each is one more, as if corners were pixels that belong to the box."""
    sides = boxes[..., 2:] - boxes[..., :2] + (1 if corner_pixels else 0)
    return sides[..., 0] * sides[..., 1]


def intersection(first: Float[Tensor, "*b n 4"], second: Float[Tensor, "*b m 4"], *, corner_pixels: bool = False) -> Float[Tensor, "*b n m"]:
    """The area that each of the first boxes shares with each of the second."""
    extra = 1 if corner_pixels else 0
    x0, y0, x1, y1 = (first[..., :, None, side] for side in range(4))
    u0, v0, u1, v1 = (second[..., None, :, side] for side in range(4))
    width = (torch.minimum(x1, u1) - torch.maximum(x0, u0) + extra).clamp(min=0)
    height = (torch.minimum(y1, v1) - torch.maximum(y0, v0) + extra).clamp(min=0)
    return width * height


def iou(first: Float[Tensor, "*b n 4"], second: Float[Tensor, "*b m 4"], *, corner_pixels: bool = False) -> Float[Tensor, "*b n m"]:
    """Intersection over union of each of the first boxes with each of the second, in 0..1; 0 where neither has an area."""
    shared = intersection(first, second, corner_pixels=corner_pixels)
    first_area, second_area = (area(boxes, corner_pixels=corner_pixels) for boxes in (first, second))
    return _share(shared, first_area[..., :, None] + second_area[..., None, :] - shared)


def covered(first: Float[Tensor, "*b n 4"], second: Float[Tensor, "*b m 4"]) -> Float[Tensor, "*b n m"]:
    """The share of each of the first boxes that lies in each of the second, in 0..1; 0 for boxes without area."""
    shared = intersection(first, second)
    return _share(shared, area(first)[..., :, None].expand_as(shared))


def _share(part: Float[Tensor, "*b"], whole: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    return part / whole.clamp(min=torch.finfo(whole.dtype).tiny)


def fast_nms(
    boxes: Float[Tensor, "p 4"], scores: Float[Tensor, "classes p"], *, overlap_threshold: float = 0.5, top_k: int = 200, most: int = 100
) -> Kept:
    """Fast NMS (YOLACT, section 3.3): a box goes if any better one of its class overlaps it, even one that goes itself.

    Each class has its `top_k` best boxes as candidates; of what all classes keep, the `most` best remain. No score is too low.
    Ties of scores go to the lower class, then to the earlier box, on whatever device and with any number of threads.

    Few of the candidates can get that far: at first each class shows its best ones, and only classes whose next one might still be among the best of
    all go on. What is kept is the same, because nothing later suppresses anything earlier.

    Args:
        boxes: corners.
        scores: of each box as each class.
        overlap_threshold: boxes that overlap a better one by more than this go.
        top_k: candidates for each class.
        most: that are returned.
    """
    limit = min(top_k, scores.shape[1])
    depth = min(limit, _FIRST_DEPTH)
    open_classes = torch.arange(scores.shape[0], device=scores.device)
    kept = Kept(open_classes[:0], open_classes[:0])
    while True:
        candidates = _best_per_class(scores[open_classes], depth)
        rows, places = _unrivalled(boxes, candidates, overlap_threshold).nonzero(as_tuple=True)
        is_closed = ~torch.isin(kept.class_ids, open_classes)
        indices = torch.cat((kept.indices[is_closed], candidates[rows, places]))
        class_ids = torch.cat((kept.class_ids[is_closed], open_classes[rows]))
        kept, bar = _best_of_all(indices, class_ids, scores, most)
        if depth == limit:
            return kept
        open_classes = open_classes[scores[open_classes, candidates[:, -1]] >= bar]
        depth = min(4 * depth, limit)


def cross_class_fast_nms(
    boxes: Float[Tensor, "p 4"], scores: Float[Tensor, "classes p"], *, overlap_threshold: float = 0.5, top_k: int = 200, most: int = 100
) -> Kept:
    """Fast NMS with one class for each box, its best (ties: the lower), in which boxes suppress those of other classes too; see `fast_nms`."""
    best, class_ids = scores.max(dim=0)
    indices = fast_nms(boxes, best[None], overlap_threshold=overlap_threshold, top_k=top_k, most=most).indices
    return Kept(indices, class_ids[indices])


def classic_nms(
    boxes: Float[Tensor, "p 4"],
    scores: Float[Tensor, "classes p"],
    *,
    score_threshold: float = 0.0,
    overlap_threshold: float = 0.5,
    most: int = 100,
    corner_pixels: bool = False,
) -> Kept:
    """Greedy NMS: a box goes if a better one of its class that stays overlaps it.

    Blocks of candidates, over all classes from the best down, are compared with what stays so far, and it ends once enough stay.
    Ties of scores go to the lower class, then to the earlier box.

    Args:
        boxes: corners.
        scores: of each box as each class.
        score_threshold: a box is a candidate for a class if its score is above this.
        overlap_threshold: boxes that overlap a better one by this or more go.
        most: that are returned.
        corner_pixels: see `area`; the official code measures boxes in pixels of the network's input so.
    """
    class_ids, indices = (scores > score_threshold).nonzero(as_tuple=True)
    order = scores[class_ids, indices].sort(descending=True, stable=True).indices
    class_ids, indices = class_ids[order], indices[order]
    kept = order[:0]
    for block in torch.split(torch.arange(len(order), device=order.device), _BLOCK):
        if len(kept) >= most:
            break
        overlaps = iou(boxes[indices[torch.cat((kept, block))]], boxes[indices[block]], corner_pixels=corner_pixels)
        is_rival = (overlaps >= overlap_threshold) & (class_ids[torch.cat((kept, block))][:, None] == class_ids[block])
        is_open = ~is_rival[: len(kept)].any(dim=0)
        kept = torch.cat((kept, block[_greedily_kept(is_rival[len(kept) :].triu(diagonal=1), is_open)]))
    kept = kept[:most]
    return Kept(indices[kept], class_ids[kept])


def _best_per_class(scores: Float[Tensor, "classes p"], k: int) -> Int64[Tensor, "classes k"]:
    """The k best of each class, best first, the earlier first among equals."""
    values, indices = scores.topk(k, dim=1)
    if bool(((scores >= values[:, -1:]).sum(dim=1) > k).any()):  # equals at the edge: `topk` would leave the choice to chance
        return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    indices = indices.sort(dim=1).values
    return indices.gather(1, scores.gather(1, indices).sort(dim=1, descending=True, stable=True).indices)


def _unrivalled(boxes: Float[Tensor, "p 4"], candidates: Int64[Tensor, "classes k"], overlap_threshold: float) -> Bool[Tensor, "classes k"]:
    """Which candidates no better one of their class overlaps by more than the threshold."""
    at_once = max(1, _PAIRS_AT_ONCE // max(1, candidates.shape[1] ** 2))
    overlaps = (iou(boxes[part], boxes[part]) for part in torch.split(candidates, at_once))
    return torch.cat([~(overlap > overlap_threshold).triu(diagonal=1).any(dim=1) for overlap in overlaps])


def _best_of_all(indices: Int64[Tensor, "n"], class_ids: Int64[Tensor, "n"], scores: Float[Tensor, "classes p"], most: int) -> tuple[Kept, float]:
    """The best over all classes, and the score that another would have to reach to be among them. Those of a class must be in their order."""
    order = class_ids.sort(stable=True).indices
    order = order[scores[class_ids[order], indices[order]].sort(descending=True, stable=True).indices][:most]
    kept = Kept(indices[order], class_ids[order])
    bar = float(scores[kept.class_ids[-1], kept.indices[-1]]) if len(order) == most else float("-inf")
    return kept, bar


def _greedily_kept(is_rival: Bool[Tensor, "n n"], is_open: Bool[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Which stay when all go that an earlier one that stays rivals. Each round settles at least one more, usually nearly all."""
    kept = is_open
    while True:
        settled = is_open & ~(is_rival & kept[:, None]).any(dim=0)
        if torch.equal(settled, kept):
            return kept
        kept = settled


def crop_masks(masks: Float[Tensor, "n h w"], boxes: Float[Tensor, "n 4"], *, padding: float = 1.0) -> Float[Tensor, "n h w"]:
    """The masks, zero outside their boxes.

    A pixel stays if its column and row, as whole numbers, lie in `[x0 - padding, x1 + padding)` and `[y0 - padding, y1 + padding)`, unrounded
    (YOLACT, official code).

    Args:
        masks: of any range.
        boxes: corners, relative to the size of the masks.
        padding: in pixels of the masks.
    """
    height, width = masks.shape[1:]
    x0, y0, x1, y1 = (boxes * boxes.new_tensor((width, height, width, height))).T[:, :, None]
    columns, rows = (torch.arange(length, dtype=boxes.dtype, device=boxes.device) for length in (width, height))
    in_columns = (columns >= x0 - padding) & (columns < x1 + padding)
    in_rows = (rows >= y0 - padding) & (rows < y1 + padding)
    is_inside: Tensor = in_rows[:, :, None] & in_columns[:, None, :]
    return masks * is_inside
