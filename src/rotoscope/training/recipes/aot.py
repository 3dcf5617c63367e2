"""How AOT and DeAOT are trained: static images made into clips, then real clips (papers, section 5.1 and appendix; constants of the official code).

The static stage here sees clips of `synthesis`, which move more smoothly and hide more than the official independent warps of one image.
`deaot-lite` is ours, and has a schedule of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rotoscope.datasets.clips import read_clips
from rotoscope.errors import InputError
from rotoscope.models.aot import VARIANTS, AotConfig, AotNetwork, load_network
from rotoscope.models.checkpoints import load_strictly, read_checkpoint
from rotoscope.nn.blocks import stop_dropping
from rotoscope.nn.conv_norm import freeze_parameters
from rotoscope.ops.color import imagenet_scaled
from rotoscope.training.aot_clips import ClipLosses, ClipSettings, clip_losses, identity_shuffles
from rotoscope.training.augment import CameraSettings, through_camera
from rotoscope.training.clip_source import ClipSource, MixedClips, SyntheticClips
from rotoscope.training.losses import hard_share, mean_overlap
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.recipe import Recipe
from rotoscope.training.schedules import PolynomialRate, Rate, Shifted, Until
from rotoscope.training.synthesis import Clips, SynthesisSettings
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses
from rotoscope.training.video_clips import ClipSampling, VideoClips

Stage = Literal["static", "main", "mixed"]
Frozen = Literal["nothing", "early", "encoder"]

_ID_BANK_GAIN = 17.0**-2
"""Of the orthogonal start of the ID bank: one over the pixels of a patch (official code)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AotRecipe(Recipe):
    """The settings of a training of AOT or DeAOT.

    Attributes:
        model: the variant.
        stage: on what: clips made from static images, real ones, or both ("mixed": `video_share` of the parts of steps see real ones).
        num_frames: of a clip, the reference among them.
        size: side of the frames; 16n + 1, or 16n with a Swin encoder.
        rate, least_rate: see `PolynomialRate`.
        encoder_factor: the encoder's rate lies so much nearer to the least one.
        weight_decay: of everything but biases, norms, relative positions and the last layer.
        gap: every so many frames one is kept for long; None for the reference alone.
        own_masks_from: share of the steps after which the memories are fed with the network's own masks, and the ID bank rests.
        hard_until: share of the steps over which the share of pixels that count falls to 15 %.
        reference_until: share of the steps over which the weight of the reference frame's own loss falls from 1 to 0.
        layer_extent: the longer side of a cut-out object, as shares of the frame's side, from least to most (`SynthesisSettings`).
        least_pixels: objects with fewer pixels in the first frame are not followed.
        twin_share: of the synthetic clips that show something twice (`SynthesisSettings`).
        short_edge: what the shorter side of real video is scaled to, before it is cut (0.7 to 1.3 times that).
        merge_share: of the real clips over which another clip's objects are laid.
        video_share: see `stage`.
        held_out: share of the images that training never sees.
        frozen: what stays as it is: nothing, the encoder's first stages (official), or the encoder, which costs more than half of a step on the CPU.
        dropout: whether channels and branches are dropped while training (official); a short training has no need of it.
    """

    model: str
    stage: Stage = "static"
    num_frames: int = 5
    size: int = 465
    rate: float = 4e-4
    least_rate: float = 2e-5
    encoder_factor: float = 0.1
    weight_decay: float = 0.03
    gap: int | None = None
    own_masks_from: float = 1.0
    hard_until: float = 0.5
    reference_until: float = 0.1
    layer_extent: tuple[float, float] = (0.15, 0.8)
    least_pixels: int = 60
    twin_share: float = 0.0
    short_edge: int = 480
    merge_share: float = 0.3
    video_share: float = 0.5
    held_out: float = 0.02
    frozen: Frozen = "early"
    dropout: bool = True


def default_recipe(name: str) -> AotRecipe:
    """The recipe of a variant: "NAME" for the static stage, "NAME:main" for the main one.

    "NAME:mixed" sees clips of both kinds, and "NAME:finetune" goes on with one's own clips.
    """
    model, _, stage = name.partition(":")
    config = VARIANTS[model]
    if model == "deaot-lite":
        return _staged(_LITE, stage, rate=2e-4, least_rate=2e-5)
    general = AotRecipe(
        model=model, steps=100_000, batch_size=4, accumulate=4, clip_norm=5.0, average_decay=0.9999, save_every=5000, keep=8,
        size=465 if config.align_corners else 464, gap=None if config.long_term_gap is None else 2,
    )  # fmt: skip
    least = 2e-5 if config.encoder == "mobilenet-v2" else 1e-5
    return _staged(general, stage, rate=2e-4, least_rate=least)


_LITE = AotRecipe(
    model="deaot-lite", steps=20_000, batch_size=6, clip_norm=5.0, average_decay=0.999, size=177, num_frames=4, encoder_factor=0.15,
    own_masks_from=0.5, save_every=500, frozen="nothing", short_edge=240, precision="bfloat16",
)  # fmt: skip
"""A short schedule on small frames, which a laptop's processor can follow."""


def _staged(general: AotRecipe, stage: str, *, rate: float, least_rate: float) -> AotRecipe:
    match stage:
        case "" | "static":
            return general
        case "mixed":
            return replace(general, stage="mixed", rate=rate, least_rate=least_rate, own_masks_from=0.0, reference_until=0.0)
        case "main":
            return replace(
                general, stage="main", rate=rate, least_rate=least_rate, weight_decay=0.07, own_masks_from=0.5, reference_until=1.0, least_pixels=100
            )
        case "finetune":  # ours: a weight learnt for long is to be moved a little, on what it will see
            return replace(
                general, stage="main", steps=2000, rate=rate / 4, least_rate=least_rate / 4, weight_decay=0.07, own_masks_from=0.0,
                hard_until=0.0, reference_until=0.0, merge_share=0.0, least_pixels=100, average_decay=0.99, save_every=500, picture_every=200,
            )  # fmt: skip
        case _:
            message = (
                f"'{general.model}' has no stage '{stage}'; stages: {general.model} (static images), {general.model}:main, {general.model}:finetune"
            )
            raise InputError(message)


def build_task(recipe: AotRecipe, data: Path, *, device: str = "cpu", weights: Path | None = None) -> "AotTask":
    """The training of a recipe on the data of a folder; the same network for the same seed.

    Args:
        recipe: see there.
        data: static images with masks, or clips with masks.
        device: where the network and, in the static stage, all images lie.
        weights: start from a checkpoint of the same variant instead of random layers.

    Raises:
        InputError: the folder holds nothing to train on.
        CheckpointError: the weights are of another model.
    """
    source = _source(recipe, data, device)
    config = VARIANTS[recipe.model]
    if weights is not None:
        network = load_network(config, read_checkpoint(weights))
    else:
        network = fresh_network(config, seed=recipe.seed)
        if recipe.model == "deaot-lite":
            load_strictly(network.encoder.layers, lite_encoder_weights())  # type: ignore[arg-type] # only LiteEncoder has one module of that name
    if recipe.frozen == "early":
        network.encoder.freeze_early()
    if recipe.frozen == "encoder":
        freeze_parameters([network.encoder])
    if not recipe.dropout:
        stop_dropping(network)
    return AotTask(recipe, network.to(device, memory_format=torch.channels_last), source)  # type: ignore[call-overload] # torch's stubs lack it


def describe(task: "AotTask") -> list[str]:
    """What was found to train on, and what is trained."""
    learning = sum(parameter.numel() for parameter in task.model.parameters() if parameter.requires_grad)
    return [str(task.source), f"{task.recipe.model}: {learning / 1e6:.1f} M parameters to train"]


def _source(recipe: AotRecipe, data: Path, device: str) -> ClipSource:
    settings = SynthesisSettings(
        num_frames=recipe.num_frames,
        size=recipe.size,
        layer_extent=recipe.layer_extent,
        least_pixels=recipe.least_pixels,
        twin_share=recipe.twin_share,
    )
    if recipe.stage == "static":
        return SyntheticClips.read(data, settings, held_out=recipe.held_out, device=device)
    sampling = ClipSampling(
        num_frames=recipe.num_frames,
        size=recipe.size,
        short_edge=recipe.short_edge,
        merge_share=recipe.merge_share,
        least_object_pixels=recipe.least_pixels,
    )
    video = VideoClips(read_clips(data), sampling)
    if recipe.stage == "main":
        return video
    return MixedClips(SyntheticClips.read(data, settings, held_out=recipe.held_out, device=device), video, recipe.video_share)


class AotTask:
    """A network, its clips and its losses; see `training.task.Task`."""

    def __init__(self, recipe: AotRecipe, network: AotNetwork, source: ClipSource, camera: CameraSettings | None = None) -> None:
        self.model: nn.Module = network
        self.recipe = recipe
        self.source = source
        self._network = network
        self._camera = camera or CameraSettings()

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The encoder, the ID bank and the rest; each once with weight decay and once without."""
        recipe = self.recipe
        rate = PolynomialRate(recipe.rate, recipe.least_rate, recipe.steps)
        rates: dict[str, Rate] = {
            "encoder": Shifted(rate, recipe.encoder_factor, recipe.least_rate),
            "id_bank": Until(rate, int(recipe.own_masks_from * recipe.steps)),
            "rest": rate,
        }
        members: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for name, parameter in self._network.named_parameters():
            if parameter.requires_grad:
                part = name.split(".")[0]
                members.setdefault((part if part in rates else "rest", _decays(name, parameter)), []).append(parameter)
        return [
            ParameterGroup(f"{part}{'' if decays else '_plain'}", parameters, rates[part], recipe.weight_decay if decays else 0.0)
            for (part, decays), parameters in members.items()
        ]

    def batch(self, draw: Draw) -> Batch:
        """What the source needs to make the clips of a draw."""
        return self.source.batch(draw)

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        """The losses of a batch; the second half of a main stage feeds the network its own masks."""
        recipe = self.recipe
        own_masks = step >= recipe.own_masks_from * recipe.steps
        self._network.train()
        self._network.id_bank.requires_grad_(requires_grad=not own_masks)
        clips, generator = self.source.clips(batch)
        images = through_camera(clips.images, self._camera, generator)
        settings = ClipSettings(
            gap=recipe.gap,
            own_masks=own_masks,
            hard_share=hard_share(step, num_steps=recipe.steps, warm_up=recipe.hard_until),
            reference_weight=max(0.0, 1 - step / (recipe.reference_until * recipe.steps)) if recipe.reference_until else 0.0,
        )
        shuffle = identity_shuffles(images.shape[1], device=images.device)
        num_objects = clips.num_objects.tolist()
        losses = clip_losses(self._network, imagenet_scaled(images), clips.labels, num_objects, settings, shuffle=shuffle)
        figures = {"last_iou": _mean_iou(losses.predicted[-1], clips.labels[-1], num_objects), "reference_loss": losses.frames[0].detach().mean()}
        return StepLosses(losses.total, figures, _pictures(images, clips, losses) if with_pictures else None)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Officially nothing of one dimension decays, nor the relative positions of values, nor the last layer."""
    return parameter.ndim > 1 and not name.startswith("decoder.leave.") and "relative_value" not in name


def fresh_network(config: AotConfig, *, seed: int) -> AotNetwork:
    """A network at the official start: Xavier for all that has more than one dimension, orthogonal for the ID bank; the encoder is left as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AotNetwork(config)
        for name, parameter in network.named_parameters():
            if name.startswith("encoder.") or parameter.ndim < 2:
                continue
            if name == "id_bank.patches.weight":
                nn.init.orthogonal_(parameter.view(parameter.shape[0], -1), gain=_ID_BANK_GAIN)
            else:
                nn.init.xavier_uniform_(parameter)
    return network


def _mean_iou(predicted: Int64[Tensor, "n h w"], truth: Int64[Tensor, "n h w"], num_objects: Sequence[int]) -> Tensor:
    """The mean intersection over union of the objects that are seen, over all samples; 0 if none is."""
    ids = torch.arange(1, 1 + max(*num_objects, 1), device=truth.device)[:, None, None]
    ours, theirs = predicted[:, None] == ids, truth[:, None] == ids
    return mean_overlap(ours.flatten(0, 1), theirs.flatten(0, 1))


def _pictures(images: Float[Tensor, "t n 3 h w"], clips: Clips, losses: ClipLosses) -> SamplePictures:
    bytes_ = (images[:, 0] * 255).round().to(torch.uint8)
    return SamplePictures(bytes_.cpu(), clips.labels[:, 0].cpu(), losses.predicted[:, 0].cpu())
