"""Smooth random motion: where each pixel of each frame of a synthetic clip comes from."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_CONTROLS = 4
"""Thin plates are bent at 4 x 4 points."""
_REACH = 1.2
"""The points reach this far, 1 being the edge of the frame."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How much a layer moves from one frame to the next: standard deviations for the liveliest clips.

    AOT's static stage draws an independent warp for each frame (20 degrees, a tenth of the frame, scales 0.9 to 1.1, 10 degrees of shear);
    these paths reach that within three frames.

    Attributes:
        shift: in halves of the frame's side.
        turn: radians.
        zoom: of the logarithm of the scale.
        shear: tangent of the angle.
        tilt: of perspective; the share by which the scale changes from the middle of the frame to its edge.
        bend: displacement of the thin plate's points, in halves of the frame's side.
        calmest: the least lively clips move by this factor less.
        unrest: share of the motion that is drawn anew for each frame; the rest is one drift, which changes evenly over the clip.
    """

    shift: float = 0.08
    turn: float = math.radians(6)
    zoom: float = 0.05
    shear: float = 0.04
    tilt: float = 0.02
    bend: float = 0.02
    calmest: float = 0.15
    unrest: float = 0.3


@dataclass(frozen=True, slots=True)
class Paths:
    """The warps of n layers over t frames.

    Attributes:
        shift, turn, zoom, shear, tilt: offsets since the first frame; see `Motion`.
        bend: the same of the thin plate's points.
    """

    shift: Float[Tensor, "n t 2"]
    turn: Float[Tensor, "n t"]
    zoom: Float[Tensor, "n t"]
    shear: Float[Tensor, "n t"]
    tilt: Float[Tensor, "n t 2"]
    bend: Float[Tensor, "n t points 2"]


def draw_paths(num_layers: int, num_frames: int, motion: Motion, generator: torch.Generator) -> Paths:
    """Random paths that start at no warp at all; each layer has a liveliness of its own."""
    calm = math.log(motion.calmest)
    liveliness = torch.exp(calm * torch.rand(num_layers, 1, 1, generator=generator))
    points = _CONTROLS**2
    walk = liveliness * _walk(num_layers, num_frames, 7 + 2 * points, motion.unrest, generator)
    return Paths(
        shift=motion.shift * walk[..., 0:2],
        turn=motion.turn * walk[..., 2],
        zoom=motion.zoom * walk[..., 3],
        shear=motion.shear * walk[..., 4],
        tilt=motion.tilt * walk[..., 5:7],
        bend=motion.bend * walk[..., 7:].reshape(num_layers, num_frames, points, 2),
    )


def _walk(num_layers: int, num_frames: int, num_values: int, unrest: float, generator: torch.Generator) -> Float[Tensor, "n t values"]:
    drift, change = torch.randn(2, num_layers, 1, num_values, generator=generator)
    progress = torch.linspace(-0.5, 0.5, num_frames - 1)[:, None]
    noise = torch.randn(num_layers, num_frames - 1, num_values, generator=generator)
    steps = (1 - unrest) * (drift + change * progress) + unrest * noise
    return torch.cat((torch.zeros(num_layers, 1, num_values), steps.cumsum(dim=1)), dim=1)


def warped_grid(paths: Paths, start: Float[Tensor, "n 2"], *, size: int) -> Float[Tensor, "n t y x 2"]:
    """For every pixel of square frames its place (x, y) in the layer's own coordinates, whose origin lies at `start` in the first frame.

    Coordinates run from -1 to 1 over the frame; a place is found by going back the shift, the bend, the tilt, the turn and the zoom.
    """
    device = paths.shift.device
    axis = (torch.arange(size, device=device) + 0.5) * 2 / size - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    bend = torch.einsum("yxp,ntpc->ntyxc", thin_plate_basis(pixels), paths.bend)
    places = pixels + bend - (start[:, None] + paths.shift)[:, :, None, None]
    depth = 1 + (places * paths.tilt[:, :, None, None]).sum(dim=-1, keepdim=True)
    places = places / depth.clamp(min=0.2)
    return torch.einsum("ntij,ntyxj->ntyxi", _linear_part(paths), places)


def _linear_part(paths: Paths) -> Float[Tensor, "n t 2 2"]:
    cosine, sine, scale = torch.cos(paths.turn), torch.sin(paths.turn), torch.exp(-paths.zoom)
    rows = (cosine, -sine + paths.shear * cosine, sine, cosine + paths.shear * sine)
    flat = torch.stack(rows, dim=-1) * scale[..., None]
    return flat.view(*flat.shape[:2], 2, 2)


def thin_plate_basis(places: Float[Tensor, "*s 2"]) -> Float[Tensor, "*s points"]:
    """How much each of the thin plate's points moves each place.

    Displacements of the points, multiplied by this, are those of the thin plate that goes through them and bends least (Bookstein, 1989):
    r^2 log r around each point, and an affine part.
    """
    axis = torch.linspace(-_REACH, _REACH, _CONTROLS, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    corner = torch.cat((torch.ones(len(points), 1, dtype=torch.float64), points), dim=1)
    system = torch.zeros(len(points) + 3, len(points) + 3, dtype=torch.float64)
    system[:-3, :-3] = _radial(points, points)
    system[:-3, -3:], system[-3:, :-3] = corner, corner.T
    weights = torch.linalg.inv(system)[:, :-3].to(places)
    points = points.to(places)
    affine = torch.cat((torch.ones_like(places[..., :1]), places), dim=-1)
    basis: Tensor = torch.cat((_radial(places, points), affine), dim=-1) @ weights
    return basis


def _radial(places: Tensor, points: Tensor) -> Tensor:
    squared = (places[..., None, :] - points).square().sum(dim=-1)
    radial: Tensor = 0.5 * squared * torch.log(squared.clamp(min=1e-12))
    return radial
