"""MiVOS's propagation: masks that a person gave on some frames, carried to all others by reading a memory of frames.

Paper: Cheng, Tai and Tang, Modular Interactive Video Object Segmentation: Interaction-to-Mask, Propagation and Difference-Aware Fusion, CVPR 2021.
Compared with: hkchengrex/MiVOS. Reproduced exactly: the network, the top-k read, the memory policy, the border of frames, the carrying of
changes for the fusion; see docs/mivos.md. Not reproduced unless asked for: a frame given twice stays in memory twice (`keep_replaced`).
The other two networks of the paper are `rotoscope.models.s2m` and `rotoscope.models.fusion`.
"""

from collections.abc import Mapping

import torch

from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename
from rotoscope.models.mivos.network import OFFICIAL_NAMES, PropagationNetwork
from rotoscope.models.mivos.propagator import MivosConfig, MivosPropagator
from rotoscope.types import FeatureStore

__all__ = ["OFFICIAL_NAMES", "VARIANTS", "MivosConfig", "MivosPropagator", "MivosTracker", "PropagationNetwork", "build"]

VARIANTS: Mapping[str, MivosConfig] = {"mivos": MivosConfig()}


class MivosTracker:
    """The network and the settings; one may serve many clips and threads."""

    def __init__(self, network: PropagationNetwork, config: MivosConfig) -> None:
        self.network = network
        self.config = config

    def start(self, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None) -> MivosPropagator:
        """A new pass; see `Tracker`."""
        return MivosPropagator(self.network, self.config, max_memory_bytes=max_memory_bytes, features=features)


def build(config: MivosConfig, weights: Checkpoint, device: str) -> MivosTracker:
    """The tracker with official weights, or with ours.

    Raises:
        CheckpointError: the weights are of another model, incomplete, or not finite.
    """
    renamed = rename(weights, OFFICIAL_NAMES)  # before the network is made: what is of another system is refused at once
    network = PropagationNetwork()
    load_strictly(network, renamed)
    network.eval().requires_grad_(requires_grad=False).fold()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    if torch.device(device).type == "cpu":
        network.tile()
    return MivosTracker(network, config)
