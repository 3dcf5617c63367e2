"""How YOLACT, YOLACT++ and `yolact-lite` are trained (YOLACT's sheet, section 4).

Schedules, losses, matching and augmentation of the released configurations are official. Not so: a batch without objects teaches what is background
(officially it is a division by zero, and skipped); images are drawn with replacement in place of epochs; numbers that are not finite stop it.

`yolact-lite` is ours. On images with masks but without classes it learns to find things, and to tell people from others where the source of an
image says what it shows; on data with classes it learns these like the others.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rotoscope.datasets.detection.layouts import read_detection_set
from rotoscope.models.checkpoints import Checkpoint, load_strictly, read_checkpoint, rename
from rotoscope.models.yolact import CLASSES_NOTE, OFFICIAL_NAMES, VARIANTS, RawOutputs, YolactConfig, YolactNetwork, fresh_network
from rotoscope.training.detection.annotated import AnnotatedImages
from rotoscope.training.detection.found import sample_pictures
from rotoscope.training.detection.multibox import detection_losses
from rotoscope.training.detection.recipe import YolactRecipe, recipe_of
from rotoscope.training.detection.scenes import SceneSettings
from rotoscope.training.detection.sources import PictureSource, SourceClasses, has_named_classes, read_scenes
from rotoscope.training.detection.ssd_augment import SsdSettings
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.task import Batch, Draw, ParameterGroup, StepLosses

logger = logging.getLogger(__name__)

_PERSON, _OBJECT = 0, 1  # of `LITE_CLASSES`
_KNOWN = SourceClasses(
    class_ids=(("Penn-Fudan", _PERSON), ("Human-Segmentation", _PERSON), ("clothing", _PERSON), ("horses", _OBJECT), ("cat-segmentation", _OBJECT)),
    parts=("clothing",),
)
"""What sources of images without classes show: people, parts of one person, or animals."""
_FOCAL_PRIOR = 0.01  # RetinaNet, ICCV 2017, section 4.1
_FIGURES = {"B": "boxes", "C": "classes", "M": "masks", "S": "semantic", "I": "mask_iou"}
_OF_CLASSES = ("head.classes.", "semantic.", "mask_iou.classify.")
"""Layers whose shape is that of the classes."""


def default_recipe(name: str) -> YolactRecipe:
    """The recipe of a configuration."""
    return recipe_of(name)


def build_task(recipe: YolactRecipe, data: Path, *, device: str, weights: Path | None = None) -> "YolactTask":
    """The training of a network on a data set, from weights or from the start.

    Weights for other classes are taken but for the layers of the classes, which start anew.

    Raises:
        InputError: there is nothing to train on.
        CheckpointError: the weights are of another model.
    """
    config = VARIANTS[recipe.model]
    sizes = recipe.sizes or (config.image_size,)
    source: PictureSource
    has_unnamed = recipe.model == "yolact-lite" and not has_named_classes(data)
    if has_unnamed:
        settings = SceneSettings(layers=recipe.layers)
        source = read_scenes(
            data, _KNOWN, settings, sizes=sizes, telling_share=recipe.telling_share, held_out=recipe.held_out, device=device
        )  # fmt: skip
    else:
        images = read_detection_set(data)
        config = replace(config, class_names=images.class_names)
        source = AnnotatedImages(images, SsdSettings(least_side=recipe.least_side), sizes)
    network = _start(recipe, config, weights)
    moved = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return YolactTask(recipe, moved, source, has_unnamed=has_unnamed)


def describe(task: "YolactTask") -> list[str]:
    """What was found to train on, and what is trained."""
    recipe, config = task.recipe, task.config
    learning = sum(parameter.numel() for group in task.parameter_groups() for parameter in group.parameters)
    names = ", ".join(config.class_names[:5]) + (", ..." if config.num_classes > 5 else "")
    norms = "stay as they are" if recipe.freezes_norms else "learn"
    lines = [str(task.source), f"{recipe.model}: {learning / 1e6:.2f} M parameters to train, {config.num_classes} classes: {names}"]
    if config.backbone != "efficientnet-lite0":
        lines.append(f"the encoder's normalisations {norms}")
        if recipe.encoder is None:
            lines.append("the encoder has no ImageNet weights; give encoder=FILE or --from WEIGHTS, or train for much longer")
    return lines


def _start(recipe: YolactRecipe, config: YolactConfig, weights: Path | None) -> YolactNetwork:
    encoder = None if recipe.encoder is None else read_checkpoint(Path(recipe.encoder))
    if encoder is None and config.backbone == "efficientnet-lite0":
        encoder = lite_encoder_weights()
    prior = _FOCAL_PRIOR if recipe.class_loss in ("softmax-focal", "sigmoid-focal") else None
    network = fresh_network(config, recipe.seed, backbone=encoder, foreground_prior=prior, frozen_norms=recipe.freezes_norms)
    if weights is not None:
        load_strictly(network, _fitting(rename(read_checkpoint(weights), OFFICIAL_NAMES), network))
    return network


def _fitting(checkpoint: Checkpoint, network: YolactNetwork) -> Checkpoint:
    """The checkpoint, with the network's own layers for the classes where it was trained for another number of them."""
    own, given = network.state_dict(), checkpoint.tensors
    others = [key for key in own if key.startswith(_OF_CLASSES) and key in given and given[key].shape != own[key].shape]
    if not others:
        return checkpoint
    logger.warning("%s was trained for another number of classes; %s start anew", checkpoint.path, ", ".join(others))
    return replace(checkpoint, tensors={**given, **{key: own[key] for key in own if key.startswith(_OF_CLASSES)}})


class YolactTask:
    """A network, its pictures and its losses; see `training.task.Task`.

    Args:
        recipe: see there.
        network: whose configuration has the classes of the data.
        source: of the pictures.
        has_unnamed: some objects have no stated class.
    """

    def __init__(self, recipe: YolactRecipe, network: YolactNetwork, source: PictureSource, *, has_unnamed: bool = False) -> None:
        self.model: nn.Module = network
        self.recipe = recipe
        self.config = network.config
        self.source = source
        self.notes = {CLASSES_NOTE: json.dumps(self.config.class_names)}
        self._judge = network.mask_iou
        self._settings = recipe.losses(has_unnamed=has_unnamed)
        resting = ("backbone.layers.stem.", *(f"backbone.layers.blocks.{index}." for index in range(recipe.frozen_blocks)))
        for name, parameter in network.named_parameters():
            if recipe.frozen_blocks and name.startswith(resting):
                parameter.requires_grad = False

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The encoder and the rest, each parted into what decays and what does not, if that differs."""
        recipe = self.recipe
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                decays = recipe.decays_all or parameter.ndim > 1
                groups.setdefault((name.startswith("backbone."), decays), []).append(parameter)
        return [
            ParameterGroup(
                name=("encoder" if encoder else "rest") + ("" if decays else "_plain"),
                parameters=members,
                rate=recipe.rate_of(encoder=encoder),
                weight_decay=recipe.weight_decay if decays else 0.0,
            )
            for (encoder, decays), members in groups.items()
        ]

    def batch(self, draw: Draw) -> Batch:
        """Which pictures; see `PictureSource`."""
        return self.source.batch(draw)

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The sum of the losses of the pictures of a batch."""
        with torch.no_grad():
            images, truths = self.source.pictures(batch)
            mean, deviation = (torch.tensor(colour).to(images)[:, None, None] for colour in (self.config.pixel_mean, self.config.pixel_std))
            inputs = ((images - mean) / deviation).contiguous(memory_format=torch.channels_last)
        outputs: RawOutputs = self.model(inputs)
        losses = detection_losses(outputs, truths, self._settings, judge=self._judge)
        figures = {_FIGURES[letter]: loss.detach() for letter, loss in losses.items()}
        total = torch.stack(list(losses.values())).sum()
        return StepLosses(total, figures, sample_pictures(images, truths[0], outputs) if with_pictures else None)
