"""RGMP: one object at a time, found by where it was a frame ago and by what it looked like in a reference frame.

Paper: Oh, Lee, Sunkavalli and Kim, "Fast Video Object Segmentation by Reference-Guided Mask Propagation", CVPR 2018. Compared with the official
repository seoungwugoh/RGMP at commit 652b6f7. Reproduced exactly: the network with corner-aligned enlargement (PyTorch 0.3.1, for which the weights
were made), padding, the three scales, soft masks, the merged foreground and the odds softmax. Beyond it: objects that appear later, masks given
again, a reference's share of the decoder computed once. `rgmp-lite` is ours: EfficientNet-Lite0 and a decoder of half the width.
Not reproduced: empty objects for gaps in the labels, clips held in memory, the shifted answers of a newer PyTorch (`align_corners=False` gives them).
"""

from collections.abc import Mapping

import torch

from rotoscope.errors import CheckpointError
from rotoscope.models.checkpoints import Checkpoint, RenameRules, load_strictly, rename
from rotoscope.models.rgmp.config import VARIANTS, RgmpConfig
from rotoscope.models.rgmp.network import RgmpNetwork, network_of
from rotoscope.models.rgmp.propagator import RgmpPropagator, RgmpTracker

__all__ = ["OFFICIAL_NAMES", "VARIANTS", "RgmpConfig", "RgmpNetwork", "RgmpPropagator", "RgmpTracker", "build", "network_of"]


def _stage_rules(stage: int) -> RenameRules:
    """The official code counts stages from 2, as the paper of ResNet does."""
    official, ours = rf"Encoder\.res{stage + 2}\.(\d+)\.", rf"encoder.stages.{stage}.\1."
    parts = {"1": "reduce", "2": "spatial", "3": "expand"}
    rules = [(rf"{official}conv{number}\.weight", rf"{ours}{name}.conv.weight") for number, name in parts.items()]
    rules += [(rf"{official}bn{number}\.(\w+)", rf"{ours}{name}.norm.\2") for number, name in parts.items()]
    return [
        *rules,
        (official + r"downsample\.0\.weight", ours + "shortcut.conv.weight"),
        (official + r"downsample\.1\.(\w+)", ours + r"shortcut.norm.\2"),
    ]


_BRANCHES: Mapping[str, str] = {"l": "upright_first", "r": "flat_first"}
_STRIDES: Mapping[int, int] = {5: 32, 4: 16, 3: 8, 2: 4}
OFFICIAL_NAMES: RenameRules = (
    (r"Encoder\.(mean|std)", r"encoder.\1"),
    (r"Encoder\.conv1\.weight", "encoder.image_stem.weight"),
    (r"Encoder\.conv1_p\.(\w+)", r"encoder.mask_stem.\1"),
    (r"Encoder\.bn1\.(\w+)", r"encoder.stem_norm.\1"),
    *(rule for stage in range(4) for rule in _stage_rules(stage)),
    *((rf"Decoder\.GC\.conv_{side}1\.(\w+)", rf"decoder.relation.{branch}.enter.\1") for side, branch in _BRANCHES.items()),
    *((rf"Decoder\.GC\.conv_{side}2\.(\w+)", rf"decoder.relation.{branch}.leave.\1") for side, branch in _BRANCHES.items()),
    (r"Decoder\.convG1\.(\w+)", r"decoder.residual.first.\1"),
    (r"Decoder\.convG2\.(\w+)", r"decoder.residual.second.\1"),
    *((rf"Decoder\.RF{level}\.convFS1\.(\w+)", rf"decoder.refine_{_STRIDES[level]}.enter.\1") for level in (4, 3, 2)),
    *((rf"Decoder\.RF{level}\.convFS2\.(\w+)", rf"decoder.refine_{_STRIDES[level]}.skip.first.\1") for level in (4, 3, 2)),
    *((rf"Decoder\.RF{level}\.convFS3\.(\w+)", rf"decoder.refine_{_STRIDES[level]}.skip.second.\1") for level in (4, 3, 2)),
    *((rf"Decoder\.RF{level}\.convMM1\.(\w+)", rf"decoder.refine_{_STRIDES[level]}.merge.first.\1") for level in (4, 3, 2)),
    *((rf"Decoder\.RF{level}\.convMM2\.(\w+)", rf"decoder.refine_{_STRIDES[level]}.merge.second.\1") for level in (4, 3, 2)),
    *((rf"Decoder\.pred{level}\.(\w+)", rf"decoder.head_{stride}.\1") for level, stride in _STRIDES.items()),
)
"""From the official keys to ours; the same for the third-party trainer's files, which hold them under "model"."""


def build(config: RgmpConfig, checkpoint: Checkpoint, device: str) -> RgmpTracker:
    """The tracker with the weights of a checkpoint.

    Raises:
        CheckpointError: the weights are of another model, incomplete, or not finite.
    """
    if not any(key.startswith(("Decoder.GC.", "decoder.relation.")) for key in checkpoint.tensors):
        message = f"{checkpoint.path} holds no weights of RGMP: it has no entries named 'Decoder.GC.…' (official) or 'decoder.relation.…' (ours)"
        raise CheckpointError(message)
    renamed = rename(checkpoint, OFFICIAL_NAMES)
    with torch.device("meta"):  # 52 million random numbers would be drawn only to be replaced
        network = network_of(config)
    network.to_empty(device="cpu")
    load_strictly(network, renamed)
    network.encoder.fold()
    network.eval().requires_grad_(requires_grad=False)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    if torch.device(device).type == "cpu":
        network.decoder.prepare()
    return RgmpTracker(network, config)
