"""EfficientNet-Lite0 as an encoder: inverted residual blocks without squeeze-and-excitation, ReLU6 throughout.

Layer table and batch-norm constants: Tan and Le, "EfficientNet", ICML 2019, table 1, in the "lite" form of the TensorFlow TPU models
repository (official/efficientnet/lite). The arithmetic equals that of the PyTorch port `efficientnet-lite-pytorch` 0.1.0; the classifier is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rotoscope.ops.depthwise import depthwise_conv2d

Padding = Literal["same", "centred"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of one width: the first of them has the stride, all have the kernel and the expansion."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
LITE0_STAGES = (  # EfficientNet-B0's table; the lite form keeps it
    Stage(blocks=1, kernel=3, stride=1, expansion=1, channels=16),
    Stage(blocks=2, kernel=3, stride=2, expansion=6, channels=24),
    Stage(blocks=2, kernel=5, stride=2, expansion=6, channels=40),
    Stage(blocks=3, kernel=3, stride=2, expansion=6, channels=80),
    Stage(blocks=3, kernel=5, stride=1, expansion=6, channels=112),
    Stage(blocks=4, kernel=5, stride=2, expansion=6, channels=192),
    Stage(blocks=1, kernel=3, stride=1, expansion=6, channels=320),
)


class PaddedConv(nn.Module):
    """A convolution whose output is ceil(input / stride) cells long, with its batch normalisation (or, folded, with a bias instead).

    An uneven padding has its larger half after the map, as TensorFlow's "same" has it, or with `lean_before` in front of it.
    """

    def __init__(  # noqa: PLR0913 - a network constructor
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        folded: bool = False,
        lean_before: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, dilation=dilation, groups=groups, bias=folded)
        # eps 1e-3 and momentum 0.99 (0.01 in PyTorch's sense): the TensorFlow release
        self.norm: nn.Module = nn.Identity() if folded else nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.lean_before = lean_before
        if stride == 1:
            self.conv.padding = (dilation * (kernel // 2),) * 2  # even on both sides: the convolution does it by itself
        self._is_plain_depthwise = 1 < groups == inputs == outputs and dilation == 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The convolved and normalised map."""
        if self.conv.stride[0] > 1:
            x = F.pad(x, [*self._padding(x.shape[3]), *self._padding(x.shape[2])])
        result: Tensor = self.norm(self._convolved(x))
        return result

    def _convolved(self, x: Tensor) -> Tensor:
        conv = self.conv
        if not self._is_plain_depthwise:
            return conv(x)  # type: ignore[no-any-return] # modules are untyped
        return depthwise_conv2d(x, conv.weight, conv.bias, stride=conv.stride[0], padding=int(conv.padding[0]))

    def _padding(self, length: int) -> tuple[int, int]:
        stride, reach = self.conv.stride[0], self.conv.dilation[0] * (self.conv.kernel_size[0] - 1)
        total = max((-(-length // stride) - 1) * stride + reach + 1 - length, 0)
        before = (total + 1) // 2 if self.lean_before else total // 2
        return before, total - before


class InvertedResidual(nn.Module):
    """Widen with a 1x1 convolution, filter each channel by itself, narrow again; the input is added where the shapes agree."""

    def __init__(self, inputs: int, stage: Stage, *, stride: int, dilation: int = 1, folded: bool = False, lean_before: bool = False) -> None:
        super().__init__()
        width = inputs * stage.expansion
        self.expand = PaddedConv(inputs, width, 1, folded=folded) if stage.expansion > 1 else None
        self.depthwise = PaddedConv(
            width, width, stage.kernel, stride=stride, dilation=dilation, groups=width, folded=folded, lean_before=lean_before
        )
        self.project = PaddedConv(width, stage.channels, 1, folded=folded)
        self.is_residual = stride == 1 and inputs == stage.channels

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The block's output; no activation at the end."""
        wide = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        narrow: Tensor = self.project(F.relu6(self.depthwise(wide), inplace=True))
        return narrow + x if self.is_residual else narrow


class EfficientNetLite(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32, as far as the stages go.

    Args:
        stages: the layer table, or its beginning.
        output_stride: the coarsest grid; stages beyond it keep that grid and dilate their kernels instead of striding.
        folded: convolutions with biases in place of batch normalisation; see `fold`.
        padding: "same" pads as TensorFlow does, which puts cell i of stride s on pixel s*i + s - 1. "centred" lets the strided layers
            lean to alternating sides: the weights do the same work, but cells lie within 1.5 pixels (strides 2 to 8) of the
            middle of the pixels they stand for, so that maps of different strides and of labels can be laid over each other.
        inputs: channels of the image, the colours first.
    """

    def __init__(
        self, stages: tuple[Stage, ...] = LITE0_STAGES, *, output_stride: int = 32, folded: bool = False, padding: Padding = "same", inputs: int = 3
    ) -> None:
        super().__init__()
        self.stem = PaddedConv(inputs, STEM_CHANNELS, 3, stride=2, folded=folded)
        blocks: list[InvertedResidual] = []
        taps: dict[int, int] = {}
        channels, stride, dilation = STEM_CHANNELS, 2, 1
        for stage in stages:
            next_dilation = dilation
            for position in range(stage.blocks):
                step = stage.stride if position == 0 else 1
                lean = padding == "centred" and stride in (2, 8)
                stride *= step
                if stride > output_stride and step > 1:
                    step, next_dilation = 1, dilation * step
                blocks.append(InvertedResidual(channels, stage, stride=step, dilation=dilation, folded=folded, lean_before=lean))
                channels, dilation = stage.channels, next_dilation
            taps[stride] = len(blocks) - 1
        self.blocks = nn.ModuleList(blocks)
        self._taps = {index: stride for stride, index in taps.items()}

    def forward(self, image: Float[Tensor, "b c h w"], added: Float[Tensor, "b 32 h2 w2"] | None = None) -> dict[int, Float[Tensor, "b _ _ _"]]:
        """The last features of each stride (ceil(h / stride) cells high), from an image made by `normalise`.

        The keys are the strides of the layer table; those above `output_stride` have the grid of `output_stride`. What is `added` to the stem's map
        before its activation speaks of more than colours.
        """
        x = self.stem(image)
        x = F.relu6(x if added is None else x + added, inplace=True)
        features: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._taps:
                features[self._taps[index]] = x
        return features


def normalise(image: UInt8[Tensor, "*b 3 h w"] | Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """RGB in 0..255 as EfficientNet-Lite wants it: about -1..1 (mean 127, deviation 128: the lite release, for all channels)."""
    return (image.to(torch.get_default_dtype() if image.dtype == torch.uint8 else image.dtype) - 127) / 128


def fold(encoder: EfficientNetLite, into: Callable[[], EfficientNetLite]) -> EfficientNetLite:
    """The same function with the batch normalisations (in their evaluation form) multiplied into the convolutions.

    Args:
        encoder: the network with batch normalisation; it is left as it is.
        into: makes a folded network of the same stages.
    """
    folded = into()
    targets = dict(folded.named_modules())
    for name, module in encoder.named_modules():
        if isinstance(module, PaddedConv) and isinstance(module.norm, nn.BatchNorm2d):
            _fold_one(module.conv, module.norm, targets[name].conv)
    return folded.eval()


@torch.no_grad()
def _fold_one(conv: nn.Conv2d, norm: nn.BatchNorm2d, target: nn.Conv2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert target.bias is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    target.weight.copy_(conv.weight * scale[:, None, None, None])
    target.bias.copy_(norm.bias - norm.running_mean * scale)
