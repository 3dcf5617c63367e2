"""The networks of AOT and DeAOT: encoder, ID bank, transformer, decoder. They keep no state between calls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from rotoscope.models.aot.config import MAX_OBJECTS, AotConfig, Encoder
from rotoscope.models.aot.gpm import GpmFrame, GpmLayer
from rotoscope.models.aot.lite import LiteEncoder
from rotoscope.models.aot.lstt import LsttFrame, LsttLayer
from rotoscope.models.aot.stored import LayerMemory, Stored
from rotoscope.nn.blocks import CellGroupNorm, cells_to_map, map_to_cells
from rotoscope.nn.fpn import PyramidDecoder
from rotoscope.nn.mobilenet import MobileNetV2
from rotoscope.nn.position import sine_position
from rotoscope.nn.resnest import ResNeSt
from rotoscope.nn.resnet_bottleneck import RESNET101_BLOCKS, ResNet
from rotoscope.nn.swin import SwinTransformer

_CHANNELS = 256
"""Of the embedding (official MODEL_ENCODER_EMBEDDING_DIM)."""

ImageEncoder = LiteEncoder | MobileNetV2 | ResNet | ResNeSt | SwinTransformer

ENCODERS: Mapping[Encoder, Callable[[], ImageEncoder]] = {
    "mobilenet-v2": MobileNetV2,
    "resnet-50": ResNet,
    "resnet-101": lambda: ResNet(RESNET101_BLOCKS),
    "resnest-101": ResNeSt,
    "swin-b": SwinTransformer,
    "efficientnet-lite0": LiteEncoder,
}


class Picture(NamedTuple):
    """What is computed of a frame once, whatever its objects: all groups of objects and the memory update share it.

    Attributes:
        embedding: cells at stride 16.
        adapted: the encoder's maps at strides 4, 8 and 16, as the decoder adds them.
        hw: the grid of the cells.
    """

    embedding: Float[Tensor, "n l c"]
    adapted: tuple[Tensor, Tensor, Tensor]
    hw: tuple[int, int]


Described = LsttFrame | GpmFrame
"""What a layer made of a frame before its masks were known."""


@runtime_checkable
class Layer(Protocol):
    """What AOT's and DeAOT's blocks have in common; `Any` is what the same layer's `describe` gave."""

    def describe(self, x: Tensor, hw: tuple[int, int], position: Tensor) -> tuple[Tensor, Any]:
        """The state so far, and what the memories may keep of the frame."""
        ...

    def store(self, frame: Any, id_embedding: Tensor) -> Stored:
        """What the memories keep once the masks are known."""
        ...

    def read(self, x: Tensor, frame: Any, memory: LayerMemory, hw: tuple[int, int]) -> Tensor:
        """The state after reading the memories."""
        ...


class Pass(NamedTuple):
    """What the transformer made of a frame.

    Attributes:
        outputs: of each layer, normalised.
        described: for each layer, what the memories will keep, but for the masks.
    """

    outputs: tuple[Float[Tensor, "n l c"], ...]
    described: tuple[Described, ...]


class IdBank(nn.Module):
    """An embedding of a label map: every patch of one-hot identities becomes one cell (AOT, section 4.1, as the code has it: patch-wise).

    The background is an identity too. Cells lie on those of the encoder: with `align_corners` patches of 17 around every 16th pixel.
    """

    def __init__(self, channels: int, *, align_corners: bool, normed: bool) -> None:
        super().__init__()
        kernel, padding = (17, 8) if align_corners else (16, 0)  # official MODEL_ALIGN_CORNERS decides both
        self.patches = nn.Conv2d(1 + MAX_OBJECTS, channels, kernel, stride=16, padding=padding)
        self.norm = nn.LayerNorm(channels) if normed else None

    def forward(self, identities: Float[Tensor, "n ids h w"]) -> Float[Tensor, "n l c"]:
        """The embedding of one-hot identities, channel 0 being the background."""
        cells = map_to_cells(self.patches(identities))
        return cells if self.norm is None else self.norm(cells)


class AotNetwork(nn.Module):
    """One network for all variants.

    Args:
        config: which encoder, blocks and alignment.
    """

    def __init__(self, config: AotConfig) -> None:
        super().__init__()
        self.encoder = ENCODERS[config.encoder]()
        quarter, eighth, sixteenth, last = self.encoder.channels
        self.projector = nn.Conv2d(last, _CHANNELS, 1)
        self.id_bank = IdBank(_CHANNELS, align_corners=config.align_corners, normed=config.gated)
        self.gated = config.gated
        self.layers = nn.ModuleList(_layer(config, index) for index in range(config.num_layers))
        if config.gated:
            self.norms = nn.ModuleList([CellGroupNorm(2, 2 * _CHANNELS)])
        else:
            self.norms = nn.ModuleList(nn.LayerNorm(_CHANNELS) for _ in range(config.num_layers))
            self.register_buffer("mask_token", torch.zeros(1, 1, _CHANNELS))  # official checkpoints hold it, and nothing reads it
        width = 2 * _CHANNELS if config.gated else _CHANNELS * (1 + config.num_layers)
        self.decoder = PyramidDecoder(width, 1 + MAX_OBJECTS, (quarter, eighth, sixteenth), width=_CHANNELS, align_corners=config.align_corners)

    def see(self, image: Float[Tensor, "n 3 h w"]) -> Picture:
        """What does not depend on the objects, from a normalised image."""
        return self.picture_of(self.encoder(image))

    def picture_of(self, maps: Sequence[Float[Tensor, "n _ _ _"]]) -> Picture:
        """The same from the encoder's maps: strides 4, 8 and 16, and the last one."""
        *shortcuts, last = maps
        projected = self.projector(last)
        return Picture(map_to_cells(projected), self.decoder.adapt(shortcuts), (projected.shape[2], projected.shape[3]))

    def match(self, picture: Picture, memory: Sequence[LayerMemory]) -> Pass:
        """The frame after reading the memories of every layer."""
        return self._run(picture, memory)

    def match_itself(self, picture: Picture, id_embedding: Float[Tensor, "n l c"]) -> Pass:
        """The frame as a reference: at every layer it reads itself, with its own masks."""
        return self._run(picture, (), id_embedding)

    def store(self, result: Pass, id_embedding: Float[Tensor, "n l c"]) -> tuple[Stored, ...]:
        """What each layer keeps of a frame, once its masks are known."""
        return tuple(layer.store(described, id_embedding) for layer, described in zip(self._blocks, result.described, strict=True))

    def decode(self, picture: Picture, result: Pass) -> Float[Tensor, "n ids h4 w4"]:
        """Logits of all identities at stride 4."""
        cells = result.outputs[-1] if self.gated else torch.cat((picture.embedding, *result.outputs), dim=-1)
        logits: Tensor = self.decoder(cells_to_map(cells, picture.hw), picture.adapted)
        return logits

    @property
    def _blocks(self) -> list[Layer]:
        return [cast("Layer", layer) for layer in self.layers]

    def _run(self, picture: Picture, memory: Sequence[LayerMemory], id_embedding: Tensor | None = None) -> Pass:
        position = sine_position(*picture.hw, _CHANNELS, device=picture.embedding.device, dtype=picture.embedding.dtype)
        x = picture.embedding
        if self.gated:
            x = torch.cat((x, torch.zeros_like(x)), dim=-1)
        states, described = [], []
        for index, layer in enumerate(self._blocks):
            x, frame = layer.describe(x, picture.hw, position)
            if id_embedding is not None:
                itself = layer.store(frame, id_embedding)
                x = layer.read(x, frame, LayerMemory(itself, itself), picture.hw)
            else:
                x = layer.read(x, frame, memory[index], picture.hw)
            states.append(x)
            described.append(frame)
        if self.gated:
            return Pass((self.norms[0](x),), tuple(described))
        return Pass(tuple(norm(state) for norm, state in zip(self.norms, states, strict=True)), tuple(described))


def one_hot_identities(channels: Int64[Tensor, "n h w"]) -> Float[Tensor, "n ids h w"]:
    """Identities as the ID bank reads them; channels above 10 are no identity, not even the background."""
    identities = torch.arange(1 + MAX_OBJECTS, device=channels.device)
    return (channels[:, None] == identities[:, None, None]).float()


def _layer(config: AotConfig, index: int) -> nn.Module:
    return GpmLayer(_CHANNELS, first=index == 0) if config.gated else LsttLayer(_CHANNELS)
