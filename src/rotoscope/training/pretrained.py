"""The weights in the package that a training may begin with."""

from rotoscope.models.checkpoints import Checkpoint, read_checkpoint
from rotoscope.models.registry import SHIPPED_WEIGHTS, find_weights, spec_of


def lite_encoder_weights() -> Checkpoint:
    """The ImageNet weights of EfficientNet-Lite0's first five stages, batch normalisation folded in, which ship as `mast-lite`.

    Raises:
        CheckpointError: the file is missing from the package, or damaged.
    """
    return read_checkpoint(find_weights(spec_of("mast-lite")).path or SHIPPED_WEIGHTS / "mast-lite.safetensors")
