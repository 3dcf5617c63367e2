"""The decoder: global convolution over the target and the reference, then refinement up to a quarter of the frame (RGMP, section 3.1).

No normalisation anywhere (official code).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.nn.winograd import WinogradConv

_KERNEL = 7  # RGMP, section 3.1
_CLASSES = 2  # background and object


class _Branch(nn.Module):
    """Two long, thin convolutions, one after the other; the first one's channels are the target's, then the reference's."""

    def __init__(self, inputs: int, outputs: int, *, upright: bool) -> None:
        super().__init__()
        self._padding = (_KERNEL // 2, 0) if upright else (0, _KERNEL // 2)
        shape = (_KERNEL, 1) if upright else (1, _KERNEL)
        self.enter = nn.Conv2d(2 * inputs, outputs, shape, padding=self._padding)
        self.leave = nn.Conv2d(outputs, outputs, shape[::-1], padding=self._padding[::-1])

    def of_target(self, target: Tensor) -> Tensor:
        """The target's share of what `enter` gives: that of the reference is added before `leave`."""
        return F.conv2d(target, self.enter.weight[:, : target.shape[1]], padding=self._padding)

    def of_reference(self, reference: Tensor) -> Tensor:
        """The share of the reference, and the bias."""
        return F.conv2d(reference, self.enter.weight[:, reference.shape[1] :], self.enter.bias, padding=self._padding)


class GlobalConvolution(nn.Module):
    """Two crossed pairs of 7x1 and 1x7 convolutions over target and reference, added; no activation (Peng et al., CVPR 2017).

    It is linear, so the reference's share is computed once and added to every frame's: `relate` is half of the work.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.upright_first = _Branch(inputs, outputs, upright=True)
        self.flat_first = _Branch(inputs, outputs, upright=False)

    def relate(self, reference: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """What the reference adds to the output, with all biases."""
        shares: list[Tensor] = [branch.leave(branch.of_reference(reference)) for branch in (self.upright_first, self.flat_first)]
        return shares[0] + shares[1]

    def forward(self, target: Float[Tensor, "n c h w"], related: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """The output for a target, from what `relate` gave for the reference."""
        for branch in (self.upright_first, self.flat_first):
            related = related + F.conv2d(branch.of_target(target), branch.leave.weight, padding=branch.leave.padding)
        return related


class Residual(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), 3x3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = WinogradConv(width, width)
        self.second = WinogradConv(width, width)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The block's output; no activation at the end."""
        result: Tensor = self.second(self.first(x, rectify=True), rectify=True, added=x)
        return result


class Refinement(nn.Module):
    """A finer map of the encoder joined with the coarser result."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.enter = WinogradConv(inputs, width)
        self.skip = Residual(width)
        self.merge = Residual(width)

    def forward(self, finer: Float[Tensor, "n c h w"], coarser: Float[Tensor, "n d h2 w2"], *, align_corners: bool) -> Float[Tensor, "n d h w"]:
        """The result at the size of the finer map."""
        enlarged = F.interpolate(coarser, size=finer.shape[2:], mode="bilinear", align_corners=align_corners)
        joined: Tensor = self.merge(enlarged + self.skip(self.enter(finer)))
        return joined


class RgmpDecoder(nn.Module):
    """From the encoder's maps and the reference to logits of background and object.

    Args:
        channels: of the encoder's maps at strides 4, 8, 16 and 32.
        width: of everything after the global convolution.
        align_corners: how maps are enlarged; True puts the centres of the corner cells on the centres of the corner pixels.
    """

    def __init__(self, channels: Sequence[int], width: int, *, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.relation = GlobalConvolution(channels[3], width)
        self.residual = Residual(width)
        self.refine_16 = Refinement(channels[2], width)
        self.refine_8 = Refinement(channels[1], width)
        self.refine_4 = Refinement(channels[0], width)
        self.head_32 = nn.Conv2d(width, _CLASSES, 3, padding=1)
        self.head_16 = nn.Conv2d(width, _CLASSES, 3, padding=1)
        self.head_8 = nn.Conv2d(width, _CLASSES, 3, padding=1)
        self.head_4 = nn.Conv2d(width, _CLASSES, 3, padding=1)

    def refine(self, maps: Sequence[Float[Tensor, "n _ _ _"]], related: Float[Tensor, "n d h w"]) -> tuple[Float[Tensor, "n d _ _"], ...]:
        """The decoder's maps at strides 32, 16, 8 and 4."""
        quarter, eighth, sixteenth, thirtysecond = maps
        at_32 = self.residual(self.relation(thirtysecond, related))
        at_16 = self.refine_16(sixteenth, at_32, align_corners=self.align_corners)
        at_8 = self.refine_8(eighth, at_16, align_corners=self.align_corners)
        return at_32, at_16, at_8, self.refine_4(quarter, at_8, align_corners=self.align_corners)

    def heads(self, refined: Sequence[Float[Tensor, "n d _ _"]]) -> tuple[Float[Tensor, "n 2 _ _"], ...]:
        """Logits at strides 32, 16, 8 and 4. The first three are in the official weights but take no part in inference."""
        heads = (self.head_32, self.head_16, self.head_8, self.head_4)
        return tuple(head(F.relu(one)) for head, one in zip(heads, refined, strict=True))

    def forward(self, maps: Sequence[Float[Tensor, "n _ _ _"]], related: Float[Tensor, "n d h w"]) -> Float[Tensor, "n 2 h4 w4"]:
        """Logits at stride 4, from the encoder's maps and what `relation.relate` gave for the reference."""
        logits: Tensor = self.head_4(F.relu(self.refine(maps, related)[-1]))
        return logits

    def prepare(self) -> None:
        """Make the 3x3 convolutions ready for inference on the CPU: half the time, four times the weights."""
        for part in self.modules():
            if isinstance(part, WinogradConv):
                part.prepare()
