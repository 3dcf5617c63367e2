"""A look at what a network finds while it is trained."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.ops.boxes import crop_masks, cross_class_fast_nms, decode
from rotoscope.training.detection.truth import Truth
from rotoscope.training.task import SamplePictures


@torch.no_grad()
def sample_pictures(images: Float[Tensor, "n 3 y x"], truth: Truth, outputs: RawOutputs, *, most: int = 5) -> SamplePictures:
    """The first picture of a batch (RGB in 0..255), its objects, and the best that were found."""
    boxes = decode(outputs.offsets[0].float(), outputs.priors.float())
    scores = outputs.class_logits[0].float().softmax(dim=1)[:, 1:].T
    kept = cross_class_fast_nms(boxes, scores, most=most)
    logits = torch.einsum("mk,kyx->myx", outputs.coefficients[0, kept.indices].float(), outputs.prototypes[0].float())
    hw = (images.shape[2], images.shape[3])
    masks = F.interpolate(crop_masks(logits.sigmoid(), boxes[kept.indices])[None], hw, mode="bilinear", align_corners=False)[0]
    pixels = images[:1].round().clamp(0, 255).to(torch.uint8).cpu()
    return SamplePictures(pixels, label_map(truth.masks, hw)[None], label_map(masks, hw)[None])


def label_map(masks: Float[Tensor, "m y x"], hw: tuple[int, int]) -> Int64[Tensor, "h w"]:
    """Masks over one another, numbered from 1, the first on top."""
    labels = torch.zeros(hw, dtype=torch.int64)
    for number in range(len(masks), 0, -1):
        labels[masks[number - 1].cpu() > 0.5] = number
    return labels
