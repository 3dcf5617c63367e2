"""Training clips cut out of annotated video: which frames, at what scale, which part of the picture, which objects (AOT's sheet, section 4).

A sample is drawn in tries. What makes a draw useless (no object in the reference, none left in the crop, a damaged frame) starts it again; the
tries are drawn from the sample's own generator, so that a batch stays a function of its draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rotoscope.datasets.clips import ClipSet
from rotoscope.datasets.davis import AnnotatedClip, read_label_map
from rotoscope.datasets.stills import MAX_STILL_OBJECTS
from rotoscope.errors import InputError, MaskError
from rotoscope.training.damage import DamagedFrames
from rotoscope.training.image_bank import MEAN_COLOUR
from rotoscope.training.losses import VOID
from rotoscope.training.synthesis import Clips
from rotoscope.training.task import Batch, Draw
from rotoscope.video.folders import read_picture

Pictures = NDArray[np.uint8]
"""`[t, h, w, 3]`, or labels `[t, h, w]`: 0 background, objects from 1, 255 void."""

_TRIES = 20  # of a sample; beyond that the clips do not suit the settings


class _UselessDrawError(Exception):
    """Another draw is to be made."""


@dataclass(frozen=True, slots=True)
class ClipSampling:
    """How clips are drawn from video; the defaults are AOT's.

    Attributes:
        num_frames: of a clip, the reference among them.
        size: side of the square frames.
        short_edge: what the shorter side of the video is scaled to, times `scale`.
        scale: least and most.
        gap_stages: from each step on, the share of the set's largest gap that may be drawn, at least one frame: a curriculum.
        max_objects: of a clip.
        least_reference_pixels: foreground that the reference must have more of, before scaling.
        least_object_pixels: what an object must have more of in the first frame, after cropping; others become background.
        frame_tries: draws of other frames while a later one holds objects that the reference lacks; then these become background.
        crop_tries: draws of other crops while the first frame's holds no object.
        merge_share: of the clips over which the objects of another are laid.
    """

    num_frames: int = 5
    size: int = 465
    short_edge: int = 480
    scale: tuple[float, float] = (0.7, 1.3)
    gap_stages: tuple[tuple[int, float], ...] = ((0, 1.0),)
    max_objects: int = 10
    least_reference_pixels: int = 200
    least_object_pixels: int = 100
    frame_tries: int = 5
    crop_tries: int = 5
    merge_share: float = 0.3

    def __post_init__(self) -> None:
        if self.num_frames < 2 or self.size < 1 or not 0 < self.scale[0] <= self.scale[1]:
            message = f"clips of {self.num_frames} frames of {self.size} pixels at {self.scale} cannot be drawn; give two frames or more"
            raise InputError(message)
        if not self.gap_stages or self.gap_stages[0][0] != 0 or any(not 0 <= share <= 1 for _, share in self.gap_stages):
            message = f"the gap stages {self.gap_stages} must start at step 0 and hold shares in 0..1"
            raise InputError(message)

    def gap_at(self, step: int, max_gap: int) -> int:
        """The largest gap of a step, at least 1."""
        share = max((start, share) for start, share in self.gap_stages if start <= step)[1]
        return max(1, round(share * max_gap))


class VideoClips:
    """Clips drawn from annotated video; see `ClipSampling`, and `clip_source.ClipSource` for what it does.

    Args:
        sets: where from; a clip is drawn as often as its set repeats it.
        sampling: how.

    Raises:
        InputError: there are no clips.
    """

    def __init__(self, sets: Sequence[ClipSet], sampling: ClipSampling | None = None) -> None:
        self.sets = tuple(sets)
        self.sampling = sampling or ClipSampling()
        self._pool = [(clip, one.max_gap) for one in sets for clip in one.clips for _ in range(one.repeats)]
        if not self._pool:
            message = "there is no clip to train on; give a folder of clips and their masks"
            raise InputError(message)
        self._damaged = DamagedFrames(sum(len(clip.frame_paths) for one in sets for clip in one.clips))

    @property
    def damaged(self) -> tuple[str, ...]:
        """The frames and masks met so far that cannot be read."""
        return self._damaged.names

    def __str__(self) -> str:
        return "; ".join(str(one) for one in self.sets)

    def batch(self, draw: Draw) -> Batch:
        """The samples of a draw.

        `images` are bytes [t, n, 3, size, size], `labels` bytes [t, n, size, size] with objects from 1 and 255 for void, `num_objects` is [n], and
        `seed` is for what is drawn later.

        Raises:
            InputError: more than 1 % of the frames turned out to be damaged, or no try gave a clip with an object.
        """
        source = draw.generator()
        seeds = torch.randint(2**62, (draw.size + 1,), generator=source)
        samples = [self._sample(np.random.default_rng(seed), draw.step) for seed in seeds[1:].tolist()]
        images = torch.from_numpy(np.stack([pictures for pictures, _ in samples], axis=1))
        labels = torch.from_numpy(np.stack([labels for _, labels in samples], axis=1))
        counts = [int(np.max(shown[0], where=shown[0] != VOID, initial=0)) for _, shown in samples]
        return {
            "images": images.permute(0, 1, 4, 2, 3).contiguous(),
            "labels": labels,
            "num_objects": torch.tensor(counts, dtype=torch.int64),
            "seed": seeds[:1],
        }

    def clips(self, batch: Batch) -> tuple[Clips, torch.Generator]:
        """The clips of a batch, on its device, and the source of what is still to be drawn about them."""
        images: Float[Tensor, "t n 3 y x"] = batch["images"].float() / 255
        return Clips(images, batch["labels"].long(), batch["num_objects"]), torch.Generator().manual_seed(int(batch["seed"]))

    def _sample(self, random: np.random.Generator, step: int) -> tuple[Pictures, Pictures]:
        """Pictures and labels of one clip, with at least one object in the first frame."""
        images, labels = self._piece(random, step)
        if random.random() < self.sampling.merge_share:
            images, labels = laid_over((images, labels), self._piece(random, step))
        return images, self._kept(labels, random)

    def _piece(self, random: np.random.Generator, step: int) -> tuple[Pictures, Pictures]:
        """The same of one clip alone.

        Raises:
            InputError: no try gave an object.
        """
        for _ in range(_TRIES):
            try:
                return self._try_piece(random, step)
            except _UselessDrawError as reason:
                last = reason
        sampling = self.sampling
        message = (
            f"no object was left in {_TRIES} clips drawn one after the other ({last}); objects must have more than {sampling.least_object_pixels} "
            f"pixels in the crop of {sampling.size}x{sampling.size} of the first frame: check the masks, or train on larger crops"
        )
        raise InputError(message)

    def _try_piece(self, random: np.random.Generator, step: int) -> tuple[Pictures, Pictures]:
        clip, max_gap = self._pool[random.integers(len(self._pool))]
        indices, labels = self._drawn(clip, self.sampling.gap_at(step, max_gap), random)
        images = [self._picture(clip, index, one.shape) for index, one in zip(indices, labels, strict=True)]
        images, labels = _scaled(images, labels, self.sampling.short_edge * random.uniform(*self.sampling.scale))
        corner = self._corner(labels[0], random)
        pictures = np.stack([_cut(image, corner, self.sampling.size, MEAN_COLOUR) for image in images])
        shown = self._kept(np.stack([_cut(one, corner, self.sampling.size, VOID) for one in labels]), random)
        if not _is_object(shown[0]).any():
            message = f"clip '{clip.name}', frame {clip.frame_paths[indices[0]].name}: none in the crop"
            raise _UselessDrawError(message)
        return (pictures[:, :, ::-1], shown[:, :, ::-1]) if random.random() < 0.5 else (pictures, shown)

    def _drawn(self, clip: AnnotatedClip, max_gap: int, random: np.random.Generator) -> tuple[list[int], list[Pictures]]:
        """Frames and their labels; objects that the first frame lacks are background."""
        usable: tuple[list[int], list[NDArray[np.integer]]] | None = None
        for _ in range(1 + self.sampling.frame_tries):
            indices = drawn_frames(len(clip.frame_paths), self.sampling.num_frames, max_gap, random)
            labels = [self._labels(clip, index) for index in indices]
            if _is_object(labels[0]).sum() > self.sampling.least_reference_pixels:
                usable = indices, labels
                if all(set(_ids(later)) <= set(_ids(labels[0])) for later in labels[1:]):
                    break
        if usable is None:
            message = f"clip '{clip.name}': no frame drawn has more than {self.sampling.least_reference_pixels} pixels of objects"
            raise _UselessDrawError(message)
        return usable[0], _numbered_alike(usable[1])

    def _corner(self, labels: Pictures, random: np.random.Generator) -> tuple[int, int]:
        """Where the crop starts, from the top left of the picture; negative where the picture is smaller."""
        spare = [side - self.sampling.size for side in labels.shape]
        for _ in range(max(1, self.sampling.crop_tries)):
            top, left = (int(random.integers(min(0, one), max(0, one) + 1)) for one in spare)
            if _is_object(_cut(labels, (top, left), self.sampling.size, VOID)).any():
                break
        return top, left

    def _kept(self, labels: Pictures, random: np.random.Generator) -> Pictures:
        """Labels of the objects that are large enough in the first frame, numbered from 1; at most so many, drawn at random."""
        pixels = np.bincount(labels[0].ravel(), minlength=VOID + 1)[1:VOID]
        ids = 1 + np.flatnonzero(pixels > self.sampling.least_object_pixels)
        if len(ids) > self.sampling.max_objects:
            ids = np.sort(random.choice(ids, self.sampling.max_objects, replace=False))
        return _renamed(labels, ids)

    def _labels(self, clip: AnnotatedClip, index: int) -> NDArray[np.integer]:
        path = clip.annotation_paths[index]
        try:
            labels = read_label_map(path)
        except MaskError as error:
            raise self._useless(path, error) from error
        return (labels != 0).astype(np.uint8) if clip.merged else labels

    def _picture(self, clip: AnnotatedClip, index: int, hw: tuple[int, ...]) -> Pictures:
        path = clip.frame_paths[index]
        try:
            picture = read_picture(path)
            if picture.shape[:2] != hw:
                message = f"{path} is {picture.shape[1]}x{picture.shape[0]} but its mask is {hw[1]}x{hw[0]}"
                raise MaskError(message)
        except InputError as error:
            raise self._useless(path, error) from error
        return picture

    def _useless(self, path: Path, error: InputError) -> _UselessDrawError:
        self._damaged.add(str(path), error)
        return _UselessDrawError(str(error))


def drawn_frames(num_frames: int, wanted: int, max_gap: int, random: np.random.Generator) -> list[int]:
    """Frame numbers from a random one on, forwards or backwards, 1 to `max_gap` apart; at the ends of the clip the walk turns round."""
    gaps = random.integers(1, min(max_gap, max(1, num_frames - 1)) + 1, wanted - 1)
    steps = np.concatenate(([0], gaps.cumsum())) * random.choice((-1, 1))
    period = max(1, 2 * (num_frames - 1))
    places = (random.integers(num_frames) + steps) % period
    return [int(place) for place in np.minimum(places, period - places)]


def laid_over(below: tuple[Pictures, Pictures], above: tuple[Pictures, Pictures]) -> tuple[Pictures, Pictures]:
    """The objects of one clip laid over another clip, frame by frame; their numbers follow those of the clip below, of which there are few."""
    (images, labels), (other_images, other_labels) = below, above
    count = np.max(labels, where=labels != VOID, initial=0)
    covers = _is_object(other_labels)
    return np.where(covers[..., None], other_images, images), np.where(covers, other_labels + count, labels)


def _is_object(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    objects: NDArray[np.bool_] = (labels != 0) & (labels != VOID)
    return objects


def _ids(labels: NDArray[np.integer]) -> list[int]:
    return [int(one) for one in np.flatnonzero(np.bincount(labels.ravel())) if one not in (0, VOID)]


def _numbered_alike(labels: Sequence[NDArray[np.integer]]) -> list[Pictures]:
    """Labels under the numbers that the ids of the first frame get; what it lacks is background."""
    ids = np.asarray(_ids(labels[0])[:MAX_STILL_OBJECTS])
    return [_renamed(one, ids) for one in labels]


def _renamed(labels: NDArray[np.integer], ids: NDArray[np.integer]) -> Pictures:
    """The ids as 1, 2, ...; void stays, the rest is background."""
    table = np.zeros(max(VOID, int(labels.max())) + 1, dtype=np.uint8)
    table[ids], table[VOID] = np.arange(1, 1 + len(ids)), VOID
    renamed: Pictures = table[labels]
    return renamed


def _scaled(images: Sequence[Pictures], labels: Sequence[Pictures], short_edge: float) -> tuple[list[Pictures], list[Pictures]]:
    height, width = labels[0].shape
    scale = short_edge / min(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    larger = [np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8) for image in images]
    return larger, [np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8) for one in labels]


def _cut(picture: Pictures, corner: tuple[int, int], size: int, beyond: int | tuple[int, ...]) -> Pictures:
    """A square of a picture; what lies beyond its edges has the value given."""
    top, left = corner
    cut = np.empty((size, size, *picture.shape[2:]), dtype=np.uint8)
    cut[:] = beyond
    inside = picture[max(0, top) : top + size, max(0, left) : left + size]
    down, across = max(0, -top), max(0, -left)
    cut[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return cut
