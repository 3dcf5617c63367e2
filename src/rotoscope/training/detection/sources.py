"""Where the pictures of a step come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.datasets.detection.layouts import annotation_file
from rotoscope.datasets.static_images import read_stills
from rotoscope.training.augment import CameraSettings, through_camera
from rotoscope.training.detection.scenes import LabelledImages, Scenes, SceneSettings, make_scenes
from rotoscope.training.detection.truth import ANY_CLASS, Truth
from rotoscope.training.image_bank import Decoded, ImageBank, decode
from rotoscope.training.losses import VOID
from rotoscope.training.task import Batch, Draw

_DETAIL = 1.2
"""Pixels of an image's longer side per pixel of a picture's."""
_CAMERA = CameraSettings(flicker=0.0, streak_share=0.1, codec_share=0.2, noise_share=0.15)


@runtime_checkable
class PictureSource(Protocol):
    """What gives a training its pictures."""

    def batch(self, draw: Draw) -> Batch:
        """What the pictures of a draw are made from, on the CPU."""
        ...

    def pictures(self, batch: Batch) -> tuple[Float[Tensor, "n 3 y x"], list[Truth]]:
        """The pictures of a batch, RGB in 0..255, on the device of the training, and what they show."""
        ...


@dataclass(frozen=True, slots=True)
class SceneSource:
    """Scenes made from the images of a bank, on the bank's device.

    Attributes:
        bank: the images.
        common, telling: indices of those that show one object of no stated class, and of the others.
        class_ids: of each image of the bank.
        sizes: sides of the pictures; each batch has one of them.
        telling_share: of the scenes that begin with a telling image.
        settings: see there.
    """

    bank: ImageBank
    common: Sequence[int]
    telling: Sequence[int]
    class_ids: Sequence[int]
    sizes: tuple[int, ...]
    telling_share: float
    settings: SceneSettings

    def __str__(self) -> str:
        rejected = f", {len(self.bank.rejected)} left out" if self.bank.rejected else ""
        used = len(self.common) + len(self.telling)
        held_out = len(self.bank) - used
        return (
            f"{used} images ({held_out} held out{rejected}), {len(self.telling)} of them with several objects or a class, "
            f"{self.bank.num_bytes / 2**20:.0f} MB in memory"
        )

    def batch(self, draw: Draw) -> Batch:
        """Which images, and the seed of all else: the images themselves wait on their device."""
        generator = draw.generator()
        shape = (draw.size, 1 + self.settings.layers)
        is_telling = torch.rand(shape, generator=generator) < (self.telling_share if self.common else 1.0)
        if not self.telling:
            is_telling = torch.zeros_like(is_telling)
        common, telling = (_drawn(pool, shape, generator) for pool in (self.common, self.telling))
        return {"images": torch.where(is_telling, telling, common), "seed": torch.randint(2**62, (1,), generator=generator)}

    def pictures(self, batch: Batch) -> tuple[Float[Tensor, "n 3 y x"], list[Truth]]:
        """The scenes of these images, as a camera saw them."""
        generator = torch.Generator().manual_seed(int(batch["seed"]))
        size = self.sizes[int(torch.randint(len(self.sizes), (), generator=generator))]
        grounds, *layers = (self._images(column) for column in batch["images"].T)
        scenes: Scenes = make_scenes(grounds, layers, size, self.settings, generator)
        return 255 * through_camera(scenes.images[None], _CAMERA, generator)[0], scenes.truths

    def _images(self, chosen: Tensor) -> LabelledImages:
        indices: list[int] = chosen.tolist()
        images, labels, hw = self.bank.padded(indices)
        return LabelledImages(images, labels, hw, torch.tensor([self.class_ids[index] for index in indices]).to(images.device))


def _drawn(pool: Sequence[int], shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    picks = torch.randint(max(len(pool), 1), shape, generator=generator)
    return torch.tensor(pool or [0])[picks]


@dataclass(frozen=True, slots=True)
class SourceClasses:
    """What is known of the objects of a set of images from where it is from.

    Attributes:
        class_ids: of all objects of images whose source's name contains a text.
        parts: texts in the names of sources whose labels are parts of one object.
    """

    class_ids: Sequence[tuple[str, int]]
    parts: Sequence[str] = ()


def has_named_classes(data: Path) -> bool:
    """Whether a data set has classes: it is one file, or a folder with COCO's instances or YOLO's index."""
    return not data.is_dir() or annotation_file(data) is not None


def read_scenes(
    root: Path, known: SourceClasses, settings: SceneSettings, *, sizes: tuple[int, ...], telling_share: float, held_out: float, device: str
) -> SceneSource:
    """Scenes from the images with masks of a folder, all but a share that is held out.

    Raises:
        InputError: see `read_stills` and `ImageBank.read`.
    """
    stills = {still.name: still for still in read_stills(root).stills}
    merged = {name for name, still in stills.items() if any(text in still.source for text in known.parts)}
    decoded = decode(stills.values(), longest_side=round(_DETAIL * max(sizes)))
    bank = ImageBank.collect(_as_one(item) if isinstance(item, Decoded) and item.name in merged else item for item in decoded)
    classes = [next((number for text, number in known.class_ids if text in stills[name].source), ANY_CLASS) for name in bank.names]
    common, telling = list[int](), list[int]()
    for index in bank.split(held_out)[0]:
        labels = bank.labels(index)
        is_telling = classes[index] != ANY_CLASS or int(labels[labels != VOID].max()) > 1
        (telling if is_telling else common).append(index)
    return SceneSource(bank.to(device), common, telling, classes, sizes, telling_share, settings)


def _as_one(item: Decoded) -> Decoded:
    """All objects of an image as one."""
    labels = item.labels
    return Decoded(item.name, item.rgb, labels.clip(max=1) if labels.max() < VOID else labels)
