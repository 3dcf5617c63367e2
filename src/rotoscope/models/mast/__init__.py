"""MAST: a tracker that learns without masks, by rebuilding colours, and copies labels by the same attention.

Paper: Lai, Lu and Xie, "MAST: A Memory-Augmented Self-Supervised Tracker", CVPR 2020. Compared with the official repository zlai0/MAST at commit
a57b043. Reproduced exactly: the encoder, Lab, the windowed read with zero logits outside the frame, the two-step localisation, the memory policies,
label maps at every fourth pixel, the enlargement, and the self-supervised objective. Sampling between cells follows PyTorch 1.1 (corners aligned),
which the authors used. Not reproduced by default: the fault that reads the values of all far references at the last one's offsets
(`one_offset_for_all_values`), and the limit of six objects.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from rotoscope.memory import MemorySchedule
from rotoscope.models.checkpoints import Checkpoint, RenameRules, load_strictly, rename
from rotoscope.models.mast.network import MastEncoder
from rotoscope.models.mast.propagator import FULL_MEMORY, MastConfig, MastPropagator
from rotoscope.types import FeatureStore

__all__ = ["OFFICIAL_NAMES", "REFERENCE_MODES", "VARIANTS", "MastConfig", "MastTracker", "build"]

REFERENCE_MODES: tuple[MemorySchedule, ...] = (
    FULL_MEMORY,
    MemorySchedule(anchors=(0,), recent=(1, 3, 5)),
    MemorySchedule(anchors=(), recent=(1,), given_serve=False),
)
"""The official script's `--ref 0`, `1` and `2`: full memory, without frame 5, the frame before alone."""

_BLOCK = r"feature_extraction\.layer(\d)\.(\d)\."
OFFICIAL_NAMES: RenameRules = (
    (r"feature_extraction\.conv1\.([01])\.(\w+)", r"stem.\1.\2"),
    (_BLOCK + r"left\.0\.(\w+)", r"layer\1.\2.conv1.\3"),
    (_BLOCK + r"left\.1\.(\w+)", r"layer\1.\2.norm1.\3"),
    (_BLOCK + r"left\.3\.(\w+)", r"layer\1.\2.conv2.\3"),
    (_BLOCK + r"left\.4\.(\w+)", r"layer\1.\2.norm2.\3"),
    (_BLOCK + r"shortcut\.([01])\.(\w+)", r"layer\1.\2.shortcut.\3.\4"),
    (r"post_convolution\.(\w+)", r"head.\1"),
)
"""From the official keys to ours; the official attention has no state."""

VARIANTS: Mapping[str, MastConfig] = {"mast": MastConfig()}


class MastTracker:
    """The encoder and the settings; one may serve many clips and threads."""

    def __init__(self, encoder: MastEncoder, config: MastConfig) -> None:
        self.encoder = encoder
        self.config = config

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> MastPropagator:
        """A new pass; with `max_memory_bytes` the remembered features and labels stay within that many bytes; see `Tracker`."""
        return MastPropagator(self.encoder, self.config, max_memory_bytes=max_memory_bytes, features=features)


def build(config: MastConfig, checkpoint: Checkpoint, device: str) -> MastTracker:
    """The tracker with the weights of a checkpoint. Official weights bring the official fault with them.

    Raises:
        CheckpointError: the checkpoint is of another model, or does not fit.
    """
    encoder = MastEncoder()
    load_strictly(encoder, rename(checkpoint, OFFICIAL_NAMES))
    encoder.requires_grad_(requires_grad=False).fold()
    encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    return MastTracker(encoder, replace(config, one_offset_for_all_values=True) if checkpoint.official else config)
