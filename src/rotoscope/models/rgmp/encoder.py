"""Encoders of a picture together with the mask of one object: the same weights see the reference frame and the current one (RGMP, section 3.1)."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.checkpoints import Checkpoint, load_strictly
from rotoscope.nn.conv_norm import FrozenBatchNorm2d, fold_frozen_norms, fold_into
from rotoscope.nn.efficientnet_lite import LITE0_STAGES, EfficientNetLite, normalise
from rotoscope.nn.resnet_bottleneck import EXPANSION, bottleneck_stage
from rotoscope.ops.color import IMAGENET_MEAN, IMAGENET_STD

RESNET50_STAGES = (3, 4, 6, 3)  # He et al., 2016, table 1
_LITE_STAGES = LITE0_STAGES[:5]


class ResNetMaskEncoder(nn.Module):
    """ResNet-50 with a second stem for the mask, whose output is added to the picture's before the normalisation.

    Batch normalisation keeps its stored statistics, also while training.

    Args:
        blocks: how many in each of the four stages.
        width: inner channels of the first stage; each further stage doubles it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: tuple[int, int, int, int] = RESNET50_STAGES, *, width: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[None, :, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[None, :, None, None])
        self.image_stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.mask_stem = nn.Conv2d(1, width, 7, 2, 3)
        self.stem_norm: nn.Module = FrozenBatchNorm2d(width)
        self.channels = tuple(width * EXPANSION * 2**stage for stage in range(4))
        inputs = (width, *self.channels)
        self.stages = nn.ModuleList(
            bottleneck_stage(number, inputs[stage], width * 2**stage, stride=1 if stage == 0 else 2) for stage, number in enumerate(blocks)
        )

    def forward(self, image: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        """The maps at strides 4, 8, 16 and 32.

        Args:
            image: RGB in 0..1; one may serve all masks.
            masks: probabilities of one object each.
        """
        stem = self.mask_stem(masks[:, None]) + self.image_stem((image - self.mean) / self.std)
        x = F.max_pool2d(F.relu(self.stem_norm(stem)), 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def fold(self) -> None:
        """Put the normalisations into the convolutions, in place, for inference; a second call does nothing."""
        fold_frozen_norms(self)
        if isinstance(self.stem_norm, FrozenBatchNorm2d):
            fold_into(self.mask_stem, self.stem_norm)
            scale = self.stem_norm.weight * (self.stem_norm.running_var + self.stem_norm.eps).rsqrt()
            self.image_stem.weight = nn.Parameter(self.image_stem.weight.detach() * scale[:, None, None, None])
            self.stem_norm = nn.Identity()


class LiteMaskEncoder(nn.Module):
    """EfficientNet-Lite0 whose stem has the mask as a fourth channel: strides 4, 8, 16 and 32 with 24, 40, 112 and 192 channels.

    Its first five stages have no batch normalisation, and take the ImageNet weights that ship; a plain convolution makes the last map.
    """

    channels = (24, 40, 112, 192)

    def __init__(self) -> None:
        super().__init__()
        self.layers = EfficientNetLite(_LITE_STAGES, inputs=4, folded=True)
        self.deepest = nn.Conv2d(self.channels[2], self.channels[3], 3, 2, 1)

    def forward(self, image: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n _ _ _"], ...]:
        """The maps at strides 4, 8, 16 and 32; the arguments are those of `ResNetMaskEncoder`."""
        pictures = normalise(image * 255).expand(masks.shape[0], -1, -1, -1)
        features = self.layers(torch.cat((pictures, 2 * masks[:, None] - 1), dim=1))  # the mask in the range of the colours
        return features[4], features[8], features[16], F.relu(self.deepest(features[16]))

    def load_pictures(self, checkpoint: Checkpoint) -> None:
        """Fill the five stages with weights for pictures alone; the mask has no say at first.

        Raises:
            CheckpointError: the weights do not fit.
        """
        stem = checkpoint.tensors["stem.conv.weight"]
        widened = checkpoint.tensors | {"stem.conv.weight": torch.cat((stem, torch.zeros_like(stem[:, :1])), dim=1)}
        load_strictly(self.layers, replace(checkpoint, tensors=widened))

    def fold(self) -> None:
        """Nothing: there are no normalisations."""
