"""Masks in: label maps from whatever people draw them with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rotoscope._files import natural_key
from rotoscope.errors import MaskError
from rotoscope.types import MAX_OBJECT_ID
from rotoscope.video.colours import Reading, read_colours, read_levels
from rotoscope.video.folders import IMAGE_SUFFIXES, open_picture

_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP")
_MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".npy")


@dataclass(frozen=True, slots=True)
class LoadedLabels:
    """A label map from a file.

    Attributes:
        labels: the object id of each pixel, 0 for the background; int32 `[h, w]`.
        notes: what had to be guessed or dropped, a sentence each, for the user to check; usually none.
    """

    labels: Tensor
    notes: tuple[str, ...]


def read_labels(path: str | Path, *, hw: tuple[int, int] | None = None, resize: bool = False) -> LoadedLabels:
    """The label map of a mask file, with at least one object.

    - Indexed PNG: the indices are the ids, whatever the palette. Grayscale with 8 or 16 bits, .npy: the values are the ids.
    - 0 and 255 (or 65535 in 16 bits) alone, 1 bit, booleans: object 1.
    - Colours of the DAVIS palette: its ids. Other flat colours: ids in ascending order of the colours, black being the background; noted.
    - Smooth edges: gray is cut at half, blended colours go to the nearest of the flat colours; noted.
    - 255 beside ids from 1 to less than 255: pixels to ignore, so background; noted.

    Args:
        path: the file.
        hw: the size of the frame the mask is for; None to take any.
        resize: resize a mask of another size (each pixel takes the nearest one's id) instead of refusing it; noted.

    Raises:
        MaskError: the file is missing, no mask, of another size than `hw`, or holds no object.
    """
    path = Path(path)
    reading = _read_array(path) if path.suffix.lower() == ".npy" else _read_image(path)
    ids, notes = _without_ignored(reading)
    if not ids.any():
        message = f"the mask {path} is empty: every pixel is background; draw at least one object"
        raise MaskError(message)
    if hw is not None and ids.shape != hw:
        ids, note = _fitted(path, ids, hw, resize=resize)
        notes = (*notes, note)
    if int(ids.max()) > MAX_OBJECT_ID or int(ids.min()) < 0:
        message = f"the mask {path} holds the values {int(ids.min())} to {int(ids.max())}; object ids go from 1 to {MAX_OBJECT_ID}, 0 is background"
        raise MaskError(message)
    return LoadedLabels(torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int32)), tuple(f"{path}: {note}" for note in notes))


def read_stored_labels(path: str | Path) -> NDArray[np.int32]:
    """The ids in a file that `write_labels` made, exactly: nothing is guessed, and no object is fine.

    Raises:
        MaskError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    image = open_picture(path, MaskError)
    if image.mode not in ("P", "L", "1", "I", "I;16"):
        message = f"{path} is a colour image, not a label map; it was changed since Rotoscope wrote it, write it again"
        raise MaskError(message)
    return np.asarray(image).astype(np.int32)


def read_label_folder(folder: str | Path, frame_names: Sequence[str] = ()) -> dict[int, Path]:
    """The mask files of a folder, by the frame they are for: 00030.png is for frame 30.

    Args:
        folder: holds images or .npy files named like the frames.
        frame_names: the names of a clip's frames (`Clip.frame_names`), if they have any; a mask named like one is for that one.

    Raises:
        MaskError: there is no such folder, no mask in it, one whose frame cannot be told, or two for one frame.
    """
    folder = Path(folder)
    if not folder.is_dir():
        message = f"there is no folder of masks {folder}; check the name"
        raise MaskError(message)
    paths = [path for path in folder.iterdir() if path.suffix.lower() in _MASK_SUFFIXES and not path.name.startswith(".")]
    if not paths:
        message = f"the folder {folder} holds no masks; put files there that are named like the frames, such as 00000.png"
        raise MaskError(message)
    position = {name: index for index, name in enumerate(frame_names)}
    masks: dict[int, Path] = {}
    for path in sorted(paths, key=natural_key):
        index = _frame_of(path, position)
        if index in masks:
            message = f"{masks[index]} and {path} are both for frame {index}; keep one"
            raise MaskError(message)
        masks[index] = path
    return masks


def _frame_of(path: Path, position: dict[str, int]) -> int:
    if path.stem in position:
        return position[path.stem]
    number = re.search(r"\d+$", path.stem)
    if number is None or position:
        named = "like a frame of the clip" if position else "by its frame's number, such as 00030.png"
        message = f"it cannot be told which frame the mask {path} is for; name it {named}, or write --mask FRAME=FILE"
        raise MaskError(message)
    return int(number[0])


def _read_array(path: Path) -> Reading:
    try:
        values: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        message = f"there is no mask {path}; check the name"
        raise MaskError(message) from error
    except (OSError, ValueError, EOFError) as error:
        message = f"{path} is not a readable .npy array of numbers: {error}"
        raise MaskError(message) from error
    if values.ndim != 2 or values.dtype.kind not in "biuf" or 0 in values.shape:
        message = f"{path} holds {values.dtype} {list(values.shape)}; save object ids as integers [h, w]"
        raise MaskError(message)
    return _read_values(path, values)


def _read_values(path: Path, values: NDArray[np.generic]) -> Reading:
    if values.dtype.kind != "f":
        return Reading(_only_top(values.astype(np.int64)))
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        message = f"{path} holds values that are not finite; save object ids as integers"
        raise MaskError(message)
    if (numbers == np.round(numbers)).all():
        return Reading(_only_top(numbers.clip(-1, MAX_OBJECT_ID + 1).astype(np.int64)))
    if numbers.min() >= 0 and numbers.max() <= 1:
        return Reading((numbers >= 0.5).astype(np.int64), ("probabilities were cut at 0.5",))
    message = f"{path} holds fractions from {numbers.min():g} to {numbers.max():g}; save object ids as integers, or probabilities in 0..1"
    raise MaskError(message)


def _read_image(path: Path) -> Reading:
    image = open_picture(path, MaskError)
    lossy = image.format in _LOSSY_FORMATS
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        return _read_transparent(path, image)
    if image.mode == "P" and not _is_gray_ramp(image):
        return Reading(_only_top(np.asarray(image).astype(np.int64)))
    if image.mode in ("L", "1", "P"):
        return read_levels(np.asarray(image.convert("L")), str(path), lossy=lossy)
    if image.mode == "F" or image.mode.startswith("I"):
        return _read_values(path, np.asarray(image))
    return _read_rgb(path, np.asarray(image.convert("RGB")), lossy=lossy)


def _read_rgb(path: Path, rgb: NDArray[np.uint8], *, lossy: bool) -> Reading:
    if (rgb == rgb[:, :, :1]).all():
        return read_levels(rgb[:, :, 0], str(path), lossy=lossy)
    return read_colours(rgb, str(path))


def _read_transparent(path: Path, image: Image.Image) -> Reading:
    """Pixels less than half opaque are background."""
    rgba = np.asarray(image.convert("RGBA"))
    seen = rgba[:, :, 3] >= 128
    smooth = bool(((rgba[:, :, 3] != 0) & (rgba[:, :, 3] != 255)).any())
    if seen.all() or not (rgba[seen][:, :3] == 0).all():
        reading = _read_rgb(path, rgba[:, :, :3] * seen[:, :, None].astype(np.uint8), lossy=False)
    else:  # black paint on a clear ground
        reading = Reading(seen.astype(np.int64))
    return Reading(reading.ids, (*reading.notes, "half-transparent pixels were cut at half")) if smooth else reading


def _is_gray_ramp(image: Image.Image) -> bool:
    """Whether an indexed image is a grayscale one in disguise: index and gray level are the same."""
    colours = np.frombuffer(bytes(image.getpalette() or ()), dtype=np.uint8).reshape(-1, 3)
    return len(colours) == 256 and bool((colours == np.arange(256)[:, None]).all())


def _only_top(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Object 1 if the only value besides 0 is the largest of 8 or of 16 bits."""
    top = int(ids.max())
    return (ids == top).astype(np.int64) if top in (255, 65535) and bool(((ids == 0) | (ids == top)).all()) else ids


def _without_ignored(reading: Reading) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    ids, notes = reading.ids, reading.notes
    if int(ids.max()) != 255 or not bool(((ids > 0) & (ids < 255)).any()):
        return ids, notes
    ignored = ids == 255
    count = int(ignored.sum())
    return np.where(ignored, 0, ids), (*notes, f"label 255 means 'ignore' beside other ids: {count} pixels were taken as background")


def _fitted(path: Path, ids: NDArray[np.int64], hw: tuple[int, int], *, resize: bool) -> tuple[NDArray[np.int64], str]:
    (mask_height, mask_width), (height, width) = ids.shape, hw
    sizes = f"{mask_width}x{mask_height} but the frame is {width}x{height}"
    if not resize:
        message = f"the mask {path} is {sizes}; draw it on a frame of the video, or resize it with --resize-mask"
        raise MaskError(message)
    rows = (2 * np.arange(height) + 1) * mask_height // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask_width // (2 * width)
    fitted = ids[rows[:, None], columns]
    lost = sorted(set(np.unique(ids).tolist()) - set(np.unique(fitted).tolist()) - {0})
    if lost:
        message = f"the mask {path} is {sizes}; resized, it loses the objects {lost}, which are too small; draw them on a frame of the video"
        raise MaskError(message)
    return fitted, f"it is {sizes}; it was resized"
