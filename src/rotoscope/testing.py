"""What tests need and users may: weights made from their names alone, and a clip whose masks are known."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from torch import Tensor


def official_weights(keys_file: str | Path, model: str) -> dict[str, Tensor]:
    """Deterministic weights for every key of an official model; the same as those the stored official outputs were made with.

    Args:
        keys_file: a `keys.json`: `models.NAME.KEY` with shape and dtype, `weight_gain`, `overrides` with constants, and
            `constant_buffers` with constants by channel.
        model: which model of the file.
    """
    content = json.loads(Path(keys_file).read_text(encoding="utf-8"))
    gain, overrides = content.get("weight_gain", 1.0), content.get("overrides", {})
    tensors = {key: filled(key, tuple(entry["shape"]), entry["dtype"], gain=gain) for key, entry in content["models"][model].items()}
    tensors |= {key: torch.tensor(values).view(tensors[key].shape) for key, values in content.get("constant_buffers", {}).items() if key in tensors}
    return {key: torch.full_like(tensor, overrides[key]) if key in overrides else tensor for key, tensor in tensors.items()}


def filled(key: str, shape: tuple[int, ...], dtype: str, *, gain: float = 1.0) -> Tensor:
    """The deterministic value of one entry of a state dict: normal numbers from a generator seeded by its name, scaled by its role."""
    if "int" in dtype:
        return torch.zeros(shape, dtype=torch.int64)
    random = np.random.RandomState(zlib.crc32(key.encode("utf-8")))
    if key.endswith("running_mean"):
        value = 0.1 * random.standard_normal(shape)
    elif key.endswith("running_var"):
        value = 1.0 + 0.2 * random.random_sample(shape)
    elif len(shape) >= 2:
        value = random.standard_normal(shape) * np.sqrt(shape[0] / np.prod(shape)) * gain
    elif key.endswith("weight"):
        value = 1.0 + 0.1 * random.standard_normal(shape)
    else:
        value = 0.02 * random.standard_normal(shape)
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def moving_shapes(
    *, num_frames: int, hw: tuple[int, int], num_objects: int, seed: int = 0
) -> tuple[UInt8[Tensor, "t 3 h w"], Int32[Tensor, "t h w"]]:
    """A clip of textured discs that move over a textured background and may cover each other, and its label maps; ids from 1."""
    random = torch.Generator().manual_seed(seed)
    height, width = hw
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = _texture(hw, random, 40, 120).repeat(num_frames, 1, 1, 1)
    labels = torch.zeros((num_frames, height, width), dtype=torch.int32)
    for object_id in range(1, num_objects + 1):
        radius = max(2.0, 0.18 * min(hw) * (1 + 0.3 * float(torch.rand((), generator=random))))
        start = torch.rand(2, generator=random) * torch.tensor([height * 0.6, width * 0.6]) + torch.tensor([height * 0.2, width * 0.2])
        speed = (torch.rand(2, generator=random) - 0.5) * 0.06 * min(hw)
        texture = _texture(hw, random, 120, 250)
        for index in range(num_frames):
            y, x = (start + speed * index).tolist()
            inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
            labels[index][inside] = object_id
            image[index] = torch.where(inside, torch.roll(texture, (round(y), round(x)), dims=(1, 2)), image[index])
    return image, labels


def _texture(hw: tuple[int, int], random: torch.Generator, low: int, high: int) -> UInt8[Tensor, "3 h w"]:
    """Smooth random colours between two levels."""
    coarse = torch.rand((1, 3, hw[0] // 6 + 2, hw[1] // 6 + 2), generator=random)
    smooth = torch.nn.functional.interpolate(coarse, hw, mode="bilinear", align_corners=True)[0]
    return (low + (high - low) * smooth).to(torch.uint8)
