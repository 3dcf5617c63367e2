"""CPU seconds from YOLACT's raw outputs to boxes and masks, one thread, beside a plain reference in the same run (docs/yolact.md)."""

import multiprocessing as mp
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.tables import cost_of, peak_megabytes, show

if TYPE_CHECKING:
    from rotoscope.models.yolact import RawOutputs, YolactConfig
    from rotoscope.models.yolact.reading import Instances

CASES = (  # what the picture holds, its height and width
    ("noise", (480, 854)),
    ("objects", (480, 854)),
    ("noise", (2160, 3840)),
)
LARGE = 1000
"""Pixels of a side above which the reference is left out: it needs gigabytes."""


def main() -> None:
    """Print the table."""
    rows = []
    for content, hw in CASES:
        with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            is_small = max(hw) <= LARGE
            plain = pool.apply(measure, (content, hw, True)) if is_small else None
            ours = pool.apply(measure, (content, hw, False))
            differing = pool.apply(differences, (content, hw)) if is_small else ""
        seconds = [f"{value:.4f}" for value in ours[1:3]]
        beside = [f"{value:.4f}" for value in plain[1:3]] if plain else ["", ""]
        ratio = f"{(plain[1] + plain[2]) / (ours[1] + ours[2]):.1f}" if plain else ""
        peaks = [f"{plain[3]:.0f}" if plain else "", f"{ours[3]:.0f}"]
        rows.append((f"{content}, {hw[1]}x{hw[0]}", ours[0], *beside, *seconds, ratio, *peaks, differing))
    header = (
        "picture",
        "detections",
        "reference: boxes, CPU s",
        "masks, CPU s",
        "ours: boxes, CPU s",
        "masks, CPU s",
        "ratio",
        "reference: added peak, MB",
        "ours",
        "mask pixels that differ",
    )
    show("YOLACT's outputs at 550 pixels to detections, one thread (median of seven)", header, rows)


def measure(content: str, hw: tuple[int, int], is_reference: bool) -> tuple[int, float, float, float]:  # noqa: FBT001 - called through a pool
    """How many detections there are, CPU seconds for boxes and for masks, and how far the peak rose, in MB."""
    torch.set_num_threads(1)
    config, outputs = _outputs(content)
    before = peak_megabytes()
    with torch.inference_mode():
        read, draw = (reference_boxes, reference_masks) if is_reference else (our_boxes, our_masks)
        found = read(outputs, config)
        boxes = cost_of(lambda: read(outputs, config), repeats=7).cpu_seconds
        masks = cost_of(lambda: draw(outputs, found, hw), repeats=7 if max(hw) <= LARGE else 1).cpu_seconds
    return len(found.scores), boxes, masks, peak_megabytes() - before


def differences(content: str, hw: tuple[int, int]) -> int:
    """How many mask pixels of ours are not those of the reference.

    Raises:
        ValueError: the boxes are not the same.
    """
    config, outputs = _outputs(content)
    with torch.inference_mode():
        plain, ours = reference_boxes(outputs, config), our_boxes(outputs, config)
        if not (torch.equal(plain.class_ids, ours.class_ids) and torch.allclose(plain.boxes, ours.boxes, atol=1e-6)):
            message = "ours does not find what the reference finds"
            raise ValueError(message)
        return int((reference_masks(outputs, plain, hw).bool() != our_masks(outputs, ours, hw)).sum())


def our_boxes(outputs: "RawOutputs", config: "YolactConfig") -> "Instances":
    """As the detector reads them."""
    from rotoscope.models.yolact.reading import read_instances

    return read_instances(outputs, 0, config)


def our_masks(outputs: "RawOutputs", found: "Instances", hw: tuple[int, int]) -> Tensor:
    """As the detector makes them."""
    from rotoscope.models.yolact.assembly import enlarged, soft_masks

    return enlarged(soft_masks(outputs.prototypes[0], found.coefficients, found.boxes), hw)


def reference_boxes(outputs: "RawOutputs", config: "YolactConfig") -> "Instances":
    """Fast NMS without thought for time: everything decoded and sorted, boxes and coefficients of all candidates copied."""
    from rotoscope.models.yolact.reading import Instances
    from rotoscope.ops.boxes import decode, iou

    boxes = decode(outputs.offsets[0], outputs.priors)
    scores = outputs.class_logits[0].softmax(dim=1)[:, 1:].T
    likely = scores.amax(dim=0) > config.score_threshold
    boxes, scores, coefficients = boxes[likely], scores[:, likely], outputs.coefficients[0][likely]
    scores, order = scores.sort(dim=1, descending=True)
    scores, order = scores[:, : config.top_k].contiguous(), order[:, : config.top_k].contiguous()
    boxes, coefficients = boxes[order], coefficients[order]
    keep = iou(boxes, boxes).triu_(diagonal=1).amax(dim=1) <= config.overlap_threshold
    class_ids = torch.arange(len(scores))[:, None].expand_as(keep)[keep]
    boxes, coefficients, scores = boxes[keep], coefficients[keep], scores[keep]
    scores, order = scores.sort(descending=True)
    order = order[: config.max_detections]
    return Instances(boxes[order], scores[: config.max_detections], class_ids[order], coefficients[order])


def reference_masks(outputs: "RawOutputs", found: "Instances", hw: tuple[int, int]) -> Tensor:
    """All masks at once, enlarged as a whole, as numbers."""
    from rotoscope.ops.boxes import crop_masks

    soft = (outputs.prototypes[0].permute(1, 2, 0) @ found.coefficients.T).sigmoid().permute(2, 0, 1).contiguous()
    soft = crop_masks(soft, found.boxes)
    return F.interpolate(soft[None], hw, mode="bilinear", align_corners=False)[0].gt(0.5).float()


def _outputs(content: str) -> tuple["YolactConfig", "RawOutputs"]:
    """Made-up outputs of `yolact-base`: of noise, every prior is likely to be something; of objects, those near twelve places are."""
    from rotoscope.models.yolact import VARIANTS, RawOutputs
    from rotoscope.models.yolact.priors import priors_of

    config, random = VARIANTS["yolact-base"], torch.Generator().manual_seed(0)
    priors = priors_of(config, [(side, side) for side in (69, 35, 18, 9, 5)])
    logits = 2 * torch.randn(1, len(priors), 81, generator=random)
    if content == "objects":
        places = torch.rand(12, 2, generator=random)
        apart = torch.cdist(priors[:, :2], places)
        logits[0, :, 0] += 12
        near = (apart < 0.04).nonzero()
        logits[0, near[:, 0], 1 + near[:, 1]] += 14
    prototypes = torch.randn(1, 32, 18, 18, generator=random)
    outputs = RawOutputs(
        offsets=torch.randn(1, len(priors), 4, generator=random),
        class_logits=logits,
        coefficients=torch.randn(1, len(priors), 32, generator=random).tanh(),
        prototypes=F.interpolate(prototypes, (138, 138), mode="bilinear", align_corners=False).relu(),
        priors=priors,
    )
    return config, outputs
