"""YOLACT and YOLACT++: objects found in single pictures, each with a box, a class and a mask made of prototypes.

Papers: Bolya, Zhou, Xiao and Lee, "YOLACT: Real-time Instance Segmentation", ICCV 2019, and "YOLACT++: Better Real-time Instance Segmentation",
TPAMI 2020. Compared with the official repository dbolya/yolact. Reproduced exactly: the networks and priors of all released configurations, decoding,
the three suppressions, masks, their rescoring. Beyond it: any size of picture, classes that are looked for alone, nothing found is a result.
Not reproduced: results that are changed when they are read, boxes cut to whole pixels (ours are exact). `yolact-lite` is ours.
"""

import json
from dataclasses import replace

import torch

from rotoscope.errors import CheckpointError
from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.models.yolact.config import YolactConfig
from rotoscope.models.yolact.detector import YolactDetector, detections_of
from rotoscope.models.yolact.mask_iou import MaskIouNetwork
from rotoscope.models.yolact.naming import OFFICIAL_NAMES
from rotoscope.models.yolact.network import YolactNetwork, fresh_network
from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.models.yolact.variants import OFFICIAL_FILES, VARIANTS

__all__ = [
    "CLASSES_NOTE",
    "OFFICIAL_FILES",
    "OFFICIAL_NAMES",
    "VARIANTS",
    "MaskIouNetwork",
    "RawOutputs",
    "YolactConfig",
    "YolactDetector",
    "YolactNetwork",
    "build",
    "detections_of",
    "fresh_network",
]

CLASSES_NOTE = "classes"
"""Entry of the metadata of our weights: the names of the classes, a JSON list."""

_MARKS = ("prediction_layers.0.", "head.")
"""How keys of the shared head begin, in official files and in ours."""


def build(config: YolactConfig, weights: Checkpoint, device: str) -> YolactDetector:
    """The detector with official weights, or with ours, which state the classes that they were trained for.

    Of other weights for classes of one's own, `class_names` must be those of the training.

    Raises:
        CheckpointError: the weights are of another model, for other classes, incomplete, or not finite.
    """
    if not any(key.startswith(_MARKS) for key in weights.tensors):
        message = f"{weights.path} holds no weights of YOLACT: it has no entries named 'prediction_layers.0.…' (official) or 'head.…' (ours)"
        raise CheckpointError(message)
    config = _with_stated_classes(config, weights)
    renamed = rename(weights, OFFICIAL_NAMES)
    _check_classes(renamed, config)
    with torch.device("meta"):  # up to 50 million random numbers would be drawn only to be replaced
        network = YolactNetwork(config)
    network.to_empty(device="cpu")
    load_strictly(network, renamed)
    return YolactDetector(network.to(device).prepare(), config)


def _with_stated_classes(config: YolactConfig, weights: Checkpoint) -> YolactConfig:
    """The configuration with the classes that the weights state, unless its own were given by the user.

    Raises:
        CheckpointError: what is stated is no list of names.
        InputError: classes are looked for that are not among them.
    """
    stated = weights.notes.get(CLASSES_NOTE)
    if stated is None or config.class_names not in {variant.class_names for variant in VARIANTS.values()}:
        return config
    try:
        names = tuple(str(name) for name in json.loads(stated))
    except (ValueError, TypeError) as error:
        message = f"{weights.path} states its classes as {stated[:80]!r}, which is no list of names; give class_names"
        raise CheckpointError(message) from error
    return replace(config, class_names=names)


def _check_classes(weights: Checkpoint, config: YolactConfig) -> None:
    """Say plainly that the number of classes differs, which is what differs in weights of one's own training."""
    semantic = weights.tensors.get("semantic.weight")
    if semantic is not None and semantic.shape[0] != config.num_classes:
        message = (
            f"{weights.path} knows {semantic.shape[0]} classes, but {config.num_classes} are named; "
            "give class_names, in the order of the training, or take the model that it is of"
        )
        raise CheckpointError(message)
