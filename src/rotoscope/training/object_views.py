"""Single objects to be marked: pictures that show one, at any size, among others (made by `synthesis`, one frame at a time)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rotoscope.training.losses import VOID
from rotoscope.training.synthesis import Clips


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """How objects are shown.

    Attributes:
        size: of the views, in pixels.
        whole_share: of the views that show the whole frame; the others are cut out around the object, as a closer look is.
        zoom: of a closer look: its side over the longer side of the object's box, from least to most.
    """

    size: int = 225
    whole_share: float = 0.35
    zoom: tuple[float, float] = (1.05, 2.2)


@dataclass(frozen=True, slots=True)
class ObjectViews:
    """n views of an object each.

    Attributes:
        images: RGB in 0..1.
        truth: the object.
        others: the other objects.
        counts: False where nothing is known: void; everywhere in a frame that shows no object.
    """

    images: Float[Tensor, "n 3 y x"]
    truth: Bool[Tensor, "n y x"]
    others: Bool[Tensor, "n y x"]
    counts: Bool[Tensor, "n y x"]


def object_views(clips: Clips, settings: ViewSettings, generator: torch.Generator) -> ObjectViews:
    """A view of one object of the first frame of each clip, which object being drawn."""
    labels, images = clips.labels[0], clips.images[0]
    drawn = 1 + (torch.rand(len(labels), generator=generator).to(labels.device) * clips.num_objects).long()
    truth = (labels == drawn[:, None, None]) & (clips.num_objects > 0)[:, None, None]
    places = _places(truth, settings, generator)
    size = [len(images), 1, settings.size, settings.size]
    grid = F.affine_grid(places, size, align_corners=False)
    seen = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    nearest = F.grid_sample(labels[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False)
    numbers = nearest[:, 0].long()
    is_object = (numbers == drawn[:, None, None]) & (clips.num_objects > 0)[:, None, None]
    counts = (numbers != VOID) & is_object.flatten(1).any(dim=1)[:, None, None]
    return ObjectViews(seen.clamp(0, 1), is_object, (numbers != 0) & (numbers != VOID) & ~is_object, counts)


def _places(truth: Bool[Tensor, "n h w"], settings: ViewSettings, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Which part of each frame is seen, as an affine map of -1..1."""
    count = len(truth)
    is_whole, zoom, across, down = torch.rand(4, count, generator=generator).to(truth.device)
    least, most = settings.zoom
    centre, extent = _extents(truth)
    side = (extent.max(dim=1).values * (least + (most - least) * zoom)).clamp(min=0.1, max=1.0)
    slack = (side - extent.max(dim=1).values).clamp(min=0)  # the object stays inside
    shift = slack[:, None] * (2 * torch.stack((across, down), dim=1) - 1)
    whole = (is_whole < settings.whole_share) | ~truth.flatten(1).any(dim=1)
    side = torch.where(whole, 1.0, side)
    middle = torch.where(whole[:, None], 0.0, centre + shift)
    places = torch.zeros(count, 2, 3, device=truth.device)
    places[:, 0, 0] = places[:, 1, 1] = side
    places[:, :, 2] = middle
    return places


def _extents(masks: Bool[Tensor, "n h w"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """The centre (x, y) of the box around each mask, in -1..1, and its half sides."""
    sides = []
    for dim in (1, 2):
        used = masks.any(dim=dim).float()
        length = used.shape[1]
        first, last = used.argmax(dim=1), length - used.flip(1).argmax(dim=1)
        sides.append((2 * first / length - 1, 2 * last / length - 1))
    (x0, x1), (y0, y1) = sides
    return torch.stack((x0 + x1, y0 + y1), dim=1) / 2, torch.stack((x1 - x0, y1 - y0), dim=1) / 2
