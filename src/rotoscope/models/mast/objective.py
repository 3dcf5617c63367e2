"""What MAST learns from: a frame's colours rebuilt from an earlier frame's, with one colour channel hidden from the encoder (sheet 4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.models.mast.network import MastEncoder
from rotoscope.models.mast.read import Reference, read_memory, to_coarse

TRAINING_RADIUS = 6
KEPT_GAIN = 3 / 2
"""What is left of the input is scaled up by this when one of its three channels is dropped."""
ERROR_GAIN = 20.0
"""The Huber loss turns linear at 1 / 20 in units of normalised Lab."""


def draw_channel(generator: torch.Generator | None = None) -> int:
    """The channel to drop: a (1) or b (2) with equal odds, never L."""
    return int(torch.randint(1, 3, (), generator=generator))


def drop_channel(lab: Float[Tensor, "b 3 h w"], channel: int) -> Float[Tensor, "b 3 h w"]:
    """The picture with one channel set to 0 and the others scaled by 3/2."""
    kept = torch.ones(3, dtype=lab.dtype, device=lab.device)
    kept[channel] = 0
    return lab * (KEPT_GAIN * kept)[:, None, None]


def reconstruct(
    encoder: MastEncoder, reference: Float[Tensor, "b 3 h w"], target: Float[Tensor, "b 3 h w"], *, channel: int, logit_scale: float = 1.0
) -> Float[Tensor, "b 1 h4 w4"]:
    """The dropped channel of the target on the coarse grid, copied from that of the reference by features that did not see it.

    Args:
        encoder: in training mode, normalised over the reference and target batches one after the other, as officially.
        reference: normalised Lab of the earlier frames.
        target: normalised Lab of the later ones.
        channel: the one to drop.
        logit_scale: factor on the dot products; 1 officially, 1/8 makes training converge in recent PyTorch (sheet 4).
    """
    return reconstruct_from_memory(encoder, [reference], [1], target, channel=channel, logit_scale=logit_scale)


def reconstruct_from_memory(
    encoder: MastEncoder,
    references: Sequence[Float[Tensor, "b 3 h w"]],
    gaps: Sequence[int],
    target: Float[Tensor, "b 3 h w"],
    *,
    channel: int,
    logit_scale: float = 1.0,
) -> Float[Tensor, "b 1 h4 w4"]:
    """The same from several earlier frames, as they are read when masks are followed: far ones around the place where the target is found in them.

    Args:
        encoder: in training mode, normalised over one batch of frames after the other.
        references: normalised Lab of the earlier frames, oldest first, a batch of each.
        gaps: how many frames ago each was.
        target: normalised Lab of the later ones.
        channel: the one to drop.
        logit_scale: see `reconstruct`.
    """
    earlier = [encoder(drop_channel(reference, channel)) for reference in references]
    later = encoder(drop_channel(target, channel))
    values = [to_coarse(reference[:, channel : channel + 1]) for reference in references]
    rebuilt = []
    for sample, query in enumerate(later):
        memory = [Reference(keys[sample], held[sample], gap) for keys, held, gap in zip(earlier, values, gaps, strict=True)]
        rebuilt.append(read_memory(query, memory, radius=TRAINING_RADIUS, logit_scale=logit_scale))
    return torch.stack(rebuilt)


def reconstruction_loss(rebuilt: Float[Tensor, "b 1 h4 w4"], target: Float[Tensor, "b 3 h w"], *, channel: int) -> Float[Tensor, ""]:
    """Huber loss of the rebuilt channel, enlarged, against the target's own, both times 20; the mean over all pixels."""
    enlarged = F.interpolate(rebuilt, target.shape[2:], mode="bilinear", align_corners=False)
    return F.smooth_l1_loss(enlarged * ERROR_GAIN, target[:, channel : channel + 1] * ERROR_GAIN)
