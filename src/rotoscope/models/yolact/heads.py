"""What reads the pyramid: the prototypes, from its finest level, and the predictions at each cell of all levels (YOLACT, sections 3.1 and 3.2)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.yolact.pyramid import Rectified, window3x3
from rotoscope.nn.winograd import WinogradConv


class PrototypeNetwork(nn.Module):
    """Three 3x3 convolutions, twice the size, one more, and a mixture into the prototypes; all are rectified.

    Args:
        inputs: channels of P3.
        width: of the convolutions.
        num_prototypes: that come out.
        separable: see `YolactConfig`.
    """

    def __init__(self, inputs: int, width: int, num_prototypes: int, *, separable: bool = False) -> None:
        super().__init__()
        self.coarse = nn.Sequential(*(window3x3(channels, width, separable=separable) for channels in (inputs, width, width)))
        self.fine = window3x3(width, width, separable=separable)
        self.mix = nn.Conv2d(width, num_prototypes, 1)

    def forward(self, finest: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k 2*h 2*w"]:
        """The prototypes, none of them negative, from P3."""
        # the official ReLU after the enlargement changes nothing: the map is rectified already
        enlarged = F.interpolate(self.coarse(finest), scale_factor=2, mode="bilinear", align_corners=False)
        return F.relu(self.mix(self.fine(enlarged)), inplace=True)


class PredictionHead(nn.Module):
    """Offsets, classes and coefficients for each prior; the same weights for all levels.

    Args:
        width: channels of the pyramid.
        priors_per_cell: at each place.
        num_classes: with the background.
        num_prototypes: coefficients of each prior.
    """

    def __init__(self, width: int, priors_per_cell: int, num_classes: int, num_prototypes: int) -> None:
        super().__init__()
        self.shared = Rectified(width, width)
        self.offsets = WinogradConv(width, priors_per_cell * 4)
        self.classes = WinogradConv(width, priors_per_cell * num_classes)
        self.coefficients = WinogradConv(width, priors_per_cell * num_prototypes)
        self._priors_per_cell, self._lengths = priors_per_cell, (4, num_classes, num_prototypes)
        self.joint: WinogradConv | None = None

    def forward(self, levels: Sequence[Float[Tensor, "n c _ _"]]) -> tuple[Float[Tensor, "n p _"], ...]:
        """Offsets, class logits and coefficients (after tanh) of all priors: level by level, row by row, cell by cell."""
        predicted = [self._of_level(level) for level in levels]
        offsets, logits, coefficients = (torch.cat(parts, dim=1) for parts in zip(*predicted, strict=True))
        return offsets, logits, torch.tanh(coefficients)

    @torch.no_grad()
    def join(self) -> None:
        """Make one convolution of the three, for inference; a second call does nothing."""
        if self.joint is None:
            parts = (self.offsets, self.classes, self.coefficients)
            joint = WinogradConv(self.shared.out_channels, sum(part.out_channels for part in parts)).to(self.shared.weight)
            joint.weight.copy_(torch.cat([part.weight for part in parts]))
            assert joint.bias is not None
            joint.bias.copy_(torch.cat([part.bias for part in parts if part.bias is not None]))
            self.joint = joint.requires_grad_(requires_grad=False)
            del self.offsets, self.classes, self.coefficients

    @torch.no_grad()
    def expect(self, foreground: float) -> None:
        """Set the biases of the classes so that their probabilities sum to this at first, in equal parts; for training with a focal loss."""
        assert self.classes.bias is not None
        num_classes = self._lengths[1]
        by_prior = self.classes.bias.view(-1, num_classes)
        by_prior[:, 0] = math.log((1 - foreground) / foreground)
        by_prior[:, 1:] = -math.log(num_classes - 1)

    def _of_level(self, level: Tensor) -> list[Tensor]:
        features = self.shared(level)
        maps = [head(features) for head in (self.offsets, self.classes, self.coefficients)] if self.joint is None else self._split(features)
        return [values.permute(0, 2, 3, 1).reshape(values.shape[0], -1, length) for values, length in zip(maps, self._lengths, strict=True)]

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        assert self.joint is not None
        together: Tensor = self.joint(features)
        return torch.split(together, [self._priors_per_cell * length for length in self._lengths], dim=1)
