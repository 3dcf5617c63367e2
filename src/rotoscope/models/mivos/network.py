"""MiVOS's propagation network: what a frame is, what it adds to the memory of an object, and how a mask is drawn from what the memory says."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.checkpoints import RenameRules
from rotoscope.nn.conv_norm import fold_frozen_norms
from rotoscope.nn.resnet_bottleneck import RESNET50_BLOCKS, ConvStyle, ResNet, resnet_rules
from rotoscope.nn.winograd import tile_convolutions
from rotoscope.ops.affinity import KeyValue

STRIDE = 16
KEY_CHANNELS, VALUE_CHANNELS = 128, 512  # MiVOS, section 3.2.1
_QUARTER, _EIGHTH, _SIXTEENTH = 256, 512, 1024  # channels of ResNet-50 at strides 4, 8 and 16


class Picture(NamedTuple):
    """What is to know of a frame, whoever is in it: computed once, for all objects and all passes.

    Attributes:
        key: by which its cells are compared with those of the memory.
        entry: the part of the decoder's first block that comes from the frame, for its two convolutions one after the other.
        eighth: the part of the decoder at stride 8 that comes from the frame.
        quarter: the same at stride 4.
    """

    key: Float[Tensor, "q c"]
    entry: Float[Tensor, "1 _ h w"]
    eighth: Float[Tensor, "1 _ h2 w2"]
    quarter: Float[Tensor, "1 _ h4 w4"]


class KeyValueHead(nn.Module):
    """Keys and values of the cells of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.key = _conv3(_SIXTEENTH, KEY_CHANNELS)
        self.value = _conv3(_SIXTEENTH, VALUE_CHANNELS)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, added to the input; a third one brings the input to another number of channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _conv3(inputs, outputs)
        self.second = _conv3(outputs, outputs)
        self.shortcut = nn.Identity() if inputs == outputs else _conv3(inputs, outputs)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The unit's output, which may be negative."""
        inner = self.second(F.relu(self.first(F.relu(x)), inplace=True))
        added: Tensor = self.shortcut(x)
        return inner.add_(added)  # type: ignore[no-any-return] # in place: a large map costs more to allocate than to add


class SplitUnit(ResidualUnit):
    """A residual unit whose input comes in two halves, the second of which is the same for all objects: it is convolved once."""

    def shared(self, second: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 d h w"]:
        """What the second half adds to the first convolution and to the shortcut, one after the other."""
        half = second.shape[1]
        parts = [F.conv2d(x, conv.weight[:, -half:], conv.bias, padding=1) for x, conv in ((F.relu(second), self.first), (second, self._enlarge))]
        return torch.cat(parts, dim=1)

    def join(self, first: Float[Tensor, "n c h w"], shared: Float[Tensor, "1 d h w"]) -> Float[Tensor, "n d2 h w"]:
        """The unit's output for the first half and what `shared` gave of the second."""
        half = first.shape[1]
        inner, shortcut = shared.chunk(2, dim=1)
        inner = F.conv2d(F.relu(first), self.first.weight[:, :half], padding=1) + inner
        shortcut = F.conv2d(first, self._enlarge.weight[:, :half], padding=1) + shortcut
        result: Tensor = self.second(F.relu(inner, inplace=True))
        return result.add_(shortcut)

    @property
    def _enlarge(self) -> nn.Conv2d:
        assert isinstance(self.shortcut, nn.Conv2d), "the halves together are more than the output"
        return self.shortcut


class Refinement(nn.Module):
    """One step up in the decoder: the coarse map, doubled in size, joins the frame's own map.

    Args:
        skip: channels of the frame's map.
        inputs: channels of the coarse map.
        outputs: channels that go out.
    """

    def __init__(self, skip: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter = _conv3(skip, inputs)
        self.skip = ResidualUnit(inputs, inputs)
        self.leave = ResidualUnit(inputs, outputs)

    def of_frame(self, skip: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 d h w"]:
        """What the frame's map contributes."""
        result: Tensor = self.skip(self.enter(skip))
        return result

    def forward(self, frame: Float[Tensor, "1 d h w"], coarse: Float[Tensor, "n d h2 w2"]) -> Float[Tensor, "n e h w"]:
        """The finer map; `frame` is what `of_frame` gave."""
        result: Tensor = self.leave(enlarged(coarse, 2) + frame)
        return result


class Decoder(nn.Module):
    """From what the memory says of an object to its logits."""

    def __init__(self) -> None:
        super().__init__()
        self.compress = SplitUnit(2 * VALUE_CHANNELS, 512)
        self.to_eighth = Refinement(_EIGHTH, 512, 256)
        self.to_quarter = Refinement(_QUARTER, 256, 256)
        self.classify = _conv3(256, 1)

    def forward(self, readout: Float[Tensor, "n c h w"], picture: Picture) -> Float[Tensor, "n 1 h16 w16"]:
        """Logits at the size of the frame."""
        x = self.compress.join(readout, picture.entry)
        x = self.to_quarter(picture.quarter, self.to_eighth(picture.eighth, x))
        return enlarged(self.classify(F.relu(x, inplace=True)), 4)


class PropagationNetwork(nn.Module):
    """The whole of it; it keeps nothing between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.query_encoder = ResNet(RESNET50_BLOCKS, style=ConvStyle(frozen=False))
        self.query_head = KeyValueHead()
        self.memory_encoder = ResNet(RESNET50_BLOCKS, inputs=5, style=ConvStyle(bias=True, frozen=False))
        self.memory_head = KeyValueHead()
        self.decoder = Decoder()

    def see(self, image: Float[Tensor, "1 3 h w"]) -> Picture:
        """A normalised image whose sides are multiples of 16, made ready for reading the memory."""
        quarter, eighth, sixteenth, _ = self.query_encoder(image)
        key, value = self.query_head.key(sixteenth), self.query_head.value(sixteenth)
        decoder = self.decoder
        return Picture(_cells(key)[0], decoder.compress.shared(value), decoder.to_eighth.of_frame(eighth), decoder.to_quarter.of_frame(quarter))

    def memorise(self, image: Float[Tensor, "1 3 h w"], masks: Float[Tensor, "n h w"], others: Float[Tensor, "n h w"]) -> list[KeyValue]:
        """What the frame adds to the memory of each object, from its probabilities and the sum of those of the other objects."""
        pictures = image.expand(len(masks), -1, -1, -1)
        maps = torch.cat((pictures, masks[:, None], others[:, None]), dim=1).contiguous(memory_format=torch.channels_last)
        features = self.memory_encoder(maps)[2]
        keys, values = _cells(self.memory_head.key(features)), _cells(self.memory_head.value(features))
        return [KeyValue(key, value) for key, value in zip(keys, values, strict=True)]

    def segment(self, picture: Picture, readouts: Float[Tensor, "n q c"]) -> Float[Tensor, "n h w"]:
        """The probability of each object alone, from what its memory says at each cell of the frame."""
        height, width = picture.entry.shape[2:]
        maps = readouts.view(len(readouts), height, width, -1).permute(0, 3, 1, 2)  # channels last in memory
        result: Tensor = self.decoder(maps, picture)[:, 0].sigmoid()
        return result

    def fold(self) -> None:
        """Put the normalisations into the convolutions, in place, for inference."""
        fold_frozen_norms(self)

    def tile(self) -> None:
        """Let the larger 3x3 convolutions work by tiles, in place, for inference on the CPU; `fold` comes first."""
        decoder = self.decoder
        for part in (self.query_encoder, self.query_head, self.memory_encoder, self.memory_head, decoder.to_eighth, decoder.to_quarter):
            tile_convolutions(part)


def sum_of_others(masks: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """For each object the sum of the other objects' probabilities; it may exceed 1."""
    return masks.sum(dim=0, keepdim=True) - masks if len(masks) > 1 else torch.zeros_like(masks)


def enlarged(maps: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    """The maps so many times as large, by linear interpolation between the centres of cells."""
    return F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _cells(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n m c"]:
    """Maps as rows of cells."""
    return maps.flatten(2).transpose(1, 2).contiguous()


def _unit_rules(official: str, ours: str) -> RenameRules:
    parts = (("conv1", "first"), ("conv2", "second"), ("downsample", "shortcut"))
    return tuple((rf"decoder\.{official}\.{theirs}\.(\w+)", rf"decoder.{ours}.{name}.\1") for theirs, name in parts)


def _refinement_rules(official: str, ours: str) -> RenameRules:
    return (
        (rf"decoder\.{official}\.skip_conv1\.(\w+)", rf"decoder.{ours}.enter.\1"),
        *_unit_rules(rf"{official}\.skip_conv2", f"{ours}.skip"),
        *_unit_rules(rf"{official}\.out_conv", f"{ours}.leave"),
    )


OFFICIAL_NAMES: RenameRules = (
    *resnet_rules("rgb_encoder.", "query_encoder.", first_stage="res2"),
    *resnet_rules("mask_rgb_encoder.", "memory_encoder."),
    (r"kv_q_f16\.key_proj\.(\w+)", r"query_head.key.\1"),
    (r"kv_q_f16\.val_proj\.(\w+)", r"query_head.value.\1"),
    (r"kv_m_f16\.key_proj\.(\w+)", r"memory_head.key.\1"),
    (r"kv_m_f16\.val_proj\.(\w+)", r"memory_head.value.\1"),
    *_unit_rules("compress", "compress"),
    *_refinement_rules("up_16_8", "to_eighth"),
    *_refinement_rules("up_8_4", "to_quarter"),
    (r"decoder\.pred\.(\w+)", r"decoder.classify.\1"),
)
"""From the official keys to ours; each official key is consumed exactly once."""
