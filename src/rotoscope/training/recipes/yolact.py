"""How YOLACT, YOLACT++ and `yolact-lite` are trained (YOLACT's sheet, section 4).

`yolact-lite` is ours: it learns to find things, and to tell people from others where the source of an image says what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rotoscope.models.checkpoints import load_strictly, read_checkpoint, rename
from rotoscope.models.yolact import OFFICIAL_NAMES, VARIANTS, RawOutputs, YolactConfig, YolactNetwork, fresh_network
from rotoscope.ops.boxes import crop_masks, cross_class_fast_nms, decode
from rotoscope.training.detection.multibox import detection_losses
from rotoscope.training.detection.scenes import SceneSettings
from rotoscope.training.detection.settings import LossSettings
from rotoscope.training.detection.sources import PictureSource, SourceClasses, read_scenes
from rotoscope.training.detection.truth import Truth
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.recipe import Recipe
from rotoscope.training.schedules import PolynomialRate, Rate
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses

_PERSON, _OBJECT = 0, 1
_KNOWN = SourceClasses(
    class_ids=(("Penn-Fudan", _PERSON), ("Human-Segmentation", _PERSON), ("clothing", _PERSON), ("horses", _OBJECT), ("cat-segmentation", _OBJECT)),
    parts=("clothing",),
)
"""What sources of images without classes show: people, parts of one person, or animals."""
_LOSSES = LossSettings(class_prior=(0.3, 0.7), lone_negatives=16)
_LETTERS = {"B": "boxes", "C": "classes", "M": "masks", "S": "semantic", "I": "mask_iou"}


@dataclass(frozen=True, slots=True, kw_only=True)
class YolactRecipe(Recipe):
    """The settings of a training of a detector.

    Attributes:
        model: its name in the registry.
        sizes: sides of the pictures; each batch has one of them.
        rate, least_rate: see `PolynomialRate`.
        warm_up: share of the steps in which the rate rises.
        encoder_factor: the rate of the encoder over that of the rest.
        weight_decay: of weights; norms and biases do not decay.
        encoder: a file with ImageNet weights of the encoder; none takes those that ship.
        frozen_blocks: how many of the first blocks of EfficientNet-Lite0 stay as they are, the stem with them.
        layers: objects of other images that may be laid into a picture.
        telling_share: of the pictures that are made from images with several objects or a known class.
        held_out: share of the images that training never sees.
    """

    model: str = "yolact-lite"
    sizes: tuple[int, ...] = (224, 256, 288, 320)
    rate: float = 1e-3
    least_rate: float = 1e-5
    warm_up: float = 0.03
    encoder_factor: float = 0.3
    weight_decay: float = 0.02
    encoder: str | None = None
    frozen_blocks: int = 3
    layers: int = 2
    telling_share: float = 0.4
    held_out: float = 0.02


def default_recipe(name: str) -> YolactRecipe:
    """The recipe of a name."""
    return YolactRecipe(model=name, steps=20_000, batch_size=8, clip_norm=20.0, average_decay=0.998, save_every=200, picture_every=200)


def build_task(recipe: YolactRecipe, data: Path, *, device: str, weights: Path | None = None) -> "YolactTask":
    """The training of a network on the images of a folder, from weights or from the start.

    Raises:
        InputError: there is nothing to train on.
        CheckpointError: the weights are of another model.
    """
    config = VARIANTS[recipe.model]
    source = read_scenes(
        data, _KNOWN, SceneSettings(layers=recipe.layers), sizes=recipe.sizes, telling_share=recipe.telling_share, held_out=recipe.held_out,
        device=device,
    )  # fmt: skip
    encoder = lite_encoder_weights() if recipe.encoder is None else read_checkpoint(Path(recipe.encoder))
    network = fresh_network(config, recipe.seed, backbone=encoder)
    if weights is not None:
        load_strictly(network, rename(read_checkpoint(weights), OFFICIAL_NAMES))
    return YolactTask(recipe, config, network.to(device, memory_format=torch.channels_last), source)  # type: ignore[call-overload] # torch's stubs


def describe(task: "YolactTask") -> list[str]:
    """What was found to train on, and what is trained."""
    learning = sum(parameter.numel() for group in task.parameter_groups() for parameter in group.parameters)
    return [str(task.source), f"{task.recipe.model}: {learning / 1e6:.2f} M parameters to train"]


class YolactTask:
    """A network, its pictures and its losses; see `training.task.Task`."""

    def __init__(self, recipe: YolactRecipe, config: YolactConfig, network: YolactNetwork, source: PictureSource) -> None:
        self.model: nn.Module = network
        self.recipe = recipe
        self.source = source
        self._config = config
        resting = ("backbone.layers.stem.", *(f"backbone.layers.blocks.{index}." for index in range(recipe.frozen_blocks)))
        for name, parameter in network.named_parameters():
            if recipe.frozen_blocks and name.startswith(resting):
                parameter.requires_grad_(requires_grad=False)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The encoder and the rest; norms and biases do not decay."""
        recipe = self.recipe
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                part = "encoder" if name.startswith("backbone.") else "rest"
                groups.setdefault(part + ("_plain" if parameter.ndim < 2 else ""), []).append(parameter)
        return [
            ParameterGroup(name, members, self._rate(name), 0.0 if name.endswith("_plain") else recipe.weight_decay)
            for name, members in groups.items()
        ]

    def _rate(self, group: str) -> Rate:
        recipe = self.recipe
        factor = recipe.encoder_factor if group.startswith("encoder") else 1.0
        return PolynomialRate(factor * recipe.rate, factor * recipe.least_rate, recipe.steps, warm_up=recipe.warm_up)

    def batch(self, draw: Draw) -> Batch:
        """Which images; see `PictureSource`."""
        return self.source.batch(draw)

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:  # noqa: ARG002 - the protocol's
        """The sum of the losses of the pictures of a batch."""
        with torch.no_grad():
            images, truths = self.source.pictures(batch)
            mean, deviation = (torch.tensor(colour).to(images)[:, None, None] for colour in (self._config.pixel_mean, self._config.pixel_std))
            inputs = ((images - mean) / deviation).contiguous(memory_format=torch.channels_last)
        outputs: RawOutputs = self.model(inputs)
        losses = detection_losses(outputs, truths, _LOSSES)
        figures = {_LETTERS[letter]: loss.detach() for letter, loss in losses.items()}
        total = torch.stack(list(losses.values())).sum()
        return StepLosses(total, figures, _pictures(images, truths[0], outputs) if with_pictures else None)


@torch.no_grad()
def _pictures(images: Float[Tensor, "n 3 y x"], truth: Truth, outputs: RawOutputs) -> SamplePictures:
    """The first picture, its objects, and the five best that were found."""
    boxes = decode(outputs.offsets[0].float(), outputs.priors.float())
    scores = outputs.class_logits[0].float().softmax(dim=1)[:, 1:].T
    kept = cross_class_fast_nms(boxes, scores, most=5)
    logits = torch.einsum("mk,kyx->myx", outputs.coefficients[0, kept.indices].float(), outputs.prototypes[0].float())
    found = crop_masks(logits.sigmoid(), boxes[kept.indices])
    hw = images.shape[2:]
    found = nn.functional.interpolate(found[None], hw, mode="bilinear", align_corners=False)[0]
    true = _label_map(truth.masks) if len(truth) else torch.zeros(hw, dtype=torch.int64)
    return SamplePictures(images[:1].round().clamp(0, 255).to(torch.uint8).cpu(), true[None], _label_map(found)[None])


def _label_map(masks: Float[Tensor, "m y x"]) -> Int64[Tensor, "y x"]:
    """Masks over one another, the first on top."""
    labels = torch.zeros(masks.shape[1:], dtype=torch.int64)
    for number in range(len(masks), 0, -1):
        labels[masks[number - 1].cpu() > 0.5] = number
    return labels
