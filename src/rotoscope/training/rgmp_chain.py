"""What RGMP is trained for: each frame's mask from the one it made of the frame before, all the way back to the given one (RGMP, section 3.2).

The reference is encoded once, the soft prediction is fed back with its gradient, and one object is followed per sample. With `bptt_step` the chain
is cut every so many frames.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rotoscope.errors import InputError
from rotoscope.models.rgmp.network import RgmpNetwork, object_probability
from rotoscope.training.losses import VOID


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """How clips are passed through the network while training.

    Attributes:
        bptt_step: frames after which the gradient through the mask is cut; None for never, which is the paper's training.
        checkpointing: keep only the masks between frames, and compute each frame once more on the way back.
        side_weights: of the losses of the heads at strides 32, 16 and 8 (unpublished; the released weights hold these heads).

    Raises:
        InputError: a `bptt_step` below 1.
    """

    bptt_step: int | None = None
    checkpointing: bool = False
    side_weights: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.bptt_step is not None and self.bptt_step < 1:
            message = f"bptt_step {self.bptt_step} cuts the chain before it begins; give 1 or more frames, or None for no cut"
            raise InputError(message)


@dataclass(frozen=True, slots=True)
class ChainLosses:
    """The losses of some frames of a batch of clips.

    Attributes:
        total: what is minimised: the share of these frames in the mean over all predicted frames and samples.
        frames: of each frame and sample, without the side heads, detached.
        probs: of the object in each of the frames, detached.
    """

    total: Float[Tensor, ""]
    frames: Float[Tensor, "t n"]
    probs: Float[Tensor, "t n h w"]


def chain_losses(network: RgmpNetwork, images: Float[Tensor, "t n 3 h w"], labels: Int64[Tensor, "t n h w"], settings: ChainSettings) -> ChainLosses:
    """Losses of clips whose first frame is the reference, for one backward pass over all frames.

    Args:
        network: in training or evaluation mode.
        images: RGB in 0..1 of n clips; both sides are multiples of 32.
        labels: 1 on the object, 0 elsewhere, void 255. Void pixels have loss 0 but are counted.
        settings: see there.

    Raises:
        InputError: fewer than two frames.
    """
    _check_length(images)
    related = network.relate(images[0], _as_mask(labels[0], images))
    parts = list(_chunks(network, images, labels, related, settings))
    total = torch.stack([part.total for part in parts]).sum()
    return ChainLosses(total, torch.cat([part.frames for part in parts]), torch.cat([part.probs for part in parts]))


def chunk_losses(
    network: RgmpNetwork, images: Float[Tensor, "t n 3 h w"], labels: Int64[Tensor, "t n h w"], settings: ChainSettings
) -> Generator[ChainLosses]:
    """The same losses chunk by chunk, so that only the graph of one chunk is held: call `total.backward()` on each before the next is asked for.

    The gradients then add up to those of `chain_losses`. Those of the reference come last, when the generator ends: so ask until it does, and let the
    optimiser step only then.

    Args:
        network: see `chain_losses`.
        images: see `chain_losses`.
        labels: see `chain_losses`.
        settings: `bptt_step` is the length of a chunk.

    Raises:
        InputError: fewer than two frames.
    """
    _check_length(images)
    related = network.relate(images[0], _as_mask(labels[0], images))
    shared = related.detach().requires_grad_(related.requires_grad)
    yield from _chunks(network, images, labels, shared, settings)
    if related.requires_grad and shared.grad is not None:
        torch.autograd.backward(related, shared.grad)


def _chunks(network: RgmpNetwork, images: Tensor, labels: Tensor, related: Tensor, settings: ChainSettings) -> Generator[ChainLosses]:
    chain = _Chain(network, related, settings)
    previous = _as_mask(labels[0], images)
    num_predicted = images.shape[0] - 1
    step = settings.bptt_step or num_predicted
    for start in range(1, 1 + num_predicted, step):
        previous = previous.detach()
        totals, frames, probs = [], [], []
        for index in range(start, min(start + step, 1 + num_predicted)):
            total, loss, previous = chain.step(images[index], labels[index], previous)
            totals.append(total)
            frames.append(loss.detach())
            probs.append(previous.detach())
        yield ChainLosses(torch.stack(totals).sum() / num_predicted, torch.stack(frames), torch.stack(probs))
        del totals, total, loss


class _Chain:
    """What all frames of a batch of clips share."""

    def __init__(self, network: RgmpNetwork, related: Float[Tensor, "n d h32 w32"], settings: ChainSettings) -> None:
        self._related = related
        self._checkpointing = settings.checkpointing
        has_sides = any(settings.side_weights)
        self._weights = (*settings.side_weights, 1.0) if has_sides else (1.0,)
        self._logits: Callable[..., tuple[Tensor, ...]] = network.all_logits if has_sides else lambda *inputs: (network(*inputs),)

    def step(
        self, image: Float[Tensor, "n 3 h w"], labels: Int64[Tensor, "n h w"], previous: Float[Tensor, "n h w"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "n"], Float[Tensor, "n h w"]]:
        """The loss of a frame to minimise, that of each sample without the side heads, and the object's probabilities."""
        inputs = (image, labels, previous, self._related)
        result: tuple[Tensor, Tensor, Tensor] = checkpoint(self._step, *inputs, use_reentrant=False) if self._checkpointing else self._step(*inputs)
        return result

    def _step(self, image: Tensor, labels: Tensor, previous: Tensor, related: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self._logits(image, previous, related)
        losses = [_sample_losses(one, labels) for one in logits]
        total = torch.stack([weight * loss.mean() for weight, loss in zip(self._weights, losses, strict=True)]).sum()
        return total, losses[-1], object_probability(logits[-1])


def _sample_losses(logits: Float[Tensor, "n 2 h w"], labels: Int64[Tensor, "n h w"]) -> Float[Tensor, "n"]:
    return F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none").mean(dim=(1, 2))


def _as_mask(labels: Int64[Tensor, "n h w"], like: Tensor) -> Float[Tensor, "n h w"]:
    return (labels == 1).to(like.dtype)


def _check_length(images: Tensor) -> None:
    if images.shape[0] < 2:
        message = f"a clip of {images.shape[0]} frames has nothing to predict; give the reference and at least one more"
        raise InputError(message)
