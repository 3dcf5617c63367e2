"""How MiVOS's propagation is trained: clips of static images, rendered clips (BL30K), real clips (sheet, section 4; hkchengrex/Mask-Propagation).

Official: three frames, what is remembered of them, the losses, optimiser, rate and its fall, batches, steps, sizes, hard pixels, and the growth
of gaps. Not official: the clips of the first stage come from `synthesis`; real clips turn round at their ends rather than being cut short; the first
stage has the fifth channel of the memory's encoder from the start, where officially it is added later; with YouTube-VOS's short gaps the
curriculum rounds to whole frames a little differently. The top-k filter is not used while training, as officially.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rotoscope.datasets.clips import ClipSet, read_clips
from rotoscope.models.checkpoints import load_strictly, read_checkpoint, rename
from rotoscope.models.mivos import OFFICIAL_NAMES, PropagationNetwork
from rotoscope.models.mivos.network import sum_of_others
from rotoscope.ops.affinity import KeyValue, read_memory
from rotoscope.ops.aggregate import join_objects
from rotoscope.ops.color import imagenet_scaled
from rotoscope.training.augment import CameraSettings, through_camera
from rotoscope.training.clip_source import ClipSource, SyntheticClips
from rotoscope.training.losses import bootstrapped_cross_entropy, hard_share_between
from rotoscope.training.recipe import Recipe
from rotoscope.training.schedules import SteppedRate
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses
from rotoscope.training.video_clips import ClipSampling, VideoClips

Stage = Literal["static", "bl30k", "main"]

_GREY = CameraSettings(light=0.1, colour=0.05, grey_share=0.05, flicker=0.02, blur_share=0.0, streak_share=0.0, codec_share=0.0, noise_share=0.0)
"""The official jitter (sheet, section 4)."""
_JUMPS = (5, 10, 15, 20, 25)
"""Frames that may be left out between two of a clip, at most; each of them for a tenth of the training, the last until `_CALM`, then the first."""
_CALM = {"static": 1.0, "bl30k": 0.8, "main": 0.9}
_YOUTUBE_SHARE = 5  # its frames are five apart: the jumps are divided


@dataclass(frozen=True, slots=True, kw_only=True)
class MivosRecipe(Recipe):
    """The settings of a training of MiVOS's propagation.

    Attributes:
        stage: on what.
        size: side of the frames, a multiple of 16.
        max_objects: of a clip.
        rate, falls_at: see `SteppedRate`.
        weight_decay: of all parameters.
        hard_from, hard_until, hard_share: between these steps the share of pixels that count falls from 1 to the last.
        scale: of real clips, least and most, beside a shorter side of 480 pixels.
        held_out: share of the images that training never sees.
    """

    stage: Stage = "static"
    size: int = 384
    max_objects: int = 1
    rate: float = 1e-5
    falls_at: tuple[int, ...] = (250_000,)
    weight_decay: float = 1e-7
    hard_from: int = 20_000
    hard_until: int = 70_000
    hard_share: float = 0.15
    scale: tuple[float, float] = (0.8, 1.33)
    held_out: float = 0.0


def default_recipe(name: str) -> MivosRecipe:
    """The recipe of "mivos" (static images), "mivos:bl30k" or "mivos:main"; parts are the batches of the official two GPUs."""
    static = MivosRecipe(steps=300_000, batch_size=7, accumulate=2, optimiser="adam", save_every=5000)
    match name.partition(":")[2]:
        case "bl30k":
            return replace(static, stage="bl30k", steps=500_000, batch_size=4, max_objects=2, falls_at=(450_000,))
        case "main":
            return replace(static, stage="main", steps=150_000, batch_size=4, max_objects=2, falls_at=(125_000,))
        case _:
            return static


def build_task(recipe: MivosRecipe, data: Path, *, device: str = "cpu", weights: Path | None = None) -> "MivosTask":
    """The training of a recipe on the data of a folder; the same network for the same seed.

    Args:
        recipe: see there.
        data: static images with masks, or clips with masks.
        device: where the network and, in the static stage, all images lie.
        weights: start from these instead of random layers; officially the encoders start from ImageNet's, which do not ship.

    Raises:
        InputError: the folder holds nothing to train on.
        CheckpointError: the weights are of another model.
    """
    source = _source(recipe, data, device)
    network = fresh_network(seed=recipe.seed)
    if weights is not None:
        load_strictly(network, rename(read_checkpoint(weights), OFFICIAL_NAMES))
    return MivosTask(recipe, network.to(device, memory_format=torch.channels_last), source)  # type: ignore[call-overload] # torch's stubs lack it


def describe(task: "MivosTask") -> list[str]:
    """What was found to train on, and what is trained."""
    count = sum(parameter.numel() for parameter in task.model.parameters())
    found = [str(one) for one in task.source.sets] if isinstance(task.source, VideoClips) else [str(task.source)]
    return [*found, f"MiVOS's propagation: {count / 1e6:.1f} M parameters to train"]


def fresh_network(*, seed: int) -> PropagationNetwork:
    """A network as PyTorch's layers start; what the memory's encoder sees beside colours counts for nothing at first (official)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PropagationNetwork()
    first = next(parameter for name, parameter in network.memory_encoder.named_parameters() if parameter.ndim == 4)
    with torch.no_grad():
        first[:, 3:] = 0
    return network


def _source(recipe: MivosRecipe, data: Path, device: str) -> ClipSource:
    if recipe.stage == "static":
        settings = SynthesisSettings(num_frames=3, size=recipe.size, num_layers=0, max_kept=recipe.max_objects, whole_share=1.0)
        return SyntheticClips.read(data, settings, held_out=recipe.held_out, device=device)
    sampling = ClipSampling(
        num_frames=3, size=recipe.size, scale=recipe.scale, gap_stages=gap_stages(recipe), max_objects=recipe.max_objects, merge_share=0.0
    )
    return VideoClips([_spread(one) for one in read_clips(data)], sampling)


def gap_stages(recipe: MivosRecipe) -> tuple[tuple[int, float], ...]:
    """From each step on, the share of the largest gap that may be drawn: it grows with every tenth of the training, and is small at its end."""
    largest = _JUMPS[-1] + 1
    stages = [(int(place * recipe.steps / 10), (jump + 1) / largest) for place, jump in enumerate(_JUMPS)]
    return (*stages, (int(_CALM[recipe.stage] * recipe.steps), (_JUMPS[0] + 1) / largest))


def _spread(one: ClipSet) -> ClipSet:
    """The set with MiVOS's largest gap."""
    most = _JUMPS[-1] // _YOUTUBE_SHARE if "YouTube" in one.layout else _JUMPS[-1]
    return replace(one, max_gap=most + 1)


class MivosTask:
    """A network, its clips and its losses; see `training.task.Task`."""

    def __init__(self, recipe: MivosRecipe, network: PropagationNetwork, source: ClipSource) -> None:
        self.model: nn.Module = network
        self._network = network
        self.recipe = recipe
        self.source = source

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """All parameters alike, those of the normalisations too."""
        recipe = self.recipe
        return [ParameterGroup("all", list(self.model.parameters()), SteppedRate(recipe.rate, recipe.falls_at), recipe.weight_decay)]

    def batch(self, draw: Draw) -> Batch:
        """Which images, or the frames of clips; see `ClipSource`."""
        return self.source.batch(draw)

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The losses of the second and the third frame, added up; normalisations keep their statistics."""
        self.model.eval()
        with torch.no_grad():
            clips, generator = self.source.clips(batch)
            images = through_camera(clips.images, _GREY, generator)
        share = hard_share_between(step, self.recipe.hard_from, self.recipe.hard_until, least=self.recipe.hard_share)
        totals, overlaps, predicted = [], [], clips.labels[:, 0].clone()
        for place, count in enumerate(clips.num_objects.tolist()):
            if not count:
                continue
            probs = self._propagated(imagenet_scaled(images[:, place]), clips.labels[0, place], count)
            labels = clips.labels[1:, place]
            totals.append(bootstrapped_cross_entropy(probs.log(), labels, share=share).sum())
            overlaps.append(_overlap(probs[-1].detach(), labels[-1]))
            if place == 0:
                predicted[1:] = probs.detach().argmax(dim=1)
        nothing = torch.zeros((), device=images.device)
        total = torch.stack(totals).sum() / len(clips.num_objects) if totals else next(self.model.parameters()).sum() * 0
        pictures = SamplePictures((images[:, 0] * 255).round().to(torch.uint8).cpu(), clips.labels[:, 0].cpu(), predicted.cpu())
        return StepLosses(total, {"last_iou": torch.stack(overlaps).mean() if overlaps else nothing}, pictures if with_pictures else None)

    def _propagated(self, images: Float[Tensor, "3 3 h w"], labels: Int64[Tensor, "h w"], count: int) -> Float[Tensor, "2 channels h w"]:
        """What becomes of the second frame and, with it in memory, of the third, from the masks of the first."""
        network = self._network
        masks = (labels == torch.arange(1, count + 1, device=labels.device)[:, None, None]).to(images)
        memory: list[list[KeyValue]] = []
        results = []
        for index, image in enumerate(images[1:]):
            memory.append(network.memorise(images[index : index + 1], masks, sum_of_others(masks)))
            picture = network.see(image[None])
            readouts = torch.stack([read_memory(picture.key, [frame[place] for frame in memory], top_k=None) for place in range(count)])
            results.append(join_objects(network.segment(picture, readouts)))
            masks = results[-1][1:]
        return torch.stack(results)


def _overlap(probs: Float[Tensor, "channels h w"], labels: Int64[Tensor, "h w"]) -> Float[Tensor, ""]:
    """The overlap of the first object with its truth."""
    found, theirs = probs.argmax(dim=0) == 1, labels == 1
    return (found & theirs).sum() / (found | theirs).sum().clamp(min=1)
