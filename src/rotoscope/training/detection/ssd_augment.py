"""SSD's augmentation as YOLACT trains with it: colours, room around the image, a crop, a mirror image, one size.

Liu et al., "SSD", ECCV 2016, section 2.2; orders, ranges and draws of the official code (YOLACT's sheet, section 4), so that the same generator gives
the same pictures. Two of its quirks stay, on purpose: the overlap that a crop asks for is never checked (its authors lost half of the precision
when they did), and the left and upper edge of a crop are drawn between the room there is and 1.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.detection.samples import ShownObjects

_MEAN = (123.68, 116.78, 103.94)  # RGB: what lies around the image (official code, for all encoders)
_TRIES = 50  # crops of one kind
_KINDS = 6  # of crops: the whole image, four overlaps and any; they differ in their odds alone
_MAX_CHANNELS = 128  # of an image in OpenCV 5; in OpenCV 4 it may have 512


@dataclass(frozen=True, slots=True)
class SsdSettings:
    """How images are changed.

    Attributes:
        size: side of the picture; the aspect is not kept.
        brightness: that is added at most, in 0..255.
        contrast, saturation: factors, from least to most.
        hue: degrees at most.
        room: how much wider and higher the surroundings are at most.
        least_share: of the image's sides that a crop shows.
        aspects: height over width of crops.
        least_side: objects of which less is seen, in pixels of the picture, are dropped. The official code means 4 pixels of 550, but compares
            shares of the side with pixels (4/550), which drops nothing but boxes without area.
    """

    size: int = 550
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18.0
    room: float = 4.0
    least_share: float = 0.3
    aspects: tuple[float, float] = (0.5, 2.0)
    least_side: float = 4.0


@dataclass(frozen=True, slots=True)
class Picture:
    """An image on its way, and its objects, crowds last.

    Attributes:
        rgb: float32 `[h, w, 3]`, 0..255 and, once the colours have changed, beyond.
        masks: 0 or 1, `[n, h, w]`.
        boxes: `[n, 4]`, x0, y0, x1, y1 in pixels.
        class_ids: `[n]`.
        is_crowd: `[n]`.
    """

    rgb: NDArray[np.float32]
    masks: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]

    @staticmethod
    def of(shown: ShownObjects) -> "Picture":
        """The image as it was read."""
        is_crowd = np.arange(len(shown.boxes)) >= len(shown.boxes) - shown.num_crowds
        return Picture(shown.rgb.astype(np.float32), shown.masks.astype(np.uint8), shown.boxes.copy(), shown.class_ids, is_crowd)

    def kept(self, keep: NDArray[np.bool_]) -> "Picture":
        """With some of the objects."""
        return replace(
            self, masks=self.masks[keep], boxes=self.boxes[keep], class_ids=self.class_ids[keep], is_crowd=self.is_crowd[keep]
        )  # fmt: skip


def augmented(picture: Picture, settings: SsdSettings, random: np.random.RandomState) -> Picture:
    """A square picture of the image; `random` is of the legacy kind, whose draws the official code makes."""
    picture = replace(picture, rgb=_recoloured(picture.rgb, settings, random))
    picture = _with_room(picture, settings, random)
    picture = _cropped(picture, settings, random)
    if random.randint(2):
        picture = _mirrored(picture)
    return resized(picture, settings)


def _recoloured(rgb: NDArray[np.float32], settings: SsdSettings, random: np.random.RandomState) -> NDArray[np.float32]:
    rgb = rgb.copy()
    if random.randint(2):
        rgb += random.uniform(-settings.brightness, settings.brightness)
    contrast_first = bool(random.randint(2))
    if contrast_first:
        _scale(rgb, settings.contrast, random)
    hsv = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.float32)
    _scale(hsv[:, :, 1], settings.saturation, random)
    if random.randint(2):
        hue = hsv[:, :, 0]
        hue += random.uniform(-settings.hue, settings.hue)
        hue[hue > 360] -= 360
        hue[hue < 0] += 360
    rgb = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.float32)
    if not contrast_first:
        _scale(rgb, settings.contrast, random)
    return rgb


def _scale(values: NDArray[np.float32], factors: tuple[float, float], random: np.random.RandomState) -> None:
    """Multiply every second time, in place."""
    if random.randint(2):
        values *= random.uniform(*factors)


def _with_room(picture: Picture, settings: SsdSettings, random: np.random.RandomState) -> Picture:
    """The image somewhere on a larger one of the mean colour, every second time."""
    if random.randint(2):
        return picture
    height, width = picture.rgb.shape[:2]
    ratio = random.uniform(1, settings.room)
    left, top = int(random.uniform(0, width * ratio - width)), int(random.uniform(0, height * ratio - height))
    hw = (int(height * ratio), int(width * ratio))
    rgb = np.empty((*hw, 3), dtype=np.float32)
    rgb[:] = _MEAN
    rgb[top : top + height, left : left + width] = picture.rgb
    masks = np.zeros((len(picture.masks), *hw), dtype=np.uint8)
    masks[:, top : top + height, left : left + width] = picture.masks
    return replace(picture, rgb=rgb, masks=masks, boxes=picture.boxes + np.asarray((left, top, left, top)))


def _cropped(picture: Picture, settings: SsdSettings, random: np.random.RandomState) -> Picture:
    """The whole image one time in six; otherwise a part in which the centre of an object lies. An image without objects is cropped anywhere."""
    height, width = picture.rgb.shape[:2]
    centres = (picture.boxes[:, :2] + picture.boxes[:, 2:]) / 2
    low, high = settings.aspects
    while random.randint(0, _KINDS):
        for _ in range(_TRIES):
            w, h = random.uniform(settings.least_share * width, width), random.uniform(settings.least_share * height, height)
            if not low <= h / w <= high:
                continue
            left, top = random.uniform(width - w), random.uniform(height - h)  # numpy's second bound is 1 by default
            x0, y0, x1, y1 = int(left), int(top), int(left + w), int(top + h)
            if min(x1, width) <= x0 or min(y1, height) <= y0:
                continue  # of an image of a few pixels
            keep: NDArray[np.bool_] = np.all((centres > (x0, y0)) & (centres < (x1, y1)), axis=1)
            if (keep & ~picture.is_crowd).any() or picture.is_crowd.all():
                return _part(picture.kept(keep), (x0, y0, x1, y1))
    return picture


def _part(picture: Picture, rectangle: tuple[int, int, int, int]) -> Picture:
    x0, y0, x1, y1 = rectangle
    low, high = np.asarray((x0, y0, x0, y0)), np.asarray((x1, y1, x1, y1))
    boxes = np.concatenate((np.maximum(picture.boxes[:, :2], low[:2]), np.minimum(picture.boxes[:, 2:], high[:2])), axis=1) - low
    return replace(picture, rgb=picture.rgb[y0:y1, x0:x1], masks=picture.masks[:, y0:y1, x0:x1], boxes=boxes)


def _mirrored(picture: Picture) -> Picture:
    boxes = picture.boxes.copy()
    boxes[:, 0::2] = picture.rgb.shape[1] - picture.boxes[:, 2::-2]
    return replace(picture, rgb=picture.rgb[:, ::-1], masks=picture.masks[:, :, ::-1], boxes=boxes)


def resized(picture: Picture, settings: SsdSettings) -> Picture:
    """The picture at its size, without the objects of which too little is seen."""
    size, (height, width) = settings.size, picture.rgb.shape[:2]
    rgb = np.asarray(cv2.resize(picture.rgb, (size, size)), dtype=np.float32)
    boxes = picture.boxes * (size / width, size / height, size / width, size / height)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides > settings.least_side).all(axis=1)
    shown = replace(picture, rgb=rgb, masks=_small_masks(picture.masks[keep], size), boxes=boxes[keep])
    return replace(shown, class_ids=picture.class_ids[keep], is_crowd=picture.is_crowd[keep])


def _small_masks(masks: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Masks at another size: bilinear, in whole numbers, all at once as the channels of an image (official code)."""
    parts = [masks[start : start + _MAX_CHANNELS] for start in range(0, len(masks), _MAX_CHANNELS)]
    small = [np.asarray(cv2.resize(np.ascontiguousarray(part.transpose(1, 2, 0)), (size, size)), dtype=np.uint8) for part in parts]
    joined = [part.reshape(size, size, -1).transpose(2, 0, 1) for part in small]
    return np.concatenate(joined) if joined else np.zeros((0, size, size), dtype=np.uint8)
