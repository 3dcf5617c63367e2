"""Where the clips of a step come from: made from static images, cut out of real video, or both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from rotoscope.datasets.static_images import read_stills
from rotoscope.errors import InputError
from rotoscope.training.image_bank import ImageBank
from rotoscope.training.synthesis import Clips, Sources, SynthesisSettings, synthesise
from rotoscope.training.task import Batch, Draw

_DETAIL = 1.9
"""Pixels of an image's longer side per pixel of a frame's: enough for the closest views of it."""


@runtime_checkable
class ClipSource(Protocol):
    """What gives a training its clips; `SyntheticClips` here, and `video_clips.VideoClips`."""

    def batch(self, draw: Draw) -> Batch:
        """What the clips of a draw are made from, on the CPU."""
        ...

    def clips(self, batch: Batch) -> tuple[Clips, torch.Generator]:
        """The clips of a batch, on the device of the training, and the source of what is still to be drawn about them."""
        ...


@dataclass(frozen=True, slots=True)
class SyntheticClips:
    """Clips made from the images of a bank, on the bank's device.

    Attributes:
        bank: the images.
        indices: those that may be used.
        settings: see there.
    """

    bank: ImageBank
    indices: Sequence[int]
    settings: SynthesisSettings

    @staticmethod
    def read(root: Path, settings: SynthesisSettings, *, held_out: float = 0.0, device: str = "cpu") -> "SyntheticClips":
        """Clips made from the images with masks of a folder, all but a share that is held out.

        Images are kept at the size that the clips need.

        Raises:
            InputError: see `read_stills` and `ImageBank.read`.
        """
        bank = ImageBank.read(read_stills(root).stills, longest_side=round(_DETAIL * settings.size))
        return SyntheticClips(bank.to(device), bank.split(held_out)[0], settings)

    def __str__(self) -> str:
        rejected = f", {len(self.bank.rejected)} left out" if self.bank.rejected else ""
        held_out = len(self.bank) - len(self.indices)
        return f"{len(self.indices)} images to make clips from ({held_out} held out{rejected}), {self.bank.num_bytes / 2**20:.0f} MB in memory"

    def batch(self, draw: Draw) -> Batch:
        """Which images, and the seed of all else: the images themselves wait on their device."""
        generator = draw.generator()
        num_layers = self.settings.num_layers
        picks = torch.randint(len(self.indices), (draw.size, 1 + num_layers), generator=generator)
        seed = torch.randint(2**62, (1,), generator=generator)
        has_twin = torch.rand(draw.size, generator=generator) < self.settings.twin_share
        if num_layers:
            shown = picks[torch.arange(draw.size), torch.randint(num_layers, (draw.size,), generator=generator)]
            picks[:, -1] = torch.where(has_twin, shown, picks[:, -1])
        return {"images": torch.tensor(self.indices)[picks], "seed": seed}

    def clips(self, batch: Batch) -> tuple[Clips, torch.Generator]:
        """The clips of these images."""
        generator = torch.Generator().manual_seed(int(batch["seed"]))
        chosen = batch["images"]
        padded = self.bank.padded(chosen.flatten().tolist())
        sources = Sources(*(part.unflatten(0, tuple(chosen.shape)) for part in padded))  # type: ignore[no-untyped-call] # torch's stub
        return synthesise(sources, self.settings, generator), generator


@dataclass(frozen=True, slots=True)
class MixedClips:
    """Clips of two sources; which one makes a batch is drawn, so that processes that share a step see both.

    Attributes:
        common: makes most batches, or as many as not.
        other: makes a share of them.
        share: of the batches, in 0..1.
    """

    common: ClipSource
    other: ClipSource
    share: float

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            InputError: it is not in 0..1.
        """
        if not 0 <= self.share <= 1:
            message = f"a share of {self.share:g} of the batches cannot be drawn; give a number from 0 to 1"
            raise InputError(message)

    def __str__(self) -> str:
        return f"{self.common}; and for {self.share:.0%} of the batches: {self.other}"

    def batch(self, draw: Draw) -> Batch:
        """What one of the two needs, and which of them it is."""
        is_other = torch.rand(1, generator=draw.generator()) < self.share
        return {**(self.other if is_other else self.common).batch(draw), "is_other": is_other}

    def clips(self, batch: Batch) -> tuple[Clips, torch.Generator]:
        """The clips of that source."""
        return (self.other if batch["is_other"] else self.common).clips(batch)
