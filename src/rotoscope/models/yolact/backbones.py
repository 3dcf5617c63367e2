"""The encoders of YOLACT: maps of a picture at strides 8, 16 and 32."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.yolact.config import YolactConfig
from rotoscope.nn.conv_norm import ConvNorm
from rotoscope.nn.darknet import DarkNet
from rotoscope.nn.deformable import DeformableConv
from rotoscope.nn.efficientnet_lite import LITE0_STAGES, EfficientNetLite
from rotoscope.nn.resnet_bottleneck import EXPANSION, Bottleneck, ConvStyle, bottleneck_stage

RESNET50_STAGES, RESNET101_STAGES = (3, 4, 6, 3), (3, 4, 23, 3)  # He et al., CVPR 2016, table 1


class ResNetBackbone(nn.Module):
    """ResNet with its four stages undilated, some of whose 3x3 convolutions may be deformable (YOLACT++, section 5.2).

    Args:
        blocks: how many in each stage.
        deformable_interval: see `YolactConfig`.
        frozen: the normalisations never change; see `conv_norm.ConvNorm`.
        width: inner channels of the first stage; each further stage doubles it.
    """

    def __init__(self, blocks: tuple[int, ...], *, deformable_interval: int = 0, frozen: bool = False, width: int = 64) -> None:
        super().__init__()
        style = ConvStyle(frozen=frozen)
        self.stem = ConvNorm(3, width, 7, stride=2, frozen=frozen)
        outputs = [width * EXPANSION * 2**stage for stage in range(len(blocks))]
        self.stages = nn.ModuleList()
        for stage, (number, inputs) in enumerate(zip(blocks, (width, *outputs), strict=False)):
            made = bottleneck_stage(number, inputs, width * 2**stage, stride=1 if stage == 0 else 2, style=style)
            if deformable_interval and stage > 0:  # the first stage never is: official code
                for block in list(made)[::deformable_interval]:
                    _deform(block)
            self.stages.append(made)
        self.channels = tuple(outputs[1:])

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps C3, C4 and C5."""
        x = F.max_pool2d(F.relu(self.stem(image), inplace=True), 3, 2, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[1:])


class DarkNetBackbone(DarkNet):
    """DarkNet-53; its two finest maps are not handed on."""

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__(frozen=frozen)
        self.channels = self.channels[2:]

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps C3, C4 and C5."""
        return super().forward(image)[2:]


class LiteBackbone(nn.Module):
    """EfficientNet-Lite0 with 40, 112 and 320 channels at strides 8, 16 and 32.

    It has no batch normalisations: they are inside the convolutions from the start, as in the ImageNet weights that ship.
    """

    channels = (40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.layers = EfficientNetLite(LITE0_STAGES, folded=True, padding="centred")  # cells must lie where the priors are
        for part in self.layers.modules():
            if isinstance(part, nn.Conv2d):  # without normalisations torch's own start fades from layer to layer
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)  # type: ignore[arg-type] # it has one

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps C3, C4 and C5."""
        features = self.layers(image)
        return features[8], features[16], features[32]


Backbone = ResNetBackbone | DarkNetBackbone | LiteBackbone


def backbone_of(config: YolactConfig, *, frozen: bool = False) -> Backbone:
    """The encoder of a configuration, with random weights.

    Args:
        config: see there.
        frozen: the normalisations never change; see `conv_norm.ConvNorm`.
    """
    match config.backbone:
        case "resnet50":
            return ResNetBackbone(RESNET50_STAGES, deformable_interval=config.deformable_interval, frozen=frozen)
        case "resnet101":
            return ResNetBackbone(RESNET101_STAGES, deformable_interval=config.deformable_interval, frozen=frozen)
        case "darknet53":
            return DarkNetBackbone(frozen=frozen)
        case "efficientnet-lite0":
            return LiteBackbone()


def _deform(block: nn.Module) -> None:
    """Make the 3x3 convolution of a block deformable; it then has a bias in front of its normalisation (official code)."""
    assert isinstance(block, Bottleneck)
    old = block.spatial.conv
    block.spatial.conv = DeformableConv(old.in_channels, old.out_channels, stride=old.stride[0])
