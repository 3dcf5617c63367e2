"""What a fuser learns from: an object's masks on a frame before and after a correction elsewhere, and the truth.

Either a tracker makes them, in a round of interactive work on a clip whose truth is known; or they are simulated from the truth, with errors that
grow with the distance to the frame from which a mask came, which needs no tracker.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rotoscope.tracking.propagate import propagate
from rotoscope.tracking.rounds import propagate_round
from rotoscope.training.augment import MaskErrors, perturbed_masks
from rotoscope.training.losses import VOID
from rotoscope.training.object_views import ObjectViews
from rotoscope.training.synthesis import Clips
from rotoscope.types import Frame, Masks, Tracker


@dataclass(frozen=True, slots=True)
class FusionSamples:
    """n objects, each on one frame.

    Attributes:
        images: RGB in 0..1.
        probs: of the object, earlier and newer.
        change: added and taken away by the correction, carried to the frame; zeros where nobody can tell.
        nearness: to the correction, in 0..1.
        truth: the object's pixels; 255 is void.
    """

    images: Float[Tensor, "n 3 y x"]
    probs: Float[Tensor, "n 2 y x"]
    change: Float[Tensor, "n 2 y x"]
    nearness: Float[Tensor, "n"]
    truth: Int64[Tensor, "n y x"]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a round gave to its fuser on one frame."""

    frame: Frame
    earlier: Masks
    newer: Masks
    nearness: float
    change: Tensor | None


class _Recorder:
    """A fuser that keeps what it is given, and lets the newer masks win."""

    def __init__(self) -> None:
        self.seen: list[_Seen] = []

    def fuse(self, frame: Frame, earlier: Masks, newer: Masks, *, nearness: float, change: Float[Tensor, "n 2 h w"] | None = None) -> Masks:
        self.seen.append(_Seen(frame, earlier, newer, nearness, change))
        return newer


def tracked_samples(clips: Clips, tracker: Tracker, random: np.random.Generator) -> FusionSamples | None:
    """A sample of each clip that shows an object, or None: its first frame is given, its last one is corrected, and one in between is fused.

    Raises:
        PropagationError: the tracker failed.
    """
    samples = [_tracked(clips, place, tracker, random) for place, count in enumerate(clips.num_objects.tolist()) if count]
    if not samples:
        return None
    return FusionSamples(*(torch.stack([getattr(one, name)[0] for one in samples]) for name in ("images", "probs", "change", "nearness", "truth")))


def _tracked(clips: Clips, place: int, tracker: Tracker, random: np.random.Generator) -> FusionSamples:
    pixels = (clips.images[:, place] * 255).round().to(torch.uint8).cpu()
    labels = clips.labels[:, place].cpu()
    frames = [Frame(index, image) for index, image in enumerate(pixels)]
    ids = tuple(range(1, int(clips.num_objects[place]) + 1))
    given = [Masks.from_labels(torch.where(one == VOID, 0, one).int(), ids) for one in (labels[0], labels[-1])]
    last = len(frames) - 1
    propagator = tracker.start()
    earlier = {frame.index: masks for frame, masks in propagate(iter(frames), propagator, {0: given[0]})}
    recorder, propagator = _Recorder(), tracker.start()
    propagator.remember(frames[0], given[0], given=True)
    for _ in propagate_round(frames, propagator, (last, given[1]), given=(0, last), earlier=earlier, fuser=recorder):
        pass
    seen = recorder.seen[int(random.integers(len(recorder.seen)))]
    object_id = int(random.choice(ids))
    channel, truth = seen.newer.object_ids.index(object_id), labels[seen.frame.index]
    probs = torch.stack((seen.earlier.select(ids).probs[object_id], seen.newer.probs[1 + channel]))
    change = torch.zeros_like(probs) if seen.change is None else seen.change[channel]
    truth = torch.where(truth == VOID, VOID, (truth == object_id).long())
    device = clips.images.device
    tensors = (clips.images[seen.frame.index, place].cpu(), probs, change, torch.tensor(seen.nearness), truth)
    return FusionSamples(*(tensor.cpu().clone()[None].to(device) for tensor in tensors))


def simulated_samples(views: ObjectViews, random: np.random.Generator, generator: torch.Generator) -> FusionSamples:
    """A sample of each view; the more a mask has travelled, the worse it is, as a rule."""
    count = len(views.truth)
    nearness = torch.from_numpy(random.uniform(0.03, 0.97, count)).float()
    earlier = spoiled_results(views, _strengths(nearness, random), random, generator)
    newer = spoiled_results(views, _strengths(1 - nearness, random), random, generator)
    truth = views.truth.float()
    change = torch.stack(((truth - earlier).clamp(0, 1), (earlier - truth).clamp(0, 1)), dim=1)
    blurred = F.interpolate(F.avg_pool2d(change, 16, ceil_mode=True), size=truth.shape[1:], mode="bilinear", align_corners=False)
    is_told = torch.from_numpy(random.random(count) < 0.3).to(truth)[:, None, None, None]  # most trackers cannot
    labels = torch.where(views.counts, views.truth.long(), VOID)
    return FusionSamples(views.images, torch.stack((earlier, newer), dim=1), blurred * is_told, nearness.to(truth), labels)


def _strengths(distance: Float[Tensor, "n"], random: np.random.Generator) -> list[float]:
    """How bad results are, 1 being usual at the far end; some are bad at once, and some stay good."""
    usual = distance.double().numpy() ** 0.7
    drawn = (usual * np.exp(0.6 * random.standard_normal(len(usual)))).clip(0.02, 2.5)
    return [float(one) for one in drawn]


def spoiled_results(views: ObjectViews, strengths: list[float], random: np.random.Generator, generator: torch.Generator) -> Float[Tensor, "n y x"]:
    """Soft masks as a tracker may have left them: moved and blurred, with limbs lost, spilt over other objects, or lost altogether."""
    results = []
    for truth, others, strength in zip(views.truth, views.others, strengths, strict=True):
        mask = truth.float()
        if random.random() < 0.3 * strength:
            mask = mask * (1 - _half_plane(truth, random))
        if random.random() < 0.25 * strength:
            mask = torch.maximum(mask, others.float() * _half_plane(others, random))
        if random.random() < 0.06 * strength:
            mask = torch.zeros_like(mask)
        usual = MaskErrors()
        errors = replace(
            usual, turn=usual.turn * strength, zoom=usual.zoom * strength, shift=usual.shift * strength, grow=round(usual.grow * min(strength, 1.2))
        )
        results.append(perturbed_masks(mask[None, None], errors, generator)[0, 0])
    return torch.stack(results).clamp(0, 1)


def _half_plane(mask: Bool[Tensor, "y x"], random: np.random.Generator) -> Float[Tensor, "y x"]:
    """1 on one side of a random line through a random pixel of a mask; nothing for an empty one."""
    places = mask.nonzero()
    if not len(places):
        return torch.zeros(mask.shape, device=mask.device)
    y, x = places[int(random.integers(len(places)))].tolist()
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = torch.arange(mask.shape[0], device=mask.device)[:, None], torch.arange(mask.shape[1], device=mask.device)
    side: Tensor = (columns - x) * float(np.cos(angle)) + (rows - y) * float(np.sin(angle))
    return (side >= 0).float()
