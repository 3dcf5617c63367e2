"""How makers of masks are trained, from static images and simulated interactions: S2M (MiVOS's sheet, section 4), and `s2m-lite`, which is ours.

S2M: optimiser, rate, batch, steps, size, hard pixels, shares of empty and spoiled masks, and kinds of lines are official. Views come from
`synthesis` (whole images under a smooth warp, no other image's objects) in place of the official affine maps; large-vocabulary instances (LVIS)
are used like any other images; the official start, a network trained on VOC, is not to be had: give weights, or train longer.
`s2m-lite` also learns from clicks on its own errors, as Sofiiuk et al. (ICIP 2022) do, and from boxes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rotoscope.models.checkpoints import load_strictly, read_checkpoint, rename
from rotoscope.models.s2m import OFFICIAL_NAMES, S2mNetwork
from rotoscope.models.s2m_lite import S2mLiteNetwork
from rotoscope.ops.color import imagenet_scaled
from rotoscope.training.augment import CameraSettings, through_camera
from rotoscope.training.clip_source import ClipSource, SyntheticClips
from rotoscope.training.interactions import (
    LINE_PIXELS,
    Click,
    Hints,
    box_around,
    errors_of,
    inner_click,
    random_click,
    scribbles,
    spoiled_masks,
    standard_click,
)
from rotoscope.training.losses import VOID, bootstrapped_cross_entropy, hard_share_between, mean_overlap, soft_jaccard_loss
from rotoscope.training.object_views import ObjectViews, ViewSettings, object_views
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.recipe import Recipe
from rotoscope.training.schedules import PolynomialRate, Rate
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses

_MILD = CameraSettings(light=0.1, colour=0.03, grey_share=0.05, flicker=0.0, blur_share=0.0, streak_share=0.0, codec_share=0.0, noise_share=0.0)
"""S2M's jitter of brightness and contrast, 0.1, and of saturation, 0.03 (sheet, section 4)."""

_OFFICIAL_PEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class S2mRecipe(Recipe):
    """The settings of a training of a maker of masks.

    Attributes:
        model: "s2m" or "s2m-lite".
        size: side of the views; any for S2M, 16n + 1 for `s2m-lite`.
        frame_size: side of the synthetic frames from which views are cut.
        num_layers: objects of other images that may be laid into a frame.
        closer_share: of the views that are cut out around the object.
        rate, least_rate: see `PolynomialRate`; with equal numbers the rate is constant.
        encoder_factor: the rate of the encoder's own weights over that of the rest.
        weight_decay: of all parameters.
        hard_from, hard_until, hard_share: between these steps the share of pixels that count falls from 1 to the last.
        overlap_weight: of the soft Jaccard loss beside the cross-entropy.
        empty_share: of the samples without a previous mask.
        overlaps: of previous masks with the truth: the bound below which they are spoiled is drawn between these.
        click_share, box_share: of the samples whose first interaction is a click, or a box; the others get lines.
        rounds: further clicks on the network's own errors, at most; how many is drawn.
        jitter: of boxes.
        held_out: share of the images that training never sees.
    """

    model: str = "s2m"
    size: int = 480
    frame_size: int = 480
    num_layers: int = 0
    closer_share: float = 0.0
    rate: float = 1e-4
    least_rate: float = 1e-4
    encoder_factor: float = 1.0
    weight_decay: float = 1e-7
    hard_from: int = 10_000
    hard_until: int = 30_000
    hard_share: float = 0.15
    overlap_weight: float = 0.0
    empty_share: float = 0.33
    overlaps: tuple[float, float] = (0.4, 0.95)
    click_share: float = 0.0
    box_share: float = 0.0
    rounds: int = 0
    jitter: float = 0.1
    held_out: float = 0.02


_LITE = S2mRecipe(
    model="s2m-lite", steps=20_000, batch_size=8, optimiser="adamw", clip_norm=5.0, average_decay=0.999, size=225, frame_size=289, num_layers=2,
    closer_share=0.65, rate=1e-3, least_rate=1e-5, encoder_factor=0.2, weight_decay=0.01, hard_from=0, hard_until=20_000, hard_share=0.5,
    overlap_weight=1.0, empty_share=0.6, click_share=0.5, box_share=0.3, rounds=3, save_every=500, picture_every=500,
)  # fmt: skip
"""A short schedule on small views, which a laptop's processor can follow."""


def default_recipe(name: str) -> S2mRecipe:
    """The recipe of "s2m" or of "s2m-lite"."""
    if name == "s2m-lite":
        return _LITE
    return S2mRecipe(steps=80_000, batch_size=16, accumulate=2, optimiser="adam", save_every=5000)  # 16 on each of two GPUs


def build_task(recipe: S2mRecipe, data: Path, *, device: str = "cpu", weights: Path | None = None) -> "S2mTask":
    """The training of a recipe on the images of a folder; the same network for the same seed.

    Args:
        recipe: see there.
        data: static images with masks.
        device: where the network and all images lie.
        weights: start from a checkpoint of the same model instead of random layers (`s2m-lite`: instead of ImageNet's encoder).

    Raises:
        InputError: the folder holds nothing to train on.
        CheckpointError: the weights are of another model.
    """
    settings = SynthesisSettings(
        num_frames=1, size=recipe.frame_size, num_layers=recipe.num_layers, whole_share=0.4 if recipe.num_layers else 1.0, unlabelled_share=0.0,
        bare_share=0.0,
    )  # fmt: skip
    source = SyntheticClips.read(data, settings, held_out=recipe.held_out, device=device)
    network = fresh_network(recipe.model, seed=recipe.seed)
    if weights is not None:
        load_strictly(network, rename(read_checkpoint(weights), OFFICIAL_NAMES if recipe.model == "s2m" else ()))
    return S2mTask(recipe, network.to(device, memory_format=torch.channels_last), source)  # type: ignore[call-overload] # torch's stubs lack it


def describe(task: "S2mTask") -> list[str]:
    """What was found to train on, and what is trained."""
    learning = sum(parameter.numel() for parameter in task.model.parameters() if parameter.requires_grad)
    return [str(task.source), f"{task.recipe.model}: {learning / 1e6:.2f} M parameters to train"]


def fresh_network(model: str, *, seed: int) -> nn.Module:
    """A network at its start: Kaiming's normal numbers for S2M (official); ImageNet's encoder for `s2m-lite`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = S2mNetwork() if model == "s2m" else S2mLiteNetwork()
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d) and name != "enter":  # whose weights are zero
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    if isinstance(network, S2mLiteNetwork):
        load_strictly(network.encoder, lite_encoder_weights())
    return network


class S2mTask:
    """A network, its images and its losses; see `training.task.Task`."""

    def __init__(self, recipe: S2mRecipe, network: nn.Module, source: ClipSource) -> None:
        self.model = network
        self.recipe = recipe
        self.source = source
        self._camera = _MILD if recipe.model == "s2m" else CameraSettings(flicker=0.0)
        self._views = ViewSettings(size=recipe.size, whole_share=1 - recipe.closer_share)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The encoder and the rest; of `s2m-lite` norms and biases do not decay."""
        recipe = self.recipe
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            part = "encoder" if name.startswith("encoder.") else "rest"
            plain = "_plain" if recipe.model != "s2m" and parameter.ndim < 2 else ""
            groups.setdefault(part + plain, []).append(parameter)
        return [
            ParameterGroup(name, members, self._rate(name), 0.0 if name.endswith("_plain") else recipe.weight_decay)
            for name, members in groups.items()
        ]

    def _rate(self, group: str) -> Rate:
        recipe = self.recipe
        factor = recipe.encoder_factor if group.startswith("encoder") else 1.0
        warm_up = 0.0 if recipe.rate == recipe.least_rate else 0.02
        return PolynomialRate(factor * recipe.rate, factor * recipe.least_rate, recipe.steps, warm_up=warm_up)

    def batch(self, draw: Draw) -> Batch:
        """Which images; see `ClipSource`."""
        return self.source.batch(draw)

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The loss of the masks after the last of some interactions; those before are made without gradients."""
        with torch.no_grad():
            clips, generator = self.source.clips(batch)
            views = object_views(clips, self._views, generator)
            images = through_camera(views.images[None], self._camera, generator)[0]
            random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
            previous = self._previous(views, random)
            hints = self._first_hints(views, previous, random)
            for index in range(int(random.integers(self.recipe.rounds + 1))):
                previous = self._logits(images, previous, hints, is_training=False)[:, 0] > 0
                hints = hints.with_clicks(_clicks_on(views, previous, random, standard=index % 2 == 0))
        logits = self._logits(images, previous, hints, is_training=True)
        total = self._loss(logits, views, step)
        found = (logits[:, 0] > 0).detach()
        figures = {"iou": _mean_iou(found, views), "iou_before": _mean_iou(previous, views)}
        return StepLosses(total, figures, _pictures(images, views, found) if with_pictures else None)

    def _previous(self, views: ObjectViews, random: np.random.Generator) -> Bool[Tensor, "n y x"]:
        """Masks from which the interactions start: none, or the truth, spoiled."""
        recipe, count = self.recipe, len(views.truth)
        bounds, is_kept = random.uniform(*recipe.overlaps, count), torch.from_numpy(random.random(count) >= recipe.empty_share)
        previous = views.truth & is_kept.to(views.truth.device)[:, None, None]  # what is empty costs nothing to spoil
        return spoiled_masks(previous, bounds.tolist(), random)

    def _first_hints(self, views: ObjectViews, previous: Bool[Tensor, "n y x"], random: np.random.Generator) -> Hints:
        """What is done first: a click, a box or lines for each sample."""
        recipe, count = self.recipe, len(previous)
        hw = (previous.shape[1], previous.shape[2])
        clicks: list[Click | None] = [None] * count
        boxes: list[tuple[int, int, int, int] | None] = [None] * count
        lines = torch.zeros(2, count, *hw)
        for i, kind in enumerate(random.random(count)):
            truth = views.truth[i]
            errors = errors_of(truth, previous[i], counts=views.counts[i])
            if kind < recipe.click_share:
                clicks[i] = random_click(errors, random) if bool(previous[i].any()) else inner_click(truth, random, positive=True)
            elif kind < recipe.click_share + recipe.box_share:
                boxes[i] = box_around(truth, random, jitter=recipe.jitter)
            else:
                lines[0, i], lines[1, i] = scribbles(errors, random)
        pen = _OFFICIAL_PEN if recipe.model == "s2m" else LINE_PIXELS
        return Hints.none(count, hw).with_lines(lines[0], lines[1], pen=pen).with_clicks(clicks).with_boxes(boxes)

    def _logits(
        self, images: Float[Tensor, "n 3 y x"], previous: Bool[Tensor, "n y x"], hints: Hints, *, is_training: bool
    ) -> Float[Tensor, "n 1 y x"]:
        self.model.train(is_training)
        forward: Callable[..., Tensor] = self.model.__call__
        said = [previous.float(), *(maps.to(images) for maps in hints)]
        if self.recipe.model == "s2m":
            return forward(torch.cat((imagenet_scaled(images), torch.stack(said[:3], dim=1)), dim=1))
        return forward(255 * images, torch.stack(said, dim=1))

    def _loss(self, logits: Float[Tensor, "n 1 y x"], views: ObjectViews, step: int) -> Float[Tensor, ""]:
        recipe = self.recipe
        labels = torch.where(views.counts, views.truth.long(), VOID)
        both = F.pad(logits.float(), (0, 0, 0, 0, 1, 0))  # the background's logit is 0
        share = hard_share_between(step, recipe.hard_from, recipe.hard_until, least=recipe.hard_share)
        loss = bootstrapped_cross_entropy(both, labels, share=share)
        if recipe.overlap_weight:
            counts = views.counts.flatten(1).any(dim=1)
            overlap = soft_jaccard_loss(both, torch.where(counts[:, None, None], labels, 0))
            loss = loss + recipe.overlap_weight * overlap * counts
        return loss.mean()


def _clicks_on(views: ObjectViews, current: Bool[Tensor, "n y x"], random: np.random.Generator, *, standard: bool) -> list[Click | None]:
    """A click for each sample on what is wrong with its mask, by the standard rule or anywhere."""
    wrong = [errors_of(truth, mask, counts=counts) for truth, mask, counts in zip(views.truth, current, views.counts, strict=True)]
    return [standard_click(errors) if standard else random_click(errors, random) for errors in wrong]


def _mean_iou(found: Bool[Tensor, "n y x"], views: ObjectViews) -> Float[Tensor, ""]:
    """The mean overlap with the truth, over the samples that show an object."""
    ours, theirs = found & views.counts, views.truth & views.counts
    return mean_overlap(ours, theirs)


def _pictures(images: Float[Tensor, "n 3 y x"], views: ObjectViews, found: Bool[Tensor, "n y x"]) -> SamplePictures:
    pixels = (images[:1] * 255).round().to(torch.uint8)
    return SamplePictures(pixels.cpu(), views.truth[:1].long().cpu(), found[:1].long().cpu())
