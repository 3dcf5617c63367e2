"""How the features of `mast-lite` learn from clips without masks: MAST's pairs and loss (Lai, Lu and Xie, CVPR 2020), from ImageNet weights.

The read, its radius and its temperature are the tracker's own. Batch, rate and length are ours, for a short training on a CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.datasets.clips import read_footage
from rotoscope.errors import InputError
from rotoscope.models.checkpoints import read_checkpoint
from rotoscope.models.mast.objective import draw_channel, reconstruction_loss
from rotoscope.models.mast_lite import VARIANTS, load_encoder
from rotoscope.models.mast_lite.features import unit_maps
from rotoscope.models.mast_lite.objective import COLOUR_RANGE, anchor_distance, coarse, lab_of, reconstruct
from rotoscope.nn.efficientnet_lite import EfficientNetLite
from rotoscope.training.footage import FootageFrames, PairSource, repainted
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.recipe import Recipe
from rotoscope.training.schedules import PolynomialRate
from rotoscope.training.task import Batch, Draw, ParameterGroup, StepLosses

_GRID = 16
"""Sides of frames are multiples of this where the tracker works on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MastLiteRecipe(Recipe):
    """The settings of a training of the features of `mast-lite`.

    Attributes:
        size: side of the frames, a multiple of 16; their aspect is not kept. The tracker works at a shorter side of 480.
        intervals, interval_odds: how many frames apart pairs are (`PairSource`).
        rate: the highest; it rises over the first steps and falls from there.
        least_rate: where it starts and ends.
        anchor_weight: how much it costs that features move away from those of the ImageNet weights (`anchor_distance`); 0 lets them go.
    """

    size: int = 256
    intervals: tuple[int, ...] = (2, 5, 8)
    interval_odds: tuple[float, ...] = (0.4, 0.4, 0.2)
    rate: float = 1e-4
    least_rate: float = 1e-6
    anchor_weight: float = 1.0


def default_recipe(name: str) -> MastLiteRecipe:
    """The recipe of "mast-lite"."""
    return MastLiteRecipe(steps=1500, batch_size=4, optimiser="adam", average_decay=0.99, save_every=250, picture_every=250)


def build_task(recipe: MastLiteRecipe, data: Path, *, device: str = "cpu", weights: Path | None = None) -> "MastLiteTask":
    """The training of a recipe on the clips of a folder.

    Args:
        recipe: see there.
        data: folders of frames, or videos; no masks are needed.
        device: where the network lies.
        weights: to go on from, in place of the ImageNet weights in the package; the features are held near the latter all the same.

    Raises:
        InputError: the folder holds no clips that are long enough, the size is no multiple of 16, or the weight of the anchor is below 0.
        CheckpointError: the weights are of another model.
    """
    if recipe.size < 2 * _GRID or recipe.size % _GRID:
        message = f"frames of {recipe.size} pixels do not fit the grid of cells; give a multiple of {_GRID}, {2 * _GRID} or more"
        raise InputError(message)
    if not recipe.anchor_weight >= 0:
        message = f"anchor_weight={recipe.anchor_weight} would drive the features away from their start; give 0 or more"
        raise InputError(message)
    frames = FootageFrames(read_footage(data), size=recipe.size)
    source = PairSource(frames, intervals=recipe.intervals, odds=recipe.interval_odds)
    start = load_encoder(lite_encoder_weights())
    encoder = load_encoder(read_checkpoint(weights) if weights is not None else lite_encoder_weights())
    encoder, start = (one.to(device, memory_format=torch.channels_last) for one in (encoder, start))  # type: ignore[call-overload] # torch's stubs lack it
    return MastLiteTask(recipe, encoder, start, source)


class MastLiteTask:
    """The encoder, its frames and its losses; see `training.task.Task`.

    Args:
        recipe: see there.
        encoder: what is trained.
        start: an encoder near whose features those of the first are held; it is frozen.
        source: of the frames.
    """

    def __init__(self, recipe: MastLiteRecipe, encoder: EfficientNetLite, start: EfficientNetLite, source: PairSource) -> None:
        self.model: nn.Module = encoder
        self.recipe = recipe
        self.source = source
        self._encoder = encoder
        self._start = start.eval().requires_grad_(requires_grad=False)
        self._read = VARIANTS["mast-lite"].read

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All of the encoder, at one rate and without decay: the anchor is what holds the weights."""
        recipe = self.recipe
        return [ParameterGroup("encoder", list(self._encoder.parameters()), PolynomialRate(recipe.rate, recipe.least_rate, recipe.steps))]

    def batch(self, draw: Draw) -> Batch:
        """The frames of a draw (`PairSource`), and the `channel` to hide: one for all parts of a step."""
        channel = draw_channel(draw._replace(part=0).generator())
        return {**self.source.batch(draw), "channel": torch.tensor([channel])}

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The loss of the rebuilt colours, and how far the features of whole pictures have moved.

        The figures are both by themselves, and the loss of copying the colours in place, which the rebuilt ones must get below.
        """
        channel, images = int(batch["channel"]), batch["images"]
        reference, target = (lab_of(frames) for frames in images)
        rebuilt = reconstruct(self._encoder, reference, target, channel=channel, read=self._read)
        loss = reconstruction_loss(rebuilt / COLOUR_RANGE, target / COLOUR_RANGE, channel=channel)
        moved = self._moved(images[-1].float())
        with torch.no_grad():
            in_place = coarse(reference[:, channel : channel + 1])
            copied = reconstruction_loss(in_place / COLOUR_RANGE, target / COLOUR_RANGE, channel=channel)
            pictures = repainted(images, target, rebuilt, channel) if with_pictures else None
        figures = {"rebuilt_loss": loss.detach(), "copied_loss": copied, "anchor_distance": moved.detach()}
        return StepLosses(loss + self.recipe.anchor_weight * moved, figures, pictures)

    def _moved(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """The distance of the features of pictures from those of the start; without a gradient, and its work, where it counts nothing."""
        with torch.no_grad():
            start = unit_maps(self._start, images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.recipe.anchor_weight > 0):
            return anchor_distance(unit_maps(self._encoder, images), start)


def describe(task: MastLiteTask) -> list[str]:
    """What was found to train on, and what is trained."""
    recipe, lengths = task.recipe, task.source.frames.lengths
    learning = sum(parameter.numel() for parameter in task.model.parameters())
    gaps = ", ".join(map(str, recipe.intervals))
    return [
        f"{len(lengths)} clips with {lengths.sum()} frames, resized to {recipe.size}x{recipe.size}: pairs {gaps} frames apart",
        f"mast-lite: {learning / 1e6:.1f} M parameters to train",
    ]
