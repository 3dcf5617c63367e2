"""How MAST learns without masks: from pairs of frames first, then from a frame and the memory of its past (paper, section 4; sheet, section 4).

The pair stage is the official code's: batch, intervals, colour channel, loss, optimiser and the halving of its rate. The paper trains it with batches
of 24 for a million steps. The memory stage is in the paper alone, which gives its rate and its length; how its frames are drawn is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rotoscope.datasets.clips import read_footage
from rotoscope.errors import InputError
from rotoscope.models.checkpoints import load_strictly, read_checkpoint, rename
from rotoscope.models.mast import OFFICIAL_NAMES
from rotoscope.models.mast.network import MastEncoder, normalised_lab
from rotoscope.models.mast.objective import draw_channel, reconstruct_from_memory, reconstruction_loss
from rotoscope.models.mast.propagator import FULL_MEMORY
from rotoscope.models.mast.read import to_coarse
from rotoscope.training.footage import FootageFrames, FrameSource, MemorySource, PairSource, repainted
from rotoscope.training.recipe import Recipe
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses

Stage = Literal["pairs", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MastRecipe(Recipe):
    """The settings of a training of MAST.

    Attributes:
        stage: on what: pairs of frames, or a frame and its memory.
        size: side of the frames, a multiple of 4; their aspect is not kept.
        intervals, interval_odds: how many frames apart pairs are (`PairSource`).
        longest: frames from the first to the target, at most (`MemorySource`).
        rate: of Adam.
        halve_at: samples after which the rate is halved.
        logit_scale: factor on the dot products of features at the start of a training, and on how fast they change. 1 is the official value, with
            which nobody could repeat the training in PyTorch 1.4 and later; 1/8, one over the root of 64 features, converges. The last layer carries
            it (see `MastTask`), so that the weights are read with a factor of 1 like the released ones.
    """

    stage: Stage = "pairs"
    size: int = 256
    intervals: tuple[int, ...] = (2, 5, 8)
    interval_odds: tuple[float, ...] = (0.4, 0.4, 0.2)
    longest: int = 40
    rate: float = 1e-3
    halve_at: tuple[int, ...] = (400_000, 600_000, 800_000, 1_000_000)
    logit_scale: float = 0.125


@dataclass(frozen=True, slots=True)
class HalvingRate:
    """A rate that is halved whenever a number of samples has been seen.

    Attributes:
        base: at the start.
        halve_at: the numbers of samples.
        samples_per_step: of all processes together.
    """

    base: float
    halve_at: tuple[int, ...]
    samples_per_step: int

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return self.base * 0.5 ** sum(step * self.samples_per_step >= samples for samples in self.halve_at)


def default_recipe(name: str) -> MastRecipe:
    """The recipe of "mast", its pair stage, or of "mast:memory"."""
    general = MastRecipe(steps=20 * 5965, batch_size=12, optimiser="adam", save_every=5000)  # 20 epochs of about 71,600 pairs (official code)
    if name.partition(":")[2] != "memory":
        return general
    return replace(general, stage="memory", steps=1_000_000, batch_size=24, rate=2e-5, halve_at=())


def build_task(recipe: MastRecipe, data: Path, *, device: str = "cpu", weights: Path | None = None) -> "MastTask":
    """The training of a recipe on the clips of a folder.

    Args:
        recipe: see there.
        data: folders of frames, or videos; no masks are needed.
        device: where the network lies.
        weights: to go on from; the memory stage needs those of the pair stage.

    Raises:
        InputError: the folder holds no clips that are long enough, the size is no multiple of 4, or the memory stage has no weights.
        CheckpointError: the weights are of another model.
    """
    if recipe.size < 4 or recipe.size % 4:
        message = f"frames of {recipe.size} pixels do not fit the grid of cells; give a multiple of 4"
        raise InputError(message)
    if recipe.stage == "memory" and weights is None:
        message = "the memory stage goes on from weights of the pair stage; train 'mast' first, and give its weights"
        raise InputError(message)
    frames = FootageFrames(read_footage(data), size=recipe.size)
    pairs = recipe.stage == "pairs"
    source: FrameSource = (
        PairSource(frames, intervals=recipe.intervals, odds=recipe.interval_odds)
        if pairs
        else MemorySource(frames, FULL_MEMORY, longest=recipe.longest)
    )
    encoder = MastEncoder() if weights is not None else initialised(seed=recipe.seed, logit_scale=recipe.logit_scale)
    if weights is not None:
        load_strictly(encoder, rename(read_checkpoint(weights), OFFICIAL_NAMES))
    return MastTask(recipe, encoder.to(device, memory_format=torch.channels_last), source)  # type: ignore[call-overload] # torch's stubs lack it


def initialised(*, seed: int, logit_scale: float) -> MastEncoder:
    """An encoder as PyTorch's layers start (official code), with the root of the scale on its features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = MastEncoder()
    with torch.no_grad():
        for parameter in encoder.head.parameters():
            parameter.mul_(logit_scale**0.5)
    return encoder


class MastTask:
    """The encoder, its frames and its loss; see `training.task.Task`.

    Adam's steps do not depend on the size of the gradient. So to train features times s, with s on the weights of the last layer at the start and on
    its rate, is to train features that are multiplied by s afterwards: a factor of s squared on the logits.
    """

    def __init__(self, recipe: MastRecipe, encoder: MastEncoder, source: FrameSource) -> None:
        self.model: nn.Module = encoder
        self.recipe = recipe
        self.source = source
        self._encoder = encoder

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The last layer, at a rate times the root of the logit scale, and the rest."""
        recipe = self.recipe
        processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        samples = recipe.batch_size * recipe.accumulate * processes
        head = list(self._encoder.head.parameters())
        rest = [parameter for name, parameter in self._encoder.named_parameters() if not name.startswith("head.")]
        return [
            ParameterGroup("encoder", rest, HalvingRate(recipe.rate, recipe.halve_at, samples)),
            ParameterGroup("head", head, HalvingRate(recipe.rate * recipe.logit_scale**0.5, recipe.halve_at, samples)),
        ]

    def batch(self, draw: Draw) -> Batch:
        """The frames of a draw (`FrameSource`), and the `channel` to drop: one for all parts of a step."""
        channel = draw_channel(draw._replace(part=0).generator())
        return {**self.source.batch(draw), "channel": torch.tensor([channel])}

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The loss of the rebuilt colours; and that of copying those of the last reference in place, which it must get below."""
        self._encoder.train()
        channel = int(batch["channel"])
        lab = _lab(batch["images"])
        target = lab[-1]
        rebuilt = reconstruct_from_memory(self._encoder, list(lab[:-1]), batch["gaps"].tolist(), target, channel=channel)
        loss = reconstruction_loss(rebuilt, target, channel=channel)
        with torch.no_grad():
            copied = reconstruction_loss(to_coarse(lab[-2, :, channel : channel + 1]), target, channel=channel)
            pictures = _pictures(batch["images"], target, rebuilt, channel) if with_pictures else None
        return StepLosses(loss, {"copied_loss": copied}, pictures)


def describe(task: MastTask) -> list[str]:
    """What was found to train on, and what is trained."""
    recipe, lengths = task.recipe, task.source.frames.lengths
    pairs = f"pairs {', '.join(map(str, recipe.intervals))} frames apart"
    drawn = pairs if recipe.stage == "pairs" else f"a frame and its memory, up to {recipe.longest} frames back"
    learning = sum(parameter.numel() for parameter in task.model.parameters())
    return [
        f"{len(lengths)} clips with {lengths.sum()} frames, resized to {recipe.size}x{recipe.size}: {drawn}",
        f"mast: {learning / 1e6:.1f} M parameters to train",
    ]


def _lab(images: UInt8[Tensor, "t n 3 h w"]) -> Float[Tensor, "t n 3 h w"]:
    """The network's input, for all frames."""
    return torch.stack([normalised_lab(image) for image in images.flatten(0, 1)]).view(images.shape)


def _pictures(
    images: UInt8[Tensor, "t n 3 h w"], target: Float[Tensor, "n 3 h w"], rebuilt: Float[Tensor, "n 1 h4 w4"], channel: int
) -> SamplePictures:
    """`repainted`, from the network's Lab."""
    scale = torch.tensor([50.0, 127.0, 127.0], device=target.device)[:, None, None]
    shift = torch.tensor([50.0, 0.0, 0.0], device=target.device)[:, None, None]
    return repainted(images, target * scale + shift, rebuilt * scale[channel] + shift[channel], channel)
