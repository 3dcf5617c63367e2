"""AOT and DeAOT: many objects in one pass, by identities that are added to what the network remembers.

Papers: Yang, Wei and Yang, Associating Objects with Transformers for Video Object Segmentation, NeurIPS 2021 (AOT); Yang and Yang, Decoupling
Features in Hierarchical Propagation for Video Object Segmentation, NeurIPS 2022 (DeAOT). Compared with: yoxu515/aot-benchmark, commit 601c138.
Reproduced exactly: networks of the 14 configurations, memory schedule, sizes, groups of ten objects, flip and multi-scale tests, losses.
`deaot-lite` is ours: DeAOT-T's design on EfficientNet-Lite0.
Not reproduced: memory that grows without end when a budget is set; probability maps as memory, which is broken there; see docs/aot.md.
"""

import torch

from rotoscope.errors import CheckpointError
from rotoscope.models.aot.config import VARIANTS, AotConfig
from rotoscope.models.aot.naming import OFFICIAL_NAMES, describe_variant, official_names, variants_that_fit
from rotoscope.models.aot.network import AotNetwork
from rotoscope.models.aot.propagator import AotPropagator, AotTracker
from rotoscope.models.checkpoints import Checkpoint, load_strictly, rename

__all__ = [
    "OFFICIAL_NAMES",
    "VARIANTS",
    "AotConfig",
    "AotNetwork",
    "AotPropagator",
    "AotTracker",
    "build",
    "load_network",
    "official_names",
    "variants_that_fit",
]


def build(config: AotConfig, weights: Checkpoint, device: str) -> AotTracker:
    """A tracker with official weights, or with ours.

    Raises:
        CheckpointError: the weights are of another variant (the message says of which) or of another system, incomplete, or not finite.
    """
    network = load_network(config, weights)
    network.encoder.fold()
    network.eval().requires_grad_(requires_grad=False)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack this form
    if config.compile:
        network.see, network.decode = torch.compile(network.see), torch.compile(network.decode)  # type: ignore[method-assign]
    return AotTracker(network, config)


def load_network(config: AotConfig, weights: Checkpoint) -> AotNetwork:
    """The network of a variant with official weights, or with ours, as it is trained.

    Raises:
        CheckpointError: see `build`.
    """
    fitting = variants_that_fit(weights.tensors)
    if not fitting and not any(key.startswith(("LSTT.", "layers.")) for key in weights.tensors):
        message = f"{weights.path} holds no weights of AOT or DeAOT: it has no entries named 'LSTT.…' (official) or 'layers.…' (ours)"
        raise CheckpointError(message)
    if fitting and config.name not in fitting:
        message = (
            f"{weights.path} holds weights of {describe_variant(VARIANTS[fitting[0]])}, not of '{config.name}'; use --model {' or '.join(fitting)}"
        )
        raise CheckpointError(message)
    renamed = rename(weights, official_names(config))  # before the network is made: what is of another system is refused at once
    network = AotNetwork(config)
    load_strictly(network, renamed)
    return network
