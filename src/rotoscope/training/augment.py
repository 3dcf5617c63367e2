"""What a camera and a codec do to clips, and what an earlier prediction does to masks; on batches, on any device.

All that is random comes from a generator on the CPU: the same on every device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BLOCK = 8  # of JPEG
_QUANTISATION = (  # of luminance, JPEG's annex K, table K.1
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_BLUR_REACH = 4  # pixels: windows are 9 wide


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """How clips are degraded. Shares are of the clips, strengths the largest that are drawn.

    Attributes:
        light: change of brightness and of contrast, as factors up to 1 + light, one for the clip.
        colour: the same of saturation.
        grey_share: clips without colour (DeAOT's augmentation: 0.2).
        flicker: change of brightness from frame to frame.
        blur_share, blur: Gaussian blur of single frames; the sigma in pixels.
        streak_share, streak: motion blur of single frames; its length in pixels, at most 9.
        codec_share, codec: JPEG's loss; its quantisation steps in units of the standard's table.
        noise_share, noise: of the sensor; its standard deviation, white being 1.
    """

    light: float = 0.3
    colour: float = 0.4
    grey_share: float = 0.05
    flicker: float = 0.05
    blur_share: float = 0.15
    blur: float = 1.2
    streak_share: float = 0.15
    streak: float = 7.0
    codec_share: float = 0.25
    codec: float = 1.5
    noise_share: float = 0.25
    noise: float = 0.03


def through_camera(images: Float[Tensor, "t n 3 h w"], settings: CameraSettings, generator: torch.Generator) -> Float[Tensor, "t n 3 h w"]:
    """Degraded clips, in 0..1."""
    images = _recoloured(images, settings, generator)
    frames = images.flatten(0, 1)
    frames = _blurred(frames, settings, generator)
    frames = _coded(frames, settings, generator, num_frames=images.shape[0])
    chosen = _chosen(settings.noise_share, images.shape[1], generator) * settings.noise * torch.rand(images.shape[1], generator=generator)
    noise = torch.randn(
        frames.shape, generator=torch.Generator(frames.device).manual_seed(int(torch.randint(2**62, (), generator=generator))), device=frames.device
    )
    frames = frames + noise * chosen.repeat(images.shape[0]).to(frames)[:, None, None, None]
    return frames.clamp(0, 1).view_as(images)


def _chosen(share: float, count: int, generator: torch.Generator) -> Float[Tensor, "count"]:
    return (torch.rand(count, generator=generator) < share).float()


def _spread(width: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Factors around 1, as often below as above."""
    return torch.exp(math.log1p(width) * (2 * torch.rand(shape, generator=generator) - 1))


def _recoloured(images: Float[Tensor, "t n 3 h w"], settings: CameraSettings, generator: torch.Generator) -> Float[Tensor, "t n 3 h w"]:
    frames, count = images.shape[:2]
    light, contrast, colour = (
        _spread(width, (1, count, 1, 1, 1), generator).to(images) for width in (settings.light, settings.light, settings.colour)
    )
    light = light * _spread(settings.flicker, (frames, count, 1, 1, 1), generator).to(images)
    keeps_colour = 1 - _chosen(settings.grey_share, count, generator).to(images)[:, None, None, None]
    weights = torch.tensor(_LUMA).to(images)[:, None, None]
    grey = (images * weights).sum(dim=2, keepdim=True)
    images = grey + (images - grey) * colour * keeps_colour
    middle = grey.mean(dim=(0, 2, 3, 4), keepdim=True)
    return (((images - middle) * contrast + middle) * light).clamp(0, 1)


def _blurred(frames: Float[Tensor, "m 3 h w"], settings: CameraSettings, generator: torch.Generator) -> Float[Tensor, "m 3 h w"]:
    """Frames out of focus, or moved while the shutter was open: each chosen frame is filtered by a window of its own."""
    count = frames.shape[0]
    is_streak = torch.rand(count, generator=generator) < settings.streak_share
    is_soft = (torch.rand(count, generator=generator) < settings.blur_share) & ~is_streak
    angle = math.pi * torch.rand(count, generator=generator)
    length = (settings.streak * torch.rand(count, generator=generator)).clamp(1, 2 * _BLUR_REACH + 1)
    sigma = (settings.blur * torch.rand(count, generator=generator)).clamp(min=0.2)
    chosen = (is_streak | is_soft).nonzero().flatten()
    if not len(chosen):
        return frames
    windows = torch.where(is_streak[:, None, None], _streaks(angle, length), _bells(sigma))[chosen].to(frames)
    where = chosen.to(frames.device)
    padded = F.pad(frames[where], (_BLUR_REACH,) * 4, mode="replicate").flatten(0, 1)[None]
    filtered = F.conv2d(padded, windows.repeat_interleave(3, dim=0)[:, None], groups=3 * len(chosen))
    return frames.index_copy(0, where, filtered.view(len(chosen), 3, *frames.shape[2:]))


def _offsets() -> tuple[Tensor, Tensor]:
    axis = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, dtype=torch.float32)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return rows, columns


def _bells(sigma: Float[Tensor, "m"]) -> Float[Tensor, "m k k"]:
    rows, columns = _offsets()
    bells = torch.exp(-(rows**2 + columns**2) / (2 * sigma[:, None, None] ** 2))
    return bells / bells.sum(dim=(1, 2), keepdim=True)


def _streaks(angle: Float[Tensor, "m"], length: Float[Tensor, "m"]) -> Float[Tensor, "m k k"]:
    rows, columns = _offsets()
    cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    along, across = columns * cosine + rows * sine, rows * cosine - columns * sine
    lines = (length[:, None, None] / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(min=0)
    return lines / lines.sum(dim=(1, 2), keepdim=True)


def _coded(frames: Float[Tensor, "m 3 h w"], settings: CameraSettings, generator: torch.Generator, *, num_frames: int) -> Float[Tensor, "m 3 h w"]:
    """Frames after JPEG's rounding of the cosine transform of 8 x 8 blocks, all colours by the table of luminance."""
    clips = frames.shape[0] // num_frames
    is_coded = _chosen(settings.codec_share, clips, generator)
    strength = is_coded * (0.2 + 0.8 * torch.rand(clips, generator=generator)) * settings.codec
    chosen = is_coded.repeat(num_frames).nonzero().flatten()
    if not len(chosen):
        return frames
    where = chosen.to(frames.device)
    steps = (strength.repeat(num_frames)[chosen].to(frames)[:, None, None, None, None, None]) * torch.tensor(_QUANTISATION).to(frames) / 255
    return frames.index_copy(0, where, rounded_blocks(frames[where], steps))


def rounded_blocks(frames: Float[Tensor, "m 3 h w"], steps: Float[Tensor, "m #c #rows #columns 8 8"]) -> Float[Tensor, "m 3 h w"]:
    """Frames whose cosine transform, block by block, is rounded to multiples of the steps."""
    height, width = frames.shape[2:]
    padded = F.pad(frames, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    blocks = padded.unfold(2, _BLOCK, _BLOCK).unfold(3, _BLOCK, _BLOCK)
    basis = _cosines().to(frames)
    spectrum = basis @ blocks @ basis.T
    restored = basis.T @ ((spectrum / steps).round() * steps) @ basis
    whole = restored.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return whole[:, :, :height, :width]


def _cosines() -> Float[Tensor, "8 8"]:
    """The orthonormal cosine transform."""
    index = torch.arange(_BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi * (2 * index + 1) * index[:, None] / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


@dataclass(frozen=True, slots=True)
class MaskErrors:
    """How a mask is made to look like a prediction of the frame before (the RGMP sheet's "our choice", section 4).

    Attributes:
        turn: radians.
        zoom: of the logarithm of the scale.
        shift: in halves of the frame's side.
        grow: pixels by which the outline moves out, or in.
        soften: sigma of the blur, in pixels.
        lost_share: of the masks that lose a round piece.
    """

    turn: float = math.radians(8)
    zoom: float = 0.1
    shift: float = 0.05
    grow: int = 5
    soften: float = 1.5
    lost_share: float = 0.2


def perturbed_masks(masks: Float[Tensor, "n k h w"], errors: MaskErrors, generator: torch.Generator) -> Float[Tensor, "n k h w"]:
    """Soft masks in 0..1 as a tracker might have left them: moved, grown or shrunk, softened, some with a piece missing."""
    count, device = masks.shape[0], masks.device
    moved = F.grid_sample(
        masks, F.affine_grid(_small_moves(count, errors, generator).to(masks), list(masks.shape), align_corners=False), align_corners=False
    )
    grown = torch.stack([_grown(mask, int(torch.randint(-errors.grow, errors.grow + 1, (), generator=generator))) for mask in moved])
    sigma = (errors.soften * torch.rand(count, generator=generator)).clamp(min=0.2)
    windows = _bells(sigma).to(masks).repeat_interleave(masks.shape[1], dim=0)[:, None]
    padded = F.pad(grown, (_BLUR_REACH,) * 4, mode="replicate").flatten(0, 1)[None]
    softened = F.conv2d(padded, windows, groups=windows.shape[0])[0].view_as(masks)
    return softened * _holes(masks.shape, errors.lost_share, generator).to(device)


def _small_moves(count: int, errors: MaskErrors, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    turn, zoom, x, y = (2 * torch.rand(4, count, generator=generator) - 1).unbind()
    turn, scale = errors.turn * turn, torch.exp(errors.zoom * zoom)
    rows = (scale * turn.cos(), -scale * turn.sin(), errors.shift * x, scale * turn.sin(), scale * turn.cos(), errors.shift * y)
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def _grown(mask: Float[Tensor, "k h w"], pixels: int) -> Float[Tensor, "k h w"]:
    if pixels == 0:
        return mask
    size = 2 * abs(pixels) + 1
    sign = 1 if pixels > 0 else -1
    return sign * F.max_pool2d(sign * mask, size, stride=1, padding=abs(pixels))


def _holes(shape: tuple[int, ...], share: float, generator: torch.Generator) -> Float[Tensor, "n 1 h w"]:
    count, _, height, width = shape
    centre = torch.rand(count, 2, 1, 1, generator=generator) * torch.tensor((height, width))[:, None, None]
    radius = 0.15 * min(height, width) * torch.rand(count, 1, 1, generator=generator) * _chosen(share, count, generator)[:, None, None]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return ((rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2 >= radius**2).float()[:, None]
