"""How fusers are trained: FusionNet (MiVOS's sheet, section 4), and `fusion-lite`, which is ours.

FusionNet: optimiser, rate and its fall, batch, steps, size and hard pixels are official. Officially the results of a round are made beforehand and
stored; here the frozen tracker makes them as they are needed, on clips of a few frames: so the frame to be fused always lies between the two given
ones, and errors have less time to grow. One object makes a sample, where officially a second one may join it.
`fusion-lite` learns from errors simulated on static images or, with `tracker`, from those of a tracker on clips made from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rotoscope.datasets.clips import read_clips
from rotoscope.models import registry
from rotoscope.models.checkpoints import load_strictly, read_checkpoint, rename
from rotoscope.models.fusion import OFFICIAL_NAMES, FusionNetwork
from rotoscope.models.fusion_lite import BlendNetwork
from rotoscope.ops.color import imagenet_scaled
from rotoscope.training.augment import CameraSettings, through_camera
from rotoscope.training.clip_source import ClipSource, SyntheticClips
from rotoscope.training.losses import VOID, bootstrapped_cross_entropy, hard_share_between, mean_overlap
from rotoscope.training.object_views import ViewSettings, object_views
from rotoscope.training.recipe import Recipe
from rotoscope.training.rounds_data import FusionSamples, simulated_samples, tracked_samples
from rotoscope.training.schedules import SteppedRate
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses
from rotoscope.training.video_clips import ClipSampling, VideoClips
from rotoscope.types import Tracker

_MILD = CameraSettings(light=0.1, colour=0.03, grey_share=0.0, flicker=0.0, blur_share=0.0, streak_share=0.0, codec_share=0.0, noise_share=0.0)
"""The official jitter (sheet, section 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionRecipe(Recipe):
    """The settings of a training of a fuser.

    Attributes:
        model: "fusion" or "fusion-lite".
        data: static images, or clips with masks.
        tracker: the model whose results are fused, a name of the registry with weights; None to simulate them (static images alone).
        size: side of the frames.
        num_frames: of a clip that a tracker walks.
        rate, falls_at: see `SteppedRate`.
        weight_decay: of all parameters.
        hard_from, hard_until, hard_share: between these shares of the steps the share of pixels that count falls from 1 to the last.
        held_out: share of the images that training never sees.
    """

    model: str = "fusion"
    data: Literal["stills", "clips"] = "clips"
    tracker: str | None = "mivos"
    size: int = 384
    num_frames: int = 5
    rate: float = 1e-4
    falls_at: tuple[int, ...] = (20_000,)
    weight_decay: float = 1e-7
    hard_from: float = 0.2
    hard_until: float = 0.5
    hard_share: float = 0.15
    held_out: float = 0.02


def default_recipe(name: str) -> FusionRecipe:
    """The recipe of "fusion" (BL30K), "fusion:main" (real clips) or "fusion-lite"."""
    if name == "fusion-lite":
        return FusionRecipe(
            model="fusion-lite", steps=6000, batch_size=12, optimiser="adam", data="stills", tracker=None, size=225, rate=2e-3, falls_at=(4000, 5300),
            average_decay=0.999, save_every=500, picture_every=500, clip_norm=5.0,
        )  # fmt: skip
    official = FusionRecipe(steps=30_000, batch_size=12, accumulate=2, optimiser="adam", save_every=5000)  # 12 on each of two GPUs
    return replace(official, steps=10_000, falls_at=(7500,)) if name == "fusion:main" else official


def build_task(recipe: FusionRecipe, data: Path, *, device: str = "cpu", weights: Path | None = None) -> "FusionTask":
    """The training of a recipe on the data of a folder; the same network for the same seed.

    Raises:
        InputError: the folder holds nothing to train on.
        CheckpointError: the tracker has no weights, or the weights to start from are of another model.
    """
    tracker = None if recipe.tracker is None else registry.load(recipe.tracker, device=device)
    network = fresh_network(recipe.model, seed=recipe.seed)
    if weights is not None:
        load_strictly(network, rename(read_checkpoint(weights), OFFICIAL_NAMES if recipe.model == "fusion" else ()))
    return FusionTask(recipe, network.to(device, memory_format=torch.channels_last), _source(recipe, data, device), tracker)  # type: ignore[call-overload] # torch's stubs lack it


def describe(task: "FusionTask") -> list[str]:
    """What was found to train on, and what is trained."""
    results = f"results of {task.recipe.tracker}" if task.recipe.tracker else "simulated results"
    return [str(task.source), f"{task.recipe.model}: {sum(one.numel() for one in task.model.parameters()):,} parameters, on {results}"]


def fresh_network(model: str, *, seed: int) -> nn.Module:
    """A network at its start: as PyTorch's layers are (official); `fusion-lite` as the linear blend."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FusionNetwork() if model == "fusion" else BlendNetwork()


def _source(recipe: FusionRecipe, data: Path, device: str) -> ClipSource:
    if recipe.data == "clips":
        return VideoClips(read_clips(data), ClipSampling(num_frames=recipe.num_frames, size=recipe.size, max_objects=2, merge_share=0.0))
    frames = 1 if recipe.tracker is None else recipe.num_frames
    return SyntheticClips.read(data, SynthesisSettings(num_frames=frames, size=recipe.size), held_out=recipe.held_out, device=device)


class FusionTask:
    """A network, its clips and its losses; see `training.task.Task`."""

    def __init__(self, recipe: FusionRecipe, network: nn.Module, source: ClipSource, tracker: Tracker | None = None) -> None:
        self.model = network
        self.recipe = recipe
        self.source = source
        self.tracker = tracker
        self._camera = _MILD if recipe.model == "fusion" else CameraSettings(flicker=0.0)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters alike."""
        recipe = self.recipe
        return [ParameterGroup("all", list(self.model.parameters()), SteppedRate(recipe.rate, recipe.falls_at), recipe.weight_decay)]

    def batch(self, draw: Draw) -> Batch:
        """Which images, or the frames of clips; see `ClipSource`."""
        return self.source.batch(draw)

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The loss of the fused masks; beside it the overlaps of both results and of their linear blend, which is to be beaten."""
        with torch.no_grad():
            samples = self._samples(batch)
        if samples is None:
            total = sum((0 * parameter.sum() for parameter in self.model.parameters()), torch.zeros(()))
            nothing = torch.zeros(())
            return StepLosses(total, dict.fromkeys(("iou", "blend_iou", "earlier_iou", "newer_iou"), nothing))
        logits = self._logits(samples)
        share = hard_share_between(
            step, int(self.recipe.hard_from * self.recipe.steps), int(self.recipe.hard_until * self.recipe.steps), least=self.recipe.hard_share
        )
        both = torch.cat((-logits, logits), dim=1).float()  # the log-odds of the background and of one object, joined
        total = bootstrapped_cross_entropy(both, samples.truth, share=share).mean()
        earlier, newer = samples.probs.unbind(dim=1)
        blend = torch.lerp(earlier, newer, samples.nearness[:, None, None])
        fused = logits.detach()[:, 0].sigmoid()
        guesses = {"iou": fused, "blend_iou": blend, "earlier_iou": earlier, "newer_iou": newer}
        figures = {name: _mean_iou(guess > 0.5, samples.truth) for name, guess in guesses.items()}
        return StepLosses(total, figures, _pictures(samples, fused) if with_pictures else None)

    def _samples(self, batch: Batch) -> FusionSamples | None:
        clips, generator = self.source.clips(batch)
        clips = replace(clips, images=through_camera(clips.images, self._camera, generator))
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        if self.tracker is not None:
            return tracked_samples(clips, self.tracker, random)
        return simulated_samples(object_views(clips, ViewSettings(size=self.recipe.size), generator), random, generator)

    def _logits(self, samples: FusionSamples) -> Tensor:
        forward: Callable[..., Tensor] = self.model.__call__
        times = samples.nearness if self.recipe.model == "fusion-lite" else torch.stack((samples.nearness, 1 - samples.nearness), dim=1)
        return forward(imagenet_scaled(samples.images), samples.probs, samples.change, times)


def _mean_iou(found: Tensor, truth: Tensor) -> Tensor:
    """The mean overlap over the samples whose object is seen."""
    found, theirs = found & (truth != VOID), truth == 1
    return mean_overlap(found, theirs)


def _pictures(samples: FusionSamples, fused: Tensor) -> SamplePictures:
    pixels = (samples.images[:1] * 255).round().to(torch.uint8)
    return SamplePictures(pixels.cpu(), samples.truth[:1].cpu(), (fused[:1] > 0.5).long().cpu())
