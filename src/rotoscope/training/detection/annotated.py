"""Batches of annotated images, read and augmented while the network computes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.datasets.detection.samples import DetectionSample, DetectionSet, read_objects
from rotoscope.errors import InputError
from rotoscope.training.damage import DamagedFrames
from rotoscope.training.detection.ssd_augment import Picture, SsdSettings, augmented
from rotoscope.training.detection.truth import Truth
from rotoscope.training.task import Batch, Draw

_TRIES = 20  # of a sample whose image cannot be read
_SEEDS = 2**32  # of numpy's legacy generator


class AnnotatedImages:
    """Pictures of annotated images, augmented as SSD does; see `sources.PictureSource`.

    Images without objects stay: they show what is background. Officially another image takes their place.

    Args:
        images: the set.
        settings: of the augmentation; their size is replaced.
        sizes: sides of the pictures; each batch has one of them.
    """

    def __init__(self, images: DetectionSet, settings: SsdSettings, sizes: Sequence[int]) -> None:
        self.images = images
        self._settings = [replace(settings, size=size) for size in sizes]
        self._damaged = DamagedFrames(len(images.samples))

    def __str__(self) -> str:
        return str(self.images)

    @property
    def damaged(self) -> tuple[str, ...]:
        """The images met so far that cannot be read."""
        return self._damaged.names

    def batch(self, draw: Draw) -> Batch:
        """The pictures of a draw; the objects of all of them one after the other, `counts` and `crowds` for each picture.

        Raises:
            InputError: more than 1 % of all images turned out to be damaged, or all of a sample's tries met one.
        """
        generator = draw.generator()
        settings = self._settings[int(torch.randint(len(self._settings), (), generator=generator))]
        seeds = torch.randint(_SEEDS, (draw.size,), generator=generator).tolist()
        pictures = [self._picture(settings, np.random.RandomState(seed)) for seed in seeds]
        return {
            "images": torch.from_numpy(np.stack([picture.rgb for picture in pictures])).permute(0, 3, 1, 2).contiguous(),
            "masks": torch.from_numpy(np.concatenate([picture.masks for picture in pictures])),
            "boxes": torch.from_numpy(np.concatenate([picture.boxes for picture in pictures]) / settings.size).float(),
            "class_ids": torch.from_numpy(np.concatenate([picture.class_ids for picture in pictures])),
            "counts": torch.tensor([len(picture.boxes) for picture in pictures]),
            "crowds": torch.tensor([int(picture.is_crowd.sum()) for picture in pictures]),
        }

    def pictures(self, batch: Batch) -> tuple[Float[Tensor, "n 3 y x"], list[Truth]]:
        """The pictures, and what they show."""
        counts, crowds = batch["counts"].tolist(), batch["crowds"].tolist()
        parts = zip(*(torch.split(batch[name], counts) for name in ("boxes", "class_ids", "masks")), crowds, strict=True)
        return batch["images"], [_truth(*part) for part in parts]

    def _picture(self, settings: SsdSettings, random: np.random.RandomState) -> Picture:
        samples: Sequence[DetectionSample] = self.images.samples
        for _ in range(_TRIES):
            sample = samples[random.randint(len(samples))]
            try:
                shown = read_objects(sample)
            except InputError as error:
                self._damaged.add(sample.name, error)
                last = error
                continue
            return augmented(Picture.of(shown), settings, random)
        message = f"{_TRIES} images drawn one after the other cannot be read; the last: {last}"
        raise InputError(message)


def _truth(boxes: Tensor, class_ids: Tensor, masks: Tensor, crowds: int) -> Truth:
    """The objects of a picture, of which the last ones are crowds."""
    count = len(boxes) - crowds
    return Truth(boxes[:count], class_ids[:count], masks[:count].float(), boxes[count:])
