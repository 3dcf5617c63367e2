"""YOLACT as a detector: frames in, boxes with classes, scores and masks out. It keeps nothing between calls."""

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.models.yolact.assembly import enlarged, soft_masks
from rotoscope.models.yolact.config import YolactConfig
from rotoscope.models.yolact.mask_iou import LEAST_SIDE, MaskIouNetwork
from rotoscope.models.yolact.network import YolactNetwork
from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.models.yolact.pictures import network_size, prepared
from rotoscope.models.yolact.reading import Instances, read_instances
from rotoscope.types import Detections, Frame


class YolactDetector:
    """YOLACT with its weights; see `rotoscope.types.Detector`. One may serve many threads.

    Args:
        network: in evaluation mode, on its device.
        config: how frames are shown to it, and detections read from it.
    """

    def __init__(self, network: YolactNetwork, config: YolactConfig) -> None:
        self.network = network
        self.config = config

    def detect(self, frame: Frame) -> Detections:
        """The objects of a frame, best first, on the CPU; possibly none.

        Raises:
            InputError: the frame has no pixels.
        """
        return self.detect_batch([frame])[0]

    @torch.inference_mode()
    def detect_batch(self, frames: Sequence[Frame]) -> list[Detections]:
        """The objects of each frame; frames may differ in size. At most `frames_at_once` that follow each other share a pass.

        In a batch the network may round differently than for one frame alone (about 1e-5).

        Raises:
            InputError: a frame has no pixels.
        """
        for frame in frames:
            if 0 in frame.hw:
                message = f"frame {frame.index} has {frame.hw[0]}x{frame.hw[1]} pixels; there is nothing to see"
                raise InputError(message)
        found: list[Detections] = []
        for size, group in groupby(frames, key=lambda frame: network_size(frame.hw, self.config)):
            alike = list(group)
            for start in range(0, len(alike), self.config.frames_at_once):
                part = alike[start : start + self.config.frames_at_once]
                outputs = self.network(prepared(part, size, self.config, self._device))
                found += [detections_of(outputs, number, frame.hw, self.config, self.network.mask_iou) for number, frame in enumerate(part)]
        return found

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def detections_of(outputs: RawOutputs, picture: int, hw: tuple[int, int], config: YolactConfig, judge: MaskIouNetwork | None = None) -> Detections:
    """What the network's outputs say of one picture of a batch, on the CPU. The outputs stay as they are.

    Args:
        outputs: of the network.
        picture: which one of the batch.
        hw: height and width of the frame that it shows.
        config: see there.
        judge: of the masks (YOLACT++).
    """
    found = read_instances(outputs, picture, config)
    soft = soft_masks(outputs.prototypes[picture].float(), found.coefficients, found.boxes)
    mask_scores = (found.scores * judged(soft, found, judge)).clamp(max=1) if judge is not None else None
    boxes = boxes_in_pixels(found.boxes, hw)
    scores, class_ids = found.scores, found.class_ids
    if mask_scores is not None and config.min_score > 0:
        enough = mask_scores >= config.min_score
        boxes, scores, class_ids, soft, mask_scores = (values[enough] for values in (boxes, scores, class_ids, soft, mask_scores))
    return Detections(
        boxes=boxes.cpu(),
        scores=scores.cpu(),
        class_ids=class_ids.cpu(),
        masks=enlarged(soft, hw).cpu(),
        mask_scores=None if mask_scores is None else mask_scores.cpu(),
    )


def judged(soft: Float[Tensor, "n y x"], found: Instances, judge: MaskIouNetwork) -> Float[Tensor, "n"]:
    """The overlap with the truth that is to be expected of each mask as one of its class, not negative (YOLACT++, section 5.1).

    Masks that are too small for the network get a margin of zeros, as if the picture went on there with nothing in it.
    """
    if not len(soft):
        return found.scores
    below, right = (max(0, LEAST_SIDE - side) for side in soft.shape[1:])
    by_class: Tensor = judge(F.pad(soft, (0, right, 0, below))[:, None])
    return by_class.gather(1, found.class_ids[:, None])[:, 0]


def boxes_in_pixels(boxes: Float[Tensor, "n 4"], hw: tuple[int, int]) -> Float[Tensor, "n 4"]:
    """Relative corners as pixels of a frame, cut at its border."""
    limits = boxes.new_tensor((hw[1], hw[0], hw[1], hw[0]))
    return (boxes * limits).clamp(min=0).minimum(limits)
