"""Convolutions that predict where they look (Zhu et al., "Deformable ConvNets v2", CVPR 2019, section 3.2)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.ops.deform import deform_conv2d


class DeformableConv(nn.Conv2d):
    """A convolution whose taps are moved and weighted by what another convolution of the same input says; see `ops.deform`.

    The other one begins at zero: no offsets, and half of every tap (the paper: its weights begin at zero too).

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: side of the window, odd.
        stride: step of the window.
        dilation: distance of the taps; the padding grows with it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation)
        self.taps = nn.Conv2d(inputs, 3 * kernel**2, kernel, stride, padding, dilation)
        nn.init.zeros_(self.taps.weight)
        assert self.taps.bias is not None
        nn.init.zeros_(self.taps.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The convolved map, ceil(h / stride) cells high."""
        num_taps = self.kernel_size[0] * self.kernel_size[1]
        offsets, modulation = self.taps(x).split((2 * num_taps, num_taps), dim=1)
        rows, columns = (int(side) for side in self.padding)
        placing = {"stride": self.stride, "padding": (rows, columns), "dilation": self.dilation}
        return deform_conv2d(x, offsets, torch.sigmoid(modulation), self.weight, self.bias, **placing)  # type: ignore[arg-type] # pairs
