"""The networks of YOLACT and YOLACT++, and of `yolact-lite`. They keep no state between calls.

Bolya, Zhou, Xiao and Lee, "YOLACT: Real-time Instance Segmentation", ICCV 2019, and "YOLACT++: Better Real-time Instance Segmentation", TPAMI 2020.
Compared with the official repository dbolya/yolact. Reproduced exactly: all networks of released weights, raw outputs, priors.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.models.yolact.backbones import LiteBackbone, backbone_of
from rotoscope.models.yolact.config import YolactConfig
from rotoscope.models.yolact.heads import PredictionHead, PrototypeNetwork
from rotoscope.models.yolact.mask_iou import MaskIouNetwork
from rotoscope.models.yolact.naming import IMAGENET_NAMES
from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.models.yolact.priors import priors_of
from rotoscope.models.yolact.pyramid import Pyramid
from rotoscope.nn.conv_norm import fold_frozen_norms
from rotoscope.nn.winograd import WinogradConv


class YolactNetwork(nn.Module):
    """Encoder, pyramid, prototypes and predictions.

    As it is made it can be trained; `prepare` makes it fast.

    Args:
        config: see there.
        frozen_norms: the encoder's batch normalisations never change, as officially in batches of fewer than six; otherwise they learn in `train()`.
    """

    def __init__(self, config: YolactConfig, *, frozen_norms: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone_of(config, frozen=frozen_norms)
        self.pyramid = Pyramid(self.backbone.channels, config.width, separable=config.separable)
        self.prototypes = PrototypeNetwork(config.width, config.width, config.num_prototypes, separable=config.separable)
        self.head = PredictionHead(config.width, config.priors_per_cell, 1 + config.num_classes, config.num_prototypes)
        self.semantic = nn.Conv2d(config.width, config.num_classes, 1)
        self.mask_iou = MaskIouNetwork(config.num_classes) if config.mask_iou else None

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> RawOutputs:
        """What the network says of pictures of any size; semantic logits in training mode only.

        Args:
            images: RGB, less `config.pixel_mean`, over `config.pixel_std`.
        """
        levels = self.pyramid(self.backbone(images))
        offsets, class_logits, coefficients = self.head(levels)
        return RawOutputs(
            offsets=offsets,
            class_logits=class_logits,
            coefficients=coefficients,
            prototypes=self.prototypes(levels[0]),
            priors=priors_of(self.config, [(level.shape[2], level.shape[3]) for level in levels]).to(images),
            semantic_logits=self.semantic(levels[0]) if self.training else None,
        )

    def prepare(self) -> "YolactNetwork":
        """Itself, made ready for inference in place: the same outputs to rounding, in less time; it can no longer be trained or saved.

        Normalisations go into their convolutions, the predictions of a cell become one convolution, and on a CPU wide 3x3 convolutions work by
        tiles. To be called once, after loading, on the device of the inference.
        """
        self.eval().requires_grad_(requires_grad=False)
        fold_frozen_norms(self)
        self.head.join()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
        if self.semantic.weight.device.type == "cpu":
            for part in self.modules():
                if isinstance(part, WinogradConv):
                    part.prepare()
        return self


def fresh_network(
    config: YolactConfig, seed: int, *, backbone: Checkpoint | None = None, foreground_prior: float | None = None, frozen_norms: bool = False
) -> YolactNetwork:
    """A network at the start of its training: the encoder from ImageNet weights where they are given, the rest random; the same for the same seed.

    Convolutions outside the encoder are Xavier-uniform with zero biases (official code).

    Args:
        config: see there.
        seed: of the random numbers.
        backbone: for ResNets and DarkNet the official starts, or torchvision's files; for EfficientNet-Lite0 its first stages as they ship, or more.
        foreground_prior: with a focal loss, the probability of all classes together at the start (0.01: RetinaNet, ICCV 2017, section 4.1).
        frozen_norms: see `YolactNetwork`.

    Raises:
        CheckpointError: the encoder's weights do not fit.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = YolactNetwork(config, frozen_norms=frozen_norms)
        for name, part in network.named_modules():
            if isinstance(part, nn.Conv2d) and not name.startswith("backbone."):
                (nn.init.xavier_uniform_ if part.groups == 1 else nn.init.kaiming_normal_)(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
    if foreground_prior is not None:
        network.head.expect(foreground_prior)
    if backbone is not None:
        _load_backbone(network, backbone)
    return network


def _load_backbone(network: YolactNetwork, checkpoint: Checkpoint) -> None:
    """Fill the encoder; what deformable convolutions and later stages add to the checkpoint stays as it was made."""
    encoder = network.backbone.layers if isinstance(network.backbone, LiteBackbone) else network.backbone
    given = rename(checkpoint, IMAGENET_NAMES)
    made = encoder.state_dict()
    added = [name for name in made if ".taps." in name or name.endswith("spatial.conv.bias")]
    if isinstance(network.backbone, LiteBackbone):
        added += [name for name in made if name.startswith("blocks.") and name not in given.tensors]
    load_strictly(encoder, replace(given, tensors={name: made[name] for name in added} | given.tensors))
