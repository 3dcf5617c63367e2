"""S2M: scribbles to masks, by DeepLabV3+ on six channels: the colours, the previous mask of an object, what is on it, what is off it.

Paper: Cheng, Tai and Tang, MiVOS, CVPR 2021, section 3.1; Chen et al., DeepLabV3+, ECCV 2018. Compared with: hkchengrex/MiVOS (the network comes
from hkchengrex/Scribble-to-Mask). Reproduced exactly: the network and the joining of objects. Not reproduced unless the current masks come with
the border of the official code: lines drawn on the padded canvas without its offset.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.errors import InputError, MaskError
from rotoscope.models.checkpoints import Checkpoint, RenameRules, load_strictly, rename
from rotoscope.nn.conv_norm import ConvNorm, fold_frozen_norms
from rotoscope.nn.resnet_bottleneck import RESNET50_DILATED_BLOCKS, ConvStyle, ResNet, resnet_rules
from rotoscope.ops.aggregate import join_objects
from rotoscope.ops.color import imagenet_normalised
from rotoscope.ops.scribbles import draw_strokes
from rotoscope.ops.sizing import border_to_multiple
from rotoscope.types import Frame, Interaction, Masks

__all__ = ["OFFICIAL_NAMES", "VARIANTS", "S2mConfig", "S2mMaker", "S2mNetwork", "build"]

_STRIDE = 16
_DILATIONS = (6, 12, 18)  # DeepLabV3+ at output stride 16
_WIDTH = 256  # channels of the head
_LOW_LEVEL = 48  # channels of the stride-4 map beside them


@dataclass(frozen=True, slots=True)
class S2mConfig:
    """How masks are made.

    Attributes:
        hard: each pixel is given almost wholly to one object or the background, as in the official code.
        pixels_at_once: how many pixels, over all objects, share a pass through the network: four objects of 480p.
    """

    hard: bool = True
    pixels_at_once: int = 4 * 480 * 864


class DilatedPyramid(nn.Module):
    """ASPP: the map as it is, through three dilated windows, and as a mean, side by side and joined.

    Args:
        inputs: channels that come in.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.plain = ConvNorm(inputs, _WIDTH, 1, frozen=False)
        self.dilated = nn.ModuleList(ConvNorm(inputs, _WIDTH, 3, dilation=dilation, frozen=False) for dilation in _DILATIONS)
        self.pooled = ConvNorm(inputs, _WIDTH, 1, frozen=False)
        self.join = ConvNorm(5 * _WIDTH, _WIDTH, 1, frozen=False)
        self.dropout = nn.Dropout(0.1)  # Scribble-to-Mask

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The joined map."""
        maps = [F.relu(branch(x)) for branch in (self.plain, *self.dilated)]
        mean = F.relu(self.pooled(x.mean(dim=(2, 3), keepdim=True)))
        joined = F.relu(self.join(torch.cat((*maps, mean.expand(-1, -1, *x.shape[2:])), dim=1)))
        result: Tensor = self.dropout(joined)
        return result


class S2mNetwork(nn.Module):
    """The whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet(RESNET50_DILATED_BLOCKS, inputs=6, style=ConvStyle(frozen=False))
        self.pyramid = DilatedPyramid(self.encoder.channels[3])
        self.low_level = ConvNorm(self.encoder.channels[0], _LOW_LEVEL, 1, frozen=False)
        self.merge = ConvNorm(_LOW_LEVEL + _WIDTH, _WIDTH, 3, frozen=False)
        self.classify = nn.Conv2d(_WIDTH, 1, 1)

    def forward(self, maps: Float[Tensor, "n 6 h w"]) -> Float[Tensor, "n 1 h w"]:
        """Logits at the size of the input, which may be any: normalised colours, previous mask, what is on and what is off the object."""
        quarter, _, _, sixteenth = self.encoder(maps)
        low = F.relu(self.low_level(quarter))
        high = _resized(self.pyramid(sixteenth), low.shape[2:])
        return _resized(self.classify(F.relu(self.merge(torch.cat((low, high), dim=1)))), maps.shape[2:])

    def fold(self) -> None:
        """Put the normalisations into the convolutions, in place, for inference."""
        fold_frozen_norms(self)


def _resized(maps: Float[Tensor, "b c h w"], hw: tuple[int, ...]) -> Float[Tensor, "b c h2 w2"]:
    return F.interpolate(maps, size=hw, mode="bilinear", align_corners=False)


class S2mMaker:
    """Masks from lines and clicks; see `rotoscope.types.MaskMaker`."""

    def __init__(self, network: S2mNetwork, config: S2mConfig) -> None:
        self.network = network
        self.config = config

    @torch.inference_mode()
    def make(self, frame: Frame, interactions: Iterable[Interaction], current: Masks) -> Masks:
        """Masks of the frame over the current objects and those that are new in the interactions.

        All lines since the current masks count together. The current masks may have the border of the official code; points are then pixels of
        that canvas, and so is the result.

        Raises:
            InputError: an interaction of another frame, outside the frame, or of a kind that is neither line nor click.
            MaskError: the current masks have another size than the frame.
        """
        drawn = list(interactions)
        wrong = sorted({interaction.frame_index for interaction in drawn if interaction.frame_index != frame.index})
        if wrong:
            message = f"interactions of frames {wrong} were given with frame {frame.index}; give each with its own frame"
            raise InputError(message)
        border = border_to_multiple(frame.hw, _STRIDE)
        image = border.add(imagenet_normalised(frame.image.to(self._device)))
        if current.hw not in (frame.hw, tuple(image.shape[1:])):
            message = f"the masks of frame {frame.index} have {current.hw} pixels but the frame has {frame.hw}; resize the masks first"
            raise MaskError(message)
        ids = tuple(dict.fromkeys((*current.object_ids, *(interaction.object_id for interaction in drawn))))
        if not ids:
            return current
        maps = torch.cat((Masks.from_labels(current.labels(), ids).probs[1:, None].cpu(), draw_strokes(drawn, ids, current.hw)), dim=1)
        has_border = current.hw != frame.hw
        probs = join_objects(self._alone(image, maps if has_border else border.add(maps)), hard=self.config.hard)
        return Masks(probs if has_border else border.cut(probs), ids)

    @property
    def _device(self) -> torch.device:
        return self.network.classify.weight.device

    def _alone(self, image: Float[Tensor, "3 h w"], maps: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n h w"]:
        """The probability of each object by itself."""
        probs, pixels = [], image.shape[1] * image.shape[2]
        for part in torch.split(maps.to(image), max(1, self.config.pixels_at_once // pixels)):
            inputs = torch.cat((image.expand(len(part), -1, -1, -1), part), dim=1)
            probs.append(self.network(inputs.contiguous(memory_format=torch.channels_last))[:, 0].sigmoid())
        return torch.cat(probs)


_HEAD_PARTS = (
    (r"project\.", "low_level"),
    (r"aspp\.convs\.0\.", "pyramid.plain"),
    (r"aspp\.convs\.1\.", "pyramid.dilated.0"),
    (r"aspp\.convs\.2\.", "pyramid.dilated.1"),
    (r"aspp\.convs\.3\.", "pyramid.dilated.2"),
    (r"aspp\.project\.", "pyramid.join"),
    (r"classifier\.", "merge"),
)

OFFICIAL_NAMES: RenameRules = (
    *resnet_rules("backbone.", "encoder."),
    *((rf"classifier\.{official}0\.weight", f"{ours}.conv.weight") for official, ours in _HEAD_PARTS),
    *((rf"classifier\.{official}1\.(\w+)", rf"{ours}.norm.\1") for official, ours in _HEAD_PARTS),
    (r"classifier\.aspp\.convs\.4\.1\.weight", "pyramid.pooled.conv.weight"),  # 0 is the pooling
    (r"classifier\.aspp\.convs\.4\.2\.(\w+)", r"pyramid.pooled.norm.\1"),
    (r"classifier\.classifier\.3\.(\w+)", r"classify.\1"),
)
"""From the official keys to ours; each official key is consumed exactly once."""

VARIANTS: Mapping[str, S2mConfig] = {"s2m": S2mConfig()}


def build(config: S2mConfig, weights: Checkpoint, device: str) -> S2mMaker:
    """The maker with official weights, or with ours.

    Raises:
        CheckpointError: the weights are of another model, incomplete, or not finite.
    """
    renamed = rename(weights, OFFICIAL_NAMES)  # before the network is made: what is of another system is refused at once
    network = S2mNetwork()
    load_strictly(network, renamed)
    network.eval().requires_grad_(requires_grad=False).fold()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    return S2mMaker(network, config)
