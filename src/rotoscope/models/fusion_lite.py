"""`fusion-lite`: mixes the masks before and after a correction by nearness, as the linear blend does, and departs from it where the picture says so.

Ours, after FusionNet (Cheng, Tai and Tang, MiVOS, CVPR 2021, section 3.3). A network at a quarter of the frame's size says, for each place, how much
nearer or farther it counts, and whether the object is there after all. An untrained one is the linear blend, and wherever both masks agree nothing
can change. It works with trackers that cannot carry changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.errors import MaskError
from rotoscope.models.checkpoints import Checkpoint, RenameRules, load_strictly, rename
from rotoscope.ops.aggregate import join_objects
from rotoscope.ops.color import imagenet_normalised
from rotoscope.types import Frame, Masks

__all__ = ["OFFICIAL_NAMES", "VARIANTS", "BlendFuser", "BlendNetwork", "FusionLiteConfig", "build"]

_INPUTS = 8  # colours, two masks, nearness, two maps of the change
_HALF, _QUARTER = 16, 32  # channels
_DILATIONS = (1, 2, 4)
_REACH = 4.0
"""Log-odds by which nearness may be shifted."""
_EDGE = 1e-4
"""Nearness and probabilities are cut to this distance from 0 and 1 before their log-odds are taken."""


@dataclass(frozen=True, slots=True)
class FusionLiteConfig:
    """How results are fused.

    Attributes:
        pixels_at_once: how many pixels, over all objects, share a pass through the network.
    """

    pixels_at_once: int = 4 * 480 * 864


class DilatedBlock(nn.Module):
    """A window of each channel by itself and a mixture of the channels, added to the input."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.window = nn.Conv2d(_QUARTER, _QUARTER, 3, padding=dilation, dilation=dilation, groups=_QUARTER)
        self.mix = nn.Conv2d(_QUARTER, _QUARTER, 1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The block's output, none of it negative."""
        return F.relu(x + self.mix(F.relu(self.window(x))))


class BlendNetwork(nn.Module):
    """The whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(_INPUTS, _HALF, 3, stride=2, padding=1)
        self.quarter = nn.Conv2d(_HALF, _QUARTER, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(DilatedBlock(dilation) for dilation in _DILATIONS))
        self.leave = nn.Conv2d(_QUARTER, 2, 1)
        nn.init.zeros_(self.leave.weight)  # the linear blend
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type] # it has one

    def forward(
        self, image: Float[Tensor, "n 3 h w"], probs: Float[Tensor, "n 2 h w"], change: Float[Tensor, "n 2 h w"], nearness: Float[Tensor, "n"]
    ) -> Float[Tensor, "n 1 h w"]:
        """Logits of the fused masks.

        Args:
            image: normalised.
            probs: of the object, earlier and newer.
            change: added and taken away by the newer interaction, carried to this frame; zeros where that is not known.
            nearness: to the newer interaction, in 0..1.
        """
        near = torch.logit(nearness, eps=_EDGE)[:, None, None, None]
        planes = (near / 9).expand(-1, 1, *image.shape[2:])
        x = torch.cat((image, probs, change, planes), dim=1).contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.relu(self.quarter(F.relu(self.enter(x)))))
        shift, evidence = F.interpolate(self.leave(x), size=image.shape[2:], mode="bilinear", align_corners=False).chunk(2, dim=1)
        earlier, newer = probs.chunk(2, dim=1)
        share = (near + _REACH * torch.tanh(shift)).sigmoid()
        mixed = torch.logit(torch.lerp(earlier, newer, share), eps=_EDGE)
        return mixed + evidence * (earlier - newer).abs()


class BlendFuser:
    """The network with its weights; see `rotoscope.types.Fuser`."""

    def __init__(self, network: BlendNetwork, config: FusionLiteConfig) -> None:
        self.network = network
        self.config = config

    @torch.inference_mode()
    def fuse(self, frame: Frame, earlier: Masks, newer: Masks, *, nearness: float, change: Float[Tensor, "n 2 h w"] | None = None) -> Masks:
        """The fused masks, over the objects of the newer ones.

        Raises:
            MaskError: the masks have another size than the frame.
        """
        if earlier.hw != newer.hw or newer.hw != frame.hw:
            message = (
                f"frame {frame.index} has {frame.hw} pixels, its earlier masks {earlier.hw} and its newer ones {newer.hw}; resize the masks first"
            )
            raise MaskError(message)
        device = self.network.leave.weight.device
        image = imagenet_normalised(frame.image.to(device))
        probs = torch.stack((earlier.select(newer.object_ids).probs[1:].to(device), newer.probs[1:].to(device)), dim=1)
        fused = probs[:, 1].clone()
        known = [position for position, object_id in enumerate(newer.object_ids) if object_id in earlier.object_ids]
        at_once = max(1, self.config.pixels_at_once // (newer.hw[0] * newer.hw[1]))
        for part in (known[begin : begin + at_once] for begin in range(0, len(known), at_once)):
            changes = torch.zeros_like(probs[part]) if change is None else change[part].to(device)
            logits = self.network(image.expand(len(part), -1, -1, -1), probs[part], changes, torch.full((len(part),), nearness, device=device))
            fused[part] = logits[:, 0].sigmoid()
        return Masks(join_objects(fused), newer.object_ids)


OFFICIAL_NAMES: RenameRules = ()
"""There are no official weights."""

VARIANTS: Mapping[str, FusionLiteConfig] = {"fusion-lite": FusionLiteConfig()}


def build(config: FusionLiteConfig, weights: Checkpoint, device: str) -> BlendFuser:
    """The fuser with weights of ours.

    Raises:
        CheckpointError: the weights are of another model, incomplete, or not finite.
    """
    renamed = rename(weights, OFFICIAL_NAMES)
    network = BlendNetwork()
    load_strictly(network, renamed)
    network.eval().requires_grad_(requires_grad=False)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    return BlendFuser(network, config)
