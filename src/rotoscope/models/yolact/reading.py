"""From the network's outputs for one picture to instances: boxes, scores, classes, and the coefficients of their masks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rotoscope.models.yolact.config import YolactConfig
from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.ops.boxes import Kept, classic_nms, cross_class_fast_nms, decode, fast_nms


@dataclass(frozen=True, slots=True)
class Instances:
    """What was found in a picture, best first, before its masks are made.

    Attributes:
        boxes: corners relative to the picture; they may leave it.
        scores: probability of the class.
        class_ids: index into the class names of the configuration.
        coefficients: of the prototypes.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]
    class_ids: Int64[Tensor, "n"]
    coefficients: Float[Tensor, "n k"]


def read_instances(outputs: RawOutputs, picture: int, config: YolactConfig) -> Instances:
    """The instances of one picture of a batch: priors whose best class is likely enough, decoded, suppressed, the best of them.

    Coefficients are looked up for those that are left only. As in the official code, a prior that is likely enough competes in every class, and fast
    suppression asks for no score: scores below `score_threshold` come back, unless `min_score` forbids it. With `only_classes`, other classes are
    as if the network did not know them, but probabilities still sum to 1 over all.
    """
    probabilities = outputs.class_logits[picture].float().softmax(dim=1)[:, 1:]
    chosen = config.only_class_ids
    if chosen:
        probabilities = probabilities[:, list(chosen)]
    likely = (probabilities.amax(dim=1) > config.score_threshold).nonzero()[:, 0]
    scores = probabilities[likely].T.contiguous()
    boxes = decode(outputs.offsets[picture, likely].float(), outputs.priors[likely].float())
    kept = suppressed(boxes, scores, config)
    best = scores[kept.class_ids, kept.indices]
    enough = best >= config.min_score
    indices, class_ids = kept.indices[enough], kept.class_ids[enough]
    if chosen:
        class_ids = torch.tensor(chosen, device=class_ids.device)[class_ids]
    return Instances(boxes[indices], best[enough], class_ids, outputs.coefficients[picture, likely[indices]].float())


def suppressed(boxes: Float[Tensor, "p 4"], scores: Float[Tensor, "classes p"], config: YolactConfig) -> Kept:
    """The boxes that the configured suppression leaves, at most `max_detections`, best first."""
    if config.suppression == "classic":
        return classic_nms(
            boxes * config.image_size,
            scores,
            score_threshold=config.score_threshold,
            overlap_threshold=config.overlap_threshold,
            most=config.max_detections,
            corner_pixels=True,
        )
    suppress = fast_nms if config.suppression == "fast" else cross_class_fast_nms
    return suppress(boxes, scores, overlap_threshold=config.overlap_threshold, top_k=config.top_k, most=config.max_detections)
