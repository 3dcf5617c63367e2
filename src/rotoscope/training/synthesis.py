"""Clips with exact masks, made from static images in batches on any device (RGMP's two ways of simulating video: paper, section 3.3).

A scene has a background and layers over it. The background is a whole image with its masks under a smooth random path (the first way); each layer is
an object cut out of another image, which moves by itself, covers what lies below, leaves the frame and comes back (the second way).
A clip may mix both.
"""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from rotoscope.training.warps import Motion, Paths, draw_paths, warped_grid


@dataclass(frozen=True, slots=True)
class SynthesisSettings:
    """What synthetic clips look like.

    Attributes:
        num_frames: of a clip.
        size: side of its frames in pixels.
        num_layers: cut-out objects, at most; how many there are is drawn for each clip.
        max_kept: objects of the background that stay labelled, at most; others become part of it.
        whole_share: of the clips without any layer.
        unlabelled_share: of the layers that are background to the masks: they cover objects, and must not be followed.
        bare_share: of the clips with layers whose background loses its labels.
        twin_share: of the clips whose last layer is cut out of an image that the clip shows already: what looks the same must be told apart.
        least_pixels: objects with fewer pixels in the first frame are not followed.
        view: the background's crop, as shares of the image's shorter side, from least to most.
        layer_extent: the longer side of a cut-out object, as shares of the frame's side, from least to most.
        background_motion, layer_motion: see there.
    """

    num_frames: int = 4
    size: int = 193
    num_layers: int = 2
    max_kept: int = 3
    whole_share: float = 0.4
    unlabelled_share: float = 0.2
    bare_share: float = 0.4
    twin_share: float = 0.0
    least_pixels: int = 60
    view: tuple[float, float] = (0.5, 1.1)
    layer_extent: tuple[float, float] = (0.15, 0.8)
    background_motion: Motion = field(default_factory=Motion)
    layer_motion: Motion = field(default_factory=lambda: Motion(shift=0.12))


@dataclass(frozen=True, slots=True)
class Sources:
    """The images of n scenes: the background first, then the layers, padded at the right and the bottom to one size.

    Attributes:
        images: RGB bytes.
        labels: their objects, background 0.
        hw: the sizes without padding.
    """

    images: UInt8[Tensor, "n layers 3 h w"]
    labels: UInt8[Tensor, "n layers h w"]
    hw: Int64[Tensor, "n layers 2"]


@dataclass(frozen=True, slots=True)
class Clips:
    """n clips of t frames.

    Attributes:
        images: RGB in 0..1.
        labels: objects from 1, in no order; 0 is the background.
        num_objects: of each clip; all of them are seen in the first frame. May be 0.
    """

    images: Float[Tensor, "t n 3 y x"]
    labels: Int64[Tensor, "t n y x"]
    num_objects: Int64[Tensor, "n"]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Where a layer is in its image and in the clip.

    Attributes:
        centre: of what is shown, (x, y) in pixels of the image.
        scale: pixels of the image per half of the frame's side.
        start: where the centre lies in the first frame, in -1..1.
        mirrored: left and right are exchanged.
    """

    centre: Float[Tensor, "n 2"]
    scale: Float[Tensor, "n"]
    start: Float[Tensor, "n 2"]
    mirrored: Bool[Tensor, "n"]


def synthesise(sources: Sources, settings: SynthesisSettings, generator: torch.Generator) -> Clips:
    """Clips from images, the same for the same state of the generator, which lies on the CPU whatever the device of the images."""
    device, count = sources.images.device, sources.images.shape[0]
    kept = _kept_objects(sources.labels[:, 0], settings.max_kept, generator)
    presence = _draw_presence(count, settings, generator)
    kept = kept * presence.keeps_labels.to(device)[:, None, None, None]
    layer = _place_background(sources, kept, settings, generator)
    paths = _moved(draw_paths(count, settings.num_frames, settings.background_motion, generator), device)
    images, owners = _render_background(sources, kept, _grid(layer, paths, settings.size))
    for index in range(1, sources.images.shape[1]):
        cut_out = _chosen_object(sources.labels[:, index], generator)
        layer = _place_object(sources.hw[:, index], cut_out, settings, generator)
        paths = _moved(draw_paths(count, settings.num_frames, settings.layer_motion, generator), device)
        colours, alpha = _render_object(sources.images[:, index], cut_out, _grid(layer, paths, settings.size), sources.hw[:, index])
        alpha = alpha * presence.has_layer[:, index - 1].to(device)[:, None, None, None]
        images = images + (colours - images) * alpha[:, :, None]
        number = torch.where(presence.is_labelled[:, index - 1], settings.max_kept + index, 0).to(device)
        owners = torch.where(alpha > 0.5, number[:, None, None, None], owners)
    labels, num_objects = _numbered(owners, settings.max_kept + settings.num_layers, settings.least_pixels)
    return Clips((images.transpose(0, 1) / 255).clamp(0, 1), labels.transpose(0, 1), num_objects)


@dataclass(frozen=True, slots=True)
class _Presence:
    """Which layers a clip has, and which of them count.

    Attributes:
        has_layer, is_labelled: of each layer.
        keeps_labels: whether objects of the background count.
    """

    has_layer: Bool[Tensor, "n layers"]
    is_labelled: Bool[Tensor, "n layers"]
    keeps_labels: Bool[Tensor, "n"]


def _draw_presence(count: int, settings: SynthesisSettings, generator: torch.Generator) -> _Presence:
    is_whole = torch.rand(count, generator=generator) < settings.whole_share
    num_layers = torch.randint(1, max(settings.num_layers, 1) + 1, (count,), generator=generator)
    has_layer = (torch.arange(settings.num_layers) < num_layers[:, None]) & ~is_whole[:, None]
    is_labelled = torch.rand(count, settings.num_layers, generator=generator) >= settings.unlabelled_share
    is_bare = (torch.rand(count, generator=generator) < settings.bare_share) & (has_layer & is_labelled).any(dim=1)
    return _Presence(has_layer, is_labelled, ~is_bare)


def _kept_objects(labels: UInt8[Tensor, "n h w"], most: int, generator: torch.Generator) -> Float[Tensor, "n kept h w"]:
    """Masks of up to `most` objects of each image, chosen at random; empty where there are fewer."""
    order = torch.rand(labels.shape[0], 254, generator=generator).to(labels.device)
    present = torch.zeros(labels.shape[0], 256, dtype=torch.bool, device=labels.device).scatter_(1, labels.flatten(1).long(), value=True)[:, 1:255]
    ranked = torch.where(present, order, 2.0).topk(most, dim=1, largest=False)
    ids = torch.where(ranked.values < 1, ranked.indices + 1, 256)  # 256: no pixel has it
    return (labels[:, None].long() == ids[:, :, None, None]).float()


def _chosen_object(labels: UInt8[Tensor, "n h w"], generator: torch.Generator) -> Float[Tensor, "n h w"]:
    return _kept_objects(labels, 1, generator)[:, 0]


def _place_background(sources: Sources, kept: Float[Tensor, "n kept h w"], settings: SynthesisSettings, generator: torch.Generator) -> _Layer:
    """A crop of the image around a place near its labelled objects, or near its middle where it has none."""
    count, device = kept.shape[0], kept.device
    hw = sources.hw[:, 0].float()
    box = _boxes(kept.sum(dim=1))
    has_objects = (box[:, 2] > box[:, 0])[:, None]
    middle = torch.where(has_objects, (box[:, :2] + box[:, 2:]) / 2, hw.flip(1) / 2)
    short, share = hw.min(dim=1).values, _between(settings.view, count, generator).to(device)
    jitter = 0.5 * (torch.rand(count, 2, generator=generator).to(device) - 0.5) * (share * short)[:, None]
    mirrored = torch.rand(count, generator=generator) < 0.5
    return _Layer(middle + jitter, share * short / 2, torch.zeros(count, 2, device=device), mirrored.to(device))


def _place_object(hw: Int64[Tensor, "n 2"], cut_out: Float[Tensor, "n h w"], settings: SynthesisSettings, generator: torch.Generator) -> _Layer:
    """An object somewhere in the frame, possibly cut by its edge, at a random size."""
    count, device = cut_out.shape[0], cut_out.device
    box = _boxes(cut_out)
    extent = (box[:, 2:] - box[:, :2]).max(dim=1).values.clamp(min=2)
    share = _between(settings.layer_extent, count, generator).to(device)
    start = 1.8 * (torch.rand(count, 2, generator=generator).to(device) - 0.5)
    mirrored = torch.rand(count, generator=generator) < 0.5
    return _Layer((box[:, :2] + box[:, 2:]) / 2, extent / share / 2, start, mirrored.to(device))


def _between(limits: tuple[float, float], count: int, generator: torch.Generator) -> Float[Tensor, "n"]:
    """Random factors, evenly spread over the logarithm."""
    low, high = (torch.tensor(limit).log() for limit in limits)
    return torch.exp(low + (high - low) * torch.rand(count, generator=generator))


def _boxes(masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """x0, y0, x1, y1 around what is not 0; zeros where nothing is."""
    sides = []
    for dim in (1, 2):
        used = (masks > 0).any(dim=dim).float()
        last = used.shape[1] - used.flip(1).argmax(dim=1)
        sides.append((used.argmax(dim=1), last * used.any(dim=1)))
    (x0, x1), (y0, y1) = sides
    return torch.stack((x0, y0, x1, y1), dim=1).float()


def _grid(layer: _Layer, paths: Paths, size: int) -> Float[Tensor, "n t y x 2"]:
    """For every pixel of every frame its place (x, y) in the image, in pixels."""
    places = warped_grid(paths, layer.start, size=size)
    sign = torch.where(layer.mirrored, -1.0, 1.0)
    turned = torch.stack((places[..., 0] * sign[:, None, None, None], places[..., 1]), dim=-1)
    return turned * layer.scale[:, None, None, None, None] + layer.centre[:, None, None, None]


def _render_background(
    sources: Sources, kept: Float[Tensor, "n kept h w"], grid: Float[Tensor, "n t y x 2"]
) -> tuple[Float[Tensor, "n t 3 y x"], Int64[Tensor, "n t y x"]]:
    """The image under its path, mirrored beyond its edges, and which of the kept objects (from 1) owns each pixel."""
    wh = sources.hw[:, 0].flip(1).float()[:, None, None, None]
    folded = wh - ((grid % (2 * wh)) - wh).abs()
    inside = torch.minimum(folded, wh - 0.5).clamp(min=0.5)  # the padding beside the image must not shine in
    drawn = _sampled(torch.cat((sources.images[:, 0].float(), kept), dim=1), inside)
    shares = drawn[:, :, 3:]
    best, owner = shares.max(dim=2)
    owns = best > 1 - shares.sum(dim=2)
    return drawn[:, :, :3], torch.where(owns, owner + 1, 0)


def _render_object(
    images: UInt8[Tensor, "n 3 h w"], cut_out: Float[Tensor, "n h w"], grid: Float[Tensor, "n t y x 2"], hw: Int64[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n t 3 y x"], Float[Tensor, "n t y x"]]:
    """The image of an object under its path, and its opacity; nothing beyond the edges of its image."""
    drawn = _sampled(torch.cat((images.float(), cut_out[:, None]), dim=1), grid)
    wh = hw.flip(1)[:, None, None, None]
    inside = ((grid >= 0.5) & (grid <= wh - 0.5)).all(dim=-1)
    return drawn[:, :, :3], drawn[:, :, 3] * inside


def _sampled(maps: Float[Tensor, "n c h w"], places: Float[Tensor, "n t y x 2"]) -> Float[Tensor, "n t c y x"]:
    """Bilinear samples at places in pixels, the first pixel reaching from 0 to 1."""
    count, frames, size = places.shape[:3]
    edge = torch.tensor((maps.shape[3], maps.shape[2]), device=maps.device)
    normalised = (2 * places / edge - 1).flatten(1, 2)  # frames below one another: one call for all
    sampled = F.grid_sample(maps, normalised, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.view(count, maps.shape[1], frames, size, -1).transpose(1, 2)


def _numbered(owners: Int64[Tensor, "n t y x"], most: int, least_pixels: int) -> tuple[Int64[Tensor, "n t y x"], Int64[Tensor, "n"]]:
    """Objects numbered from 1 without gaps; those that are not, or hardly, in the first frame become background."""
    numbers = torch.arange(1, most + 1, device=owners.device)
    areas = (owners[:, 0, None] == numbers[:, None, None]).sum(dim=(2, 3))
    is_seen = areas >= least_pixels
    renamed = F.pad(torch.where(is_seen, is_seen.cumsum(dim=1), 0), (1, 0))
    return renamed.gather(1, owners.flatten(1)).view_as(owners), is_seen.sum(dim=1)


def _moved(paths: Paths, device: torch.device) -> Paths:
    return replace(paths, **{name: getattr(paths, name).to(device) for name in ("shift", "turn", "zoom", "shear", "tilt", "bend")})
