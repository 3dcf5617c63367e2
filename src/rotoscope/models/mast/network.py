"""MAST's encoder: a ResNet-18 at stride 4 on Lab."""

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rotoscope.nn.resnet import BasicBlock, fold_norms
from rotoscope.ops.color import rgb_to_lab_tabulated

NUM_FEATURES = 64
STRIDE = 4


class MastEncoder(nn.Module):
    """Features of Lab pictures: one map of 64 channels at a quarter of the size, rounded up; not normalised (sheet 2.1).

    Differences from ResNet-18: no max-pooling, strides only in the stem and in layer 2, 256 channels in layer 4, and a 3x3 convolution at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(BasicBlock(64, 64), BasicBlock(64, 64))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2), BasicBlock(128, 128))
        self.layer3 = nn.Sequential(BasicBlock(128, 256), BasicBlock(256, 256))
        self.layer4 = nn.Sequential(BasicBlock(256, 256), BasicBlock(256, 256))
        self.head = nn.Conv2d(256, NUM_FEATURES, 3, 1, 1)

    def forward(self, lab: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 64 h4 w4"]:
        """The features of normalised Lab pictures."""
        result: Tensor = self.head(self.layer4(self.layer3(self.layer2(self.layer1(self.stem(lab))))))
        return result

    def fold(self) -> None:
        """Fold the batch normalisations into the convolutions: the same features, to rounding, in less time. Ends training."""
        self.eval()
        fold_norms(self, {"0": "1", "conv1": "norm1", "conv2": "norm2"})


def normalised_lab(image: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """The network's input: L - 50 over 50, a and b over 127, so about -1..1 (sheet 3.1)."""
    lab = rgb_to_lab_tabulated(image)
    lab[0] = (lab[0] - 50) / 50
    lab[1:] /= 127
    return lab
