"""What AOT and DeAOT are trained for: masks of a few frames in a row, through their own memories."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from rotoscope.models.aot.config import MAX_OBJECTS
from rotoscope.models.aot.network import AotNetwork, Pass, Picture, one_hot_identities
from rotoscope.models.aot.stored import LayerMemory, Stored
from rotoscope.training.losses import bootstrapped_cross_entropy, soft_jaccard_loss

_UNUSED = -1e10
"""Logit of identities that a sample does not use (official code, float32)."""


@dataclass(frozen=True, slots=True)
class ClipSettings:
    """How clips are passed through the network while training.

    Attributes:
        gap: every so many frames one is kept for long; None for the reference alone (official: 2 for L, otherwise none).
        own_masks: memories are fed with the network's own masks, not with the true ones (official: in the second half of the main stage).
        hard_share: see `losses.hard_share`.
        reference_weight: of the loss on the reference frame's own decoding (official: falls from 1 to 0 over the training).
    """

    gap: int | None = None
    own_masks: bool = False
    hard_share: float = 1.0
    reference_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class ClipLosses:
    """The losses of a batch of clips.

    Attributes:
        total: what is minimised.
        frames: of each frame and sample, unweighted; first the reference frame's, 0 where it has no weight and so is not decoded.
        predicted: labels that the network gave each frame; the reference has its true ones.
    """

    total: Float[Tensor, ""]
    frames: Float[Tensor, "t n"]
    predicted: Int64[Tensor, "t n h w"]


def clip_losses(
    network: AotNetwork,
    images: Float[Tensor, "t n 3 h w"],
    labels: Int64[Tensor, "t n h w"],
    num_objects: Sequence[int],
    settings: ClipSettings,
    *,
    shuffle: Float[Tensor, "n ids ids"] | None = None,
) -> ClipLosses:
    """Losses of clips whose first frame is the reference; gradients flow through the memories, all the way back.

    Args:
        network: in training or evaluation mode.
        images: normalised frames of n clips.
        labels: objects from 1, background 0, void 255.
        num_objects: of each clip.
        settings: see there.
        shuffle: a permutation of identities for each sample (`identity_shuffles`), so that no identity learns a role of its own.
    """
    losses: list[Tensor] = []
    memory = _ClipMemory(settings.gap)
    winners = [labels[0]]
    for index in range(images.shape[0]):
        picture = network.see(images[index])
        embedding = _embedded(network, labels[index], shuffle) if index == 0 or not settings.own_masks else None
        result = network.match(picture, memory.layers()) if index > 0 or embedding is None else network.match_itself(picture, embedding)
        if index > 0 or settings.reference_weight > 0:
            logits = _logits(network, picture, result, (labels.shape[2], labels.shape[3]), shuffle=shuffle, num_objects=num_objects)
            losses.append(_sample_losses(logits, labels[index], settings))
            winners += [logits.detach().argmax(dim=1)] * (index > 0)
        else:
            losses.append(images.new_zeros(images.shape[1]))
        memory.add(index, network.store(result, _embedded(network, winners[-1], shuffle) if embedding is None else embedding))
    frames = torch.stack(losses)
    total = frames[1:].mean(dim=0) + settings.reference_weight * frames[0]
    return ClipLosses(total.mean(), frames, torch.stack(winners))


def identity_shuffles(num_samples: int, *, device: torch.device | str = "cpu") -> Float[Tensor, "n ids ids"]:
    """Random permutations of the ten identities; the background keeps its own (AOT, section 4.1)."""
    shuffles = torch.zeros(num_samples, 1 + MAX_OBJECTS, 1 + MAX_OBJECTS, device=device)
    for sample in shuffles:
        order = torch.cat((torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(MAX_OBJECTS)))
        sample[torch.arange(1 + MAX_OBJECTS), order] = 1
    return shuffles


@dataclass(slots=True)
class _ClipMemory:
    """What the frames of a clip left behind, with their gradients."""

    gap: int | None
    kept: list[tuple[Stored, ...]] = field(default_factory=list)
    recent: tuple[Stored, ...] = ()
    last_kept: int = 0

    def layers(self) -> list[LayerMemory]:
        long_term = [[frame[index] for frame in self.kept] for index in range(len(self.recent))]
        return [LayerMemory(_joined(frames), recent) for frames, recent in zip(long_term, self.recent, strict=True)]

    def add(self, index: int, stored: tuple[Stored, ...]) -> None:
        self.recent = stored
        if index == 0 or (self.gap is not None and index - self.last_kept >= self.gap):
            self.kept.append(stored)
            self.last_kept = index


def _embedded(network: AotNetwork, labels: Int64[Tensor, "n h w"], shuffle: Tensor | None) -> Float[Tensor, "n l c"]:
    identities = one_hot_identities(labels)
    if shuffle is not None:
        identities = torch.einsum("nohw,not->nthw", identities, shuffle)
    embedding: Tensor = network.id_bank(identities)
    return embedding


def _logits(
    network: AotNetwork, picture: Picture, result: Pass, hw: tuple[int, int], *, shuffle: Tensor | None, num_objects: Sequence[int]
) -> Float[Tensor, "n ids h w"]:
    """Logits of the background and of as many identities as any sample uses; those that a sample does not use can never win in it."""
    logits = network.decode(picture, result).float()
    if shuffle is not None:
        logits = torch.einsum("nohw,nto->nthw", logits, shuffle)
    resized = F.interpolate(logits[:, : 1 + max(num_objects)], size=hw, mode="bilinear", align_corners=network.decoder.align_corners)
    is_used = torch.arange(resized.shape[1], device=resized.device) <= torch.tensor(num_objects, device=resized.device)[:, None]
    return resized.masked_fill(~is_used[:, :, None, None], _UNUSED)


def _sample_losses(logits: Float[Tensor, "n ids h w"], labels: Int64[Tensor, "n h w"], settings: ClipSettings) -> Float[Tensor, "n"]:
    return 0.5 * bootstrapped_cross_entropy(logits, labels, share=settings.hard_share) + 0.5 * soft_jaccard_loss(logits, labels)


def _joined(frames: Sequence[Stored]) -> Stored:
    return Stored(torch.cat([frame.key for frame in frames], dim=1), torch.cat([frame.value for frame in frames], dim=1))
