"""FusionNet: joins the masks of an earlier round with those of a newer one, minding what the newer interaction changed and how far away it is.

Paper: Cheng, Tai and Tang, MiVOS, CVPR 2021, section 3.3 (difference-aware fusion). Compared with: hkchengrex/MiVOS. Reproduced exactly: the network,
its inputs, the joining of objects. The network gives the fused probability itself, not a share.
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
from rotoscope.ops.sizing import border_between
from rotoscope.types import Frame, Masks

__all__ = ["OFFICIAL_NAMES", "VARIANTS", "DifferenceAwareFuser", "FusionConfig", "FusionNetwork", "build"]

_WIDTH = 32  # channels, at the full size of the frame


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """How results are fused.

    Attributes:
        pixels_at_once: how many pixels, over all objects, share a pass through the network: one object of 480p. It works at full size, so each
            pixel takes much memory for a while.
    """

    pixels_at_once: int = 480 * 864


class ResidualPair(nn.Module):
    """Two 3x3 convolutions added to the input, and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.second = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The pair's output, none of it negative."""
        return F.relu(x + self.second(F.relu(self.first(x))))


class FusionNetwork(nn.Module):
    """The whole of it: 39,905 parameters at the full size of the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(9, _WIDTH, 3, padding=1)
        self.pairs = nn.Sequential(ResidualPair(), ResidualPair())
        self.classify = nn.Conv2d(_WIDTH, 1, 3, padding=1)

    def forward(
        self,
        image: Float[Tensor, "n 3 h w"],
        probs: Float[Tensor, "n 2 h w"],
        change: Float[Tensor, "n 2 h w"],
        times: Float[Tensor, "n 2"],
    ) -> Float[Tensor, "n 1 h w"]:
        """Logits of the fused masks.

        Args:
            image: normalised.
            probs: of the object, earlier and newer.
            change: added and taken away by the newer interaction, carried to this frame.
            times: nearness to the newer interaction, and to the older one.
        """
        planes = times[:, :, None, None].expand(-1, -1, *image.shape[2:])
        x = torch.cat((image, probs, change, planes), dim=1).contiguous(memory_format=torch.channels_last)
        result: Tensor = self.classify(self.pairs(F.relu(self.enter(x))))
        return result


class DifferenceAwareFuser:
    """FusionNet with its weights; see `rotoscope.types.Fuser`."""

    def __init__(self, network: FusionNetwork, config: FusionConfig) -> None:
        self.network = network
        self.config = config

    @torch.inference_mode()
    def fuse(self, frame: Frame, earlier: Masks, newer: Masks, *, nearness: float, change: Float[Tensor, "n 2 h w"] | None = None) -> Masks:
        """The fused masks, over the objects of the newer ones; both masks may have a border around the frame.

        Raises:
            MaskError: the masks differ in size, or are smaller than the frame.
        """
        if earlier.hw != newer.hw or newer.hw[0] < frame.hw[0] or newer.hw[1] < frame.hw[1]:
            message = (
                f"frame {frame.index} has {frame.hw} pixels, its earlier masks {earlier.hw} and its newer ones {newer.hw}; resize the masks first"
            )
            raise MaskError(message)
        device = self.network.classify.weight.device
        image = border_between(frame.hw, newer.hw).add(imagenet_normalised(frame.image.to(device)))
        probs = torch.stack((earlier.select(newer.object_ids).probs[1:].to(device), newer.probs[1:].to(device)), dim=1)
        fused = probs[:, 1].clone()
        known = [position for position, object_id in enumerate(newer.object_ids) if object_id in earlier.object_ids]
        at_once = max(1, self.config.pixels_at_once // (newer.hw[0] * newer.hw[1]))
        for part in (known[begin : begin + at_once] for begin in range(0, len(known), at_once)):
            changes = torch.zeros_like(probs[part]) if change is None else change[part].to(device)
            times = torch.tensor([[nearness, 1 - nearness]], device=device).expand(len(part), -1)
            logits = self.network(image.expand(len(part), -1, -1, -1), probs[part], changes, times)
            fused[part] = logits[:, 0].sigmoid()
        return Masks(join_objects(fused), newer.object_ids)


OFFICIAL_NAMES: RenameRules = (
    (r"conv1\.0\.(\w+)", r"enter.\1"),
    (r"conv2\.0\.(\w+)", r"pairs.0.first.\1"),
    (r"conv2\.2\.(\w+)", r"pairs.0.second.\1"),
    (r"conv3\.0\.(\w+)", r"pairs.1.first.\1"),
    (r"conv3\.2\.(\w+)", r"pairs.1.second.\1"),
    (r"final_conv\.(\w+)", r"classify.\1"),
)
"""From the official keys to ours; each official key is consumed exactly once."""

VARIANTS: Mapping[str, FusionConfig] = {"fusion": FusionConfig()}


def build(config: FusionConfig, weights: Checkpoint, device: str) -> DifferenceAwareFuser:
    """The fuser with official weights, or with ours.

    Raises:
        CheckpointError: the weights are of another model, incomplete, or not finite.
    """
    network = FusionNetwork()
    load_strictly(network, rename(weights, OFFICIAL_NAMES))
    network.eval().requires_grad_(requires_grad=False)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    return DifferenceAwareFuser(network, config)
