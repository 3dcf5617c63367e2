"""Convolutions with batch normalisation. A frozen one has its statistics from the weights, and they never change, also while training."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with stored statistics only; its four vectors are buffers, so nothing here learns.

    Args:
        channels: of the map.
        eps: added to the variance; 1e-5 in all official AOT encoders.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """(x - mean) / sqrt(variance + eps) * weight + bias, channel by channel."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)


class ConvNorm(nn.Module):
    """A convolution padded to keep the grid (up to its stride), and its batch normalisation; no activation.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: side of the window, odd.
        stride: step of the window.
        dilation: distance of the window's samples; the padding grows with it.
        groups: of channels that see each other.
        bias: whether the convolution has a bias of its own in front of the normalisation.
        frozen: the normalisation never changes; otherwise it is torch's own, whose scale and shift learn, and whose statistics follow in `train()`.
    """

    def __init__(  # noqa: PLR0913 - a constructor of a network part
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, groups, bias=bias)
        self.norm: nn.Module = FrozenBatchNorm2d(outputs) if frozen else nn.BatchNorm2d(outputs)
        self._is_product = False

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """The convolved and normalised map, ceil(h / stride) cells high."""
        if self._is_product:
            return pointwise(x, self.conv)
        result: Tensor = self.norm(self.conv(x))
        return result

    @torch.no_grad()
    def fold(self) -> None:
        """Put the normalisation, with its stored statistics, into the convolution's weight and bias, once; a second call does nothing."""
        norm, conv = self.norm, self.conv
        if not isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d):
            return
        fold_into(conv, norm)
        self.norm = nn.Identity()
        self._is_product = conv.kernel_size == (1, 1) and conv.groups == 1


class Separable(nn.Module):
    """A 3x3 window of each channel by itself, then a mixture of the channels; each is normalised, by statistics that learn, and rectified."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.window = ConvNorm(inputs, inputs, 3, dilation=dilation, groups=inputs, frozen=False)
        self.mix = ConvNorm(inputs, outputs, 1, frozen=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The mixed map, none of it negative."""
        return F.relu(self.mix(F.relu(self.window(x))))


@torch.no_grad()
def fold_into(conv: nn.Conv2d, norm: FrozenBatchNorm2d | nn.BatchNorm2d) -> None:
    """Put a normalisation into the weight and bias of the convolution before it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    before = 0.0 if conv.bias is None else conv.bias.double()
    shift = norm.bias.double() + (before - norm.running_mean.double()) * scale
    dtype, grad = conv.weight.dtype, conv.weight.requires_grad
    conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).to(dtype), requires_grad=grad)
    conv.bias = nn.Parameter(shift.to(dtype), requires_grad=grad)


def pointwise(x: Float[Tensor, "b c h w"], conv: nn.Conv2d) -> Float[Tensor, "b d h2 w2"]:
    """A 1x1 convolution as a matrix product; the result has its channels last in memory.

    On the CPU this is up to twice as fast as torch's convolution, which copies its input for such kernels.
    """
    rows, columns = conv.stride
    cells = x.permute(0, 2, 3, 1)[:, ::rows, ::columns].contiguous()
    return F.linear(cells, conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


def fold_frozen_norms(module: nn.Module) -> None:
    """Fold every `ConvNorm` inside the module, in place: the same outputs to rounding, with fewer passes over the maps.

    To be done after loading, for inference: the state dict then has convolution biases and no normalisations.
    """
    for part in module.modules():
        if isinstance(part, ConvNorm):
            part.fold()


def freeze_parameters(parts: Iterable[nn.Module]) -> None:
    """Take the parameters of some parts out of training."""
    for part in parts:
        part.requires_grad_(requires_grad=False)
