"""`s2m-lite`: clicks, boxes, lines and painted masks made into masks, by a network small enough to answer at once on a laptop.

Ours. EfficientNet-Lite0 (Tan and Le, ICML 2019) sees the colours, and what was said joins it after its first convolution, as in Sofiiuk et al.,
"Reviving iterative training with mask guidance", ICIP 2022; a light DeepLabV3+ (Chen et al., ECCV 2018: dilated pyramid, skip at stride 4) makes the
mask. The network looks at a cut-out around the object rather than at the whole frame (zoom-in: Sofiiuk et al., f-BRS, CVPR 2020, section 4).
"""

from collections.abc import Mapping

import torch

from rotoscope.models.checkpoints import Checkpoint, RenameRules, load_strictly, rename
from rotoscope.models.s2m_lite.maker import S2mLiteConfig, S2mLiteMaker
from rotoscope.models.s2m_lite.network import S2mLiteNetwork

__all__ = ["OFFICIAL_NAMES", "VARIANTS", "S2mLiteConfig", "S2mLiteMaker", "S2mLiteNetwork", "build"]

OFFICIAL_NAMES: RenameRules = ()
"""There are no official weights."""

VARIANTS: Mapping[str, S2mLiteConfig] = {"s2m-lite": S2mLiteConfig()}


def build(config: S2mLiteConfig, weights: Checkpoint, device: str) -> S2mLiteMaker:
    """The maker with weights of ours.

    Raises:
        CheckpointError: the weights are of another model, incomplete, or not finite.
    """
    renamed = rename(weights, OFFICIAL_NAMES)
    network = S2mLiteNetwork()
    load_strictly(network, renamed)
    network.eval().requires_grad_(requires_grad=False).fold()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    return S2mLiteMaker(network, config)
