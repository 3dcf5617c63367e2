"""How RGMP is trained (paper, section 3.2; the official training was never released, and what is not published is marked as ours).

Stage 1, "rgmp": pairs made from static images, the mask of the frame before a disturbed true one. Stage 2, "rgmp:main": real clips, through which the
soft prediction is carried with its gradient; the clips grow longer and their steps wider. `rgmp-lite` is ours: both stages on clips made from images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rotoscope.datasets.clips import read_clips
from rotoscope.errors import InputError
from rotoscope.models.checkpoints import load_strictly, read_checkpoint, rename
from rotoscope.models.rgmp import OFFICIAL_NAMES, VARIANTS, RgmpNetwork, network_of
from rotoscope.models.rgmp.encoder import LiteMaskEncoder
from rotoscope.models.rgmp.network import STRIDE, object_probability
from rotoscope.training.augment import CameraSettings, MaskErrors, perturbed_masks, through_camera
from rotoscope.training.clip_source import ClipSource, SyntheticClips
from rotoscope.training.losses import VOID, mean_overlap
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.recipe import Recipe
from rotoscope.training.rgmp_chain import ChainSettings, chain_losses
from rotoscope.training.schedules import PolynomialRate
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses
from rotoscope.training.video_clips import ClipSampling, VideoClips

Stage = Literal["pairs", "made", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RgmpRecipe(Recipe):
    """The settings of a training of RGMP.

    Attributes:
        model: the variant.
        stage: pairs made from images; chains over clips made from images (ours); chains over real clips.
        size: side of the frames, a multiple of 32. The paper's are 256 x 256, and 256 x 512 in stage 2, for which 352 x 352 has as many pixels.
        rate: fixed at 1e-5 in the paper; with a `least_rate` below it falls to that.
        least_rate: where the rate ends.
        weight_decay: of everything but biases.
        first_frames, most_frames: frames predicted in a chain, at the start and at the end; one more at a time, evenly over the steps (ours).
        largest_gap: frames between two of a real clip at the end; it grows from 1 (ours).
        bptt_step: frames after which the gradient through the mask is cut; None for never.
        checkpointing: keep only the masks between the frames of a chain, and compute the rest twice.
        held_out: share of the images that training never sees.
    """

    model: str
    stage: Stage = "pairs"
    size: int = 256
    rate: float = 1e-5
    least_rate: float = 1e-5
    weight_decay: float = 0.0
    first_frames: int = 1
    most_frames: int = 1
    largest_gap: int = 5
    bptt_step: int | None = None
    checkpointing: bool = False
    held_out: float = 0.02

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        if self.size < STRIDE or self.size % STRIDE:
            message = f"frames of {self.size} pixels do not fit the network; give a multiple of {STRIDE}"
            raise InputError(message)
        if not 1 <= self.first_frames <= self.most_frames:
            message = f"chains cannot grow from {self.first_frames} to {self.most_frames} frames; give 1 or more, the second not below the first"
            raise InputError(message)

    def frames_at(self, step: int) -> int:
        """How many frames are predicted in a chain of a step."""
        stages = self.most_frames - self.first_frames + 1
        return self.first_frames + min(step * stages // self.steps, stages - 1)


def default_recipe(name: str) -> RgmpRecipe:
    """The recipe of "rgmp" and "rgmp:main", the paper's two stages, or of "rgmp-lite" and "rgmp-lite:main"."""
    model, _, stage = name.partition(":")
    if model == "rgmp":
        pairs = RgmpRecipe(model=model, steps=200_000, batch_size=4, optimiser="adam", save_every=5000)  # length and batch are ours
        main = replace(pairs, stage="main", steps=60_000, batch_size=1, size=352, most_frames=5)
    else:
        pairs = RgmpRecipe(
            model=model, stage="made", steps=20_000, batch_size=4, size=192, rate=4e-4, least_rate=1e-5, weight_decay=0.01, clip_norm=5.0,
            average_decay=0.999, most_frames=3, precision="bfloat16", save_every=500,
        )  # fmt: skip
        main = replace(pairs, stage="main", rate=1e-4, most_frames=5)
    return main if stage == "main" else pairs


def build_task(recipe: RgmpRecipe, data: Path, *, device: str = "cpu", weights: Path | None = None) -> "RgmpTask":
    """The training of a recipe on the data of a folder.

    Raises:
        InputError: the folder holds nothing to train on.
        CheckpointError: the weights are of another model.
    """
    source = _source(recipe, data, device)
    network = fresh_network(recipe.model, seed=recipe.seed)
    if weights is not None:
        load_strictly(network, rename(read_checkpoint(weights), OFFICIAL_NAMES))
    return RgmpTask(recipe, network.to(device, memory_format=torch.channels_last), source)  # type: ignore[call-overload] # torch's stubs lack it


def describe(task: "RgmpTask") -> list[str]:
    """What was found to train on, and what is trained."""
    learning = sum(parameter.numel() for parameter in task.model.parameters() if parameter.requires_grad)
    return [str(task.source), f"{task.recipe.model}: {learning / 1e6:.1f} M parameters to train"]


def fresh_network(model: str, *, seed: int) -> RgmpNetwork:
    """A network with PyTorch's random start, but for the encoder of `rgmp-lite`, which has the ImageNet weights that ship."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = network_of(VARIANTS[model])
    if isinstance(network.encoder, LiteMaskEncoder):
        network.encoder.load_pictures(lite_encoder_weights())
    return network


def _source(recipe: RgmpRecipe, data: Path, device: str) -> ClipSource:
    num_frames = 1 + recipe.most_frames
    if recipe.stage != "main":
        return SyntheticClips.read(data, SynthesisSettings(num_frames=num_frames, size=recipe.size), held_out=recipe.held_out, device=device)
    sets = read_clips(data)
    widest = max(one.max_gap for one in sets)
    growth = tuple((recipe.steps * part // recipe.largest_gap, (part + 1) / widest) for part in range(min(recipe.largest_gap, widest)))
    return VideoClips(sets, ClipSampling(num_frames=num_frames, size=recipe.size, gap_stages=growth, merge_share=0.0))


class RgmpTask:
    """A network, its clips and its losses; see `training.task.Task`."""

    def __init__(self, recipe: RgmpRecipe, network: RgmpNetwork, source: ClipSource) -> None:
        self.model: nn.Module = network
        self.recipe = recipe
        self.source = source
        self._network = network
        self._chain = ChainSettings(bptt_step=recipe.bptt_step, checkpointing=recipe.checkpointing)

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """What decays, and what does not."""
        rate = PolynomialRate(self.recipe.rate, self.recipe.least_rate, self.recipe.steps, warm_up=0.05, power=1.0)
        learning = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
        return [
            ParameterGroup("weights", [one for one in learning if one.ndim > 1], rate, self.recipe.weight_decay),
            ParameterGroup("biases", [one for one in learning if one.ndim <= 1], rate),
        ]

    def batch(self, draw: Draw) -> Batch:
        """What the source needs to make the clips of a draw."""
        return self.source.batch(draw)

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The mean cross-entropy of the predicted frames; each clip follows one of its objects."""
        self._network.train()
        clips, generator = self.source.clips(batch)
        images = through_camera(clips.images, CameraSettings(), generator)
        labels = one_object(clips.labels, clips.num_objects, generator)
        length = 1 + self.recipe.frames_at(step)
        if self.recipe.stage == "pairs":
            total, probs = _pair_losses(self._network, images[:2], labels[:2], generator)
        else:
            losses = chain_losses(self._network, images[:length], labels[:length], self._chain)
            total, probs = losses.total, losses.probs
        shown = labels[1 : 1 + len(probs)]
        figures = {"last_iou": mean_overlap(probs[-1] > 0.5, shown[-1] == 1)}
        return StepLosses(total, figures, _pictures(images, labels, probs) if with_pictures else None)


def one_object(labels: Int64[Tensor, "t n h w"], num_objects: Int64[Tensor, "n"], generator: torch.Generator) -> Int64[Tensor, "t n h w"]:
    """The labels of one object of each clip, drawn at random, as 1; the others are background. Void stays void."""
    drawn = torch.rand(labels.shape[1], generator=generator).to(labels.device) * num_objects
    chosen = 1 + drawn.floor().long()
    return torch.where(labels == VOID, VOID, (labels == chosen[:, None, None]).long())


def _pair_losses(
    network: RgmpNetwork, images: Float[Tensor, "t n 3 h w"], labels: Int64[Tensor, "t n h w"], generator: torch.Generator
) -> tuple[Float[Tensor, ""], Float[Tensor, "f n h w"]]:
    """The loss of the second frame, whose mask of the frame before is its own, disturbed (ours; the paper does not say)."""
    related = network.relate(images[0], (labels[0] == 1).to(images))
    previous = perturbed_masks((labels[1] == 1).to(images)[:, None], MaskErrors(), generator)[:, 0]
    logits = network(images[1], previous, related)
    loss = F.cross_entropy(logits.float(), labels[1], ignore_index=VOID, reduction="none").mean()
    return loss, object_probability(logits.detach())[None]


def _pictures(images: Tensor, labels: Tensor, probs: Tensor) -> SamplePictures:
    length = 1 + len(probs)
    predicted = torch.cat((labels[:1, 0], (probs[:, 0] > 0.5).long()))
    return SamplePictures((images[:length, 0] * 255).round().to(torch.uint8).cpu(), labels[:length, 0].cpu(), predicted.cpu())
