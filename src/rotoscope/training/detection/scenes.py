"""Pictures of several objects, made in batches from images with masks, on any device: other views of an image, and objects of others laid into it."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from rotoscope.training.detection.truth import Truth, boxes_around
from rotoscope.training.image_bank import MEAN_COLOUR
from rotoscope.training.losses import VOID

_LAID = 256
"""Labels of objects that are laid into the picture begin here, above those of the image and void."""


@dataclass(frozen=True, slots=True)
class SceneSettings:
    """What pictures look like.

    Attributes:
        view: what is seen of an image, as shares of its sides, from least to most; above 1 there is an empty edge.
        stretch: the logarithm of the factor by which a view is made wider or higher, at most.
        layers: objects of other images that may be laid into the picture.
        layer_share: how likely each of them is there.
        layer_extent: its longer side, as shares of the picture's, from least to most.
        least_pixels: objects of which less is seen are neither taught nor background.
    """

    view: tuple[float, float] = (0.5, 1.3)
    stretch: float = 0.25
    layers: int = 2
    layer_share: float = 0.25
    layer_extent: tuple[float, float] = (0.1, 0.6)
    least_pixels: int = 48


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """n images and their objects, padded at the right and the bottom to one size.

    Attributes:
        images: RGB bytes.
        labels: objects from 1, background 0, `VOID` where nothing is known and beyond the image.
        hw: the sizes without padding.
        class_ids: of all objects of an image; `ANY_CLASS` where nobody said.
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: UInt8[Tensor, "n h w"]
    hw: Int64[Tensor, "n 2"]
    class_ids: Int64[Tensor, " n"]


@dataclass(frozen=True, slots=True)
class Scenes:
    """n pictures.

    Attributes:
        images: RGB in 0..1.
        truths: what they show.
    """

    images: Float[Tensor, "n 3 y x"]
    truths: list[Truth]


def make_scenes(grounds: LabelledImages, layers: list[LabelledImages], size: int, settings: SceneSettings, generator: torch.Generator) -> Scenes:
    """Square pictures: views of the first images, with an object of each of the others laid over some of them.

    Args:
        grounds: seen as a whole or in part.
        layers: as many images each; one object of each is used.
        size: side of the pictures.
        settings: see there.
        generator: on the CPU; the pictures are a function of its state.
    """
    images, labels = _viewed(grounds, _views(len(grounds.images), settings, generator), size)
    for number, layer in enumerate(layers):
        mask = _one_object(layer, generator)
        is_there = (torch.rand(len(mask), generator=generator) < settings.layer_share).to(mask.device) & mask.flatten(1).any(dim=1)
        colours, alpha = _laid(layer, mask, _places(mask, settings, generator), size)
        alpha = alpha * is_there[:, None, None]
        images = images + (colours - images) * alpha[:, None]
        labels = torch.where(alpha > 0.5, _LAID + number, labels)
    classes = torch.stack([grounds.class_ids, *(layer.class_ids for layer in layers)], dim=1)
    truths = [_truth(drawn, own, settings.least_pixels) for drawn, own in zip(labels, classes, strict=True)]
    return Scenes(images / 255, truths)


def _views(count: int, settings: SceneSettings, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Which part of each image is seen: an affine map from the picture to the image, both -1..1."""
    scale, stretch, mirror, *place = torch.rand(5, count, generator=generator)
    low, high = (math.log(bound) for bound in settings.view)
    share, aspect = torch.exp(low + (high - low) * scale), torch.exp(settings.stretch * (2 * stretch - 1))
    shares = torch.stack((share * aspect, share / aspect), dim=1)
    middle = (1 - shares) * (2 * torch.stack(place, dim=1) - 1)  # the view stays on the image, or the image within the view
    return _affine(shares * torch.stack((torch.where(mirror < 0.5, -1.0, 1.0), torch.ones(count)), dim=1), middle)


def _affine(scales: Float[Tensor, "n 2"], middle: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2 3"]:
    return torch.cat((torch.diag_embed(scales), middle[:, :, None]), dim=2)


def _in_padding(views: Float[Tensor, "n 2 3"], images: LabelledImages) -> Float[Tensor, "n 2 3"]:
    """Maps to images, as maps to the padded images."""
    height, width = images.labels.shape[1:]
    shares = images.hw.flip(1).to(views) / torch.tensor((width, height)).to(views)
    moved = views * shares[:, :, None]
    moved[:, :, 2] += shares - 1
    return moved


def _viewed(images: LabelledImages, views: Float[Tensor, "n 2 3"], size: int) -> tuple[Float[Tensor, "n 3 y x"], Int64[Tensor, "n y x"]]:
    grid = _grid(views.to(images.images.device), images, size)
    colour = torch.tensor(MEAN_COLOUR).to(grid)[:, None, None]
    colours = F.grid_sample(images.images - colour, grid, align_corners=False) + colour  # beyond the image: the mean
    labels = F.grid_sample(_inside(images)[:, None].float(), grid, mode="nearest", align_corners=False)
    return colours, labels[:, 0].long()


def _grid(views: Float[Tensor, "n 2 3"], images: LabelledImages, size: int) -> Float[Tensor, "n y x 2"]:
    return F.affine_grid(_in_padding(views, images), [len(views), 1, size, size], align_corners=False)


def _inside(images: LabelledImages) -> UInt8[Tensor, "n h w"]:
    """Labels with background, in place of void, beyond each image."""
    height, width = images.labels.shape[1:]
    rows, columns = (torch.arange(length, device=images.labels.device) for length in (height, width))
    beyond = (rows[:, None] >= images.hw[:, 0, None, None]) | (columns >= images.hw[:, 1, None, None])
    return images.labels.masked_fill(beyond, 0)


def _one_object(images: LabelledImages, generator: torch.Generator) -> Bool[Tensor, "n h w"]:
    """One object of each image, drawn; nothing where there is none."""
    flat = images.labels.flatten(1).long()
    present = torch.zeros(len(flat), 256, device=flat.device).scatter_(1, flat, 1)
    order = torch.rand(len(flat), 256, generator=generator).to(flat.device) * present
    order[:, 0] = order[:, VOID] = 0
    best, drawn = order.max(dim=1)
    return (images.labels == drawn[:, None, None]) & (best > 0)[:, None, None]


def _places(masks: Bool[Tensor, "n h w"], settings: SceneSettings, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Where an object is laid: an affine map from the picture to the padded image that it is cut from."""
    scale, stretch, mirror, *place = torch.rand(5, len(masks), generator=generator).to(masks.device)
    low, high = (math.log(bound) for bound in settings.layer_extent)
    sides = torch.tensor((masks.shape[2], masks.shape[1])).to(scale)
    box = boxes_around(masks)
    pixels = (box[:, 2:] - box[:, :2]) * sides
    wanted, aspect = torch.exp(low + (high - low) * scale), torch.exp(settings.stretch * (2 * stretch - 1))
    per_picture = (pixels.max(dim=1).values / wanted).clamp(min=1)[:, None] * torch.stack((aspect, 1 / aspect), dim=1)  # image pixels
    scales = per_picture / sides * torch.stack((torch.where(mirror < 0.5, -1.0, 1.0), torch.ones_like(scale)), dim=1)
    target = 1.8 * (torch.stack(place, dim=1) - 0.5)  # of the object's middle; it may be cut off by the edge
    return _affine(scales, box[:, :2] + box[:, 2:] - 1 - scales * target)


def _laid(
    images: LabelledImages, masks: Bool[Tensor, "n h w"], places: Float[Tensor, "n 2 3"], size: int
) -> tuple[Float[Tensor, "n 3 y x"], Float[Tensor, "n y x"]]:
    """The colours and the opacity of an object in its picture."""
    grid = F.affine_grid(places, [len(masks), 1, size, size], align_corners=False)
    both = torch.cat((images.images.float(), masks[:, None].float()), dim=1)
    drawn = F.grid_sample(both, grid, align_corners=False)
    return drawn[:, :3], drawn[:, 3]


def _truth(labels: Int64[Tensor, "y x"], classes: Int64[Tensor, " sources"], least_pixels: int) -> Truth:
    """The objects of a picture; `classes` are those of the image and of each layer."""
    counts = labels.flatten().bincount(minlength=_LAID + len(classes))
    counts[0] = 0
    is_seen = counts > 0
    is_seen[VOID] = False
    ids, unclear = (is_seen & (counts >= least_pixels)).nonzero()[:, 0], (is_seen & (counts < least_pixels)).nonzero()[:, 0]
    unclear = torch.cat((unclear, (counts[VOID : VOID + 1] > 0).nonzero()[:, 0] + VOID))
    masks = labels == ids[:, None, None]
    crowds = boxes_around(labels == unclear[:, None, None])
    return Truth(boxes_around(masks), classes[(ids - _LAID + 1).clamp(min=0)], masks.float(), crowds)
