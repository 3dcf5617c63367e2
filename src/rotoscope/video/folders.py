"""Pictures as clips: folders of images, single images, and arrays in memory."""

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rotoscope._files import natural_key
from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame
from rotoscope.video.files import frame_range
from rotoscope.video.streams import Warnings, check_size, frame_of

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""The files of a folder that are its frames, in any case; others are passed over."""

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a stored picture upright, by its EXIF orientation (EXIF 2.32, 4.6.4 A, tag 274)."""


def open_picture(path: Path, error_type: type[InputError]) -> Image.Image:
    """A wholly decoded image file.

    Raises:
        InputError: of the type given: the file is missing, unreadable, no image, damaged or cut short.
    """
    with _explaining(path, error_type), Image.open(path) as image:
        image.load()
        return image


def check_picture(path: Path) -> None:
    """Refuse a file that is no image, by its first bytes; one that is damaged further on passes.

    Raises:
        VideoError: the file is missing, unreadable, or no image.
    """
    with _explaining(path, VideoError), Image.open(path):
        return


@contextmanager
def _explaining(path: Path, error_type: type[InputError]) -> Iterator[None]:
    """Say in our words why Pillow could not read a file."""
    try:
        yield
    except FileNotFoundError as error:
        message = f"there is no image {path}; check the name"
        raise error_type(message) from error
    except PermissionError as error:
        message = f"{path} may not be read; check its permissions"
        raise error_type(message) from error
    except Image.DecompressionBombError as error:
        message = f"{path} has too many pixels to be decoded ({error}); shrink it first"
        raise error_type(message) from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        message = f"{path} is not an image that can be read, or it is damaged ({error}); replace it"
        raise error_type(message) from error


def read_picture(path: Path) -> NDArray[np.uint8]:
    """An image as upright RGB `[h, w, 3]`: EXIF rotation applied, more than 8 bits rounded down, alpha dropped, one channel repeated.

    EXIF data that cannot be read is passed over. Of several pictures in a file, the first is taken.

    Raises:
        VideoError: it cannot be read, or holds floating-point values, whose range nobody knows.
    """
    image = _upright(open_picture(path, VideoError))
    if image.mode == "F":
        message = f"{path} holds floating-point values; save it with 8 or 16 bits per channel"
        raise VideoError(message)
    if image.mode.startswith("I"):
        gray = (np.array(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns that transparency is lost
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # what editors leave of EXIF data makes Pillow raise SyntaxError, struct.error and more
        return image
    return image if turn is None else image.transpose(turn)


class FolderClip:
    """The images of a folder as a clip, in natural order: img2 comes before img10, and gaps in the numbering do not matter.

    Args:
        paths: the images, in order, at least one.
        name: the name of the clip.

    Attributes:
        frame_names: the names of the files without their suffixes.
        hw: the size of the first; the others must have it too.

    Raises:
        VideoError: the first image cannot be read.
    """

    is_live = False
    fps: float | None = None

    def __init__(self, paths: list[Path], name: str) -> None:
        self.paths = paths
        self.name = name
        self.num_frames = len(paths)
        self.frame_names = tuple(path.stem for path in paths)
        self.warnings = Warnings()
        height, width, _ = read_picture(paths[0]).shape
        self.hw: tuple[int, int] = (height, width)

    def frames(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Generator[Frame]:
        """The frames from `start` up to but without `stop`, descending with `reverse`.

        Raises:
            InputError: a number is negative.
            VideoError: an image cannot be read or has another size; the message names it.
        """
        wanted = frame_range(start, stop, self.num_frames)
        return self._walk(wanted[::-1] if reverse else wanted)

    def _walk(self, wanted: range) -> Generator[Frame]:
        for index in wanted:
            rgb = read_picture(self.paths[index])
            check_size(str(self.paths[index]), index, rgb.shape[:2], self.hw)
            yield frame_of(index, rgb, None, self.frame_names[index])


class ArrayClip:
    """Frames that are in memory already.

    Args:
        pictures: uint8 RGB, `[t, h, w, 3]` or `[t, 3, h, w]`, at least one; an array that fits both is taken as the former.

    Raises:
        VideoError: another shape or type.
    """

    is_live = False
    name = "frames"
    fps: float | None = None
    frame_names: tuple[str, ...] = ()

    def __init__(self, pictures: NDArray[np.uint8] | Tensor) -> None:
        if isinstance(pictures, np.ndarray) and not (pictures.flags.writeable and min(pictures.strides, default=0) >= 0):
            pictures = pictures.copy()  # torch shares neither read-only memory nor negative strides
        if str(pictures.dtype).removeprefix("torch.") != "uint8" or pictures.ndim != 4 or 3 not in (pictures.shape[-1], pictures.shape[1]):
            message = f"frames are {pictures.dtype} {list(pictures.shape)}; give RGB as uint8 [t, h, w, 3] or [t, 3, h, w]"
            raise VideoError(message)
        frames = torch.as_tensor(pictures)
        self._frames = frames.permute(0, 3, 1, 2) if frames.shape[-1] == 3 else frames
        if 0 in frames.shape:
            message = f"frames are {list(frames.shape)}, which holds no picture; give at least one"
            raise VideoError(message)
        self.num_frames = len(frames)
        self.hw: tuple[int, int] = (self._frames.shape[2], self._frames.shape[3])
        self.warnings = Warnings()

    def frames(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Generator[Frame]:
        """The frames from `start` up to but without `stop`, descending with `reverse`; their images are views of what was given.

        Raises:
            InputError: a number is negative.
        """
        wanted = frame_range(start, stop, self.num_frames)
        return self._walk(wanted[::-1] if reverse else wanted)

    def _walk(self, wanted: range) -> Generator[Frame]:
        for index in wanted:
            yield Frame(index, self._frames[index].cpu())


def open_folder(folder: Path) -> FolderClip:
    """The images of a folder as a clip.

    Raises:
        VideoError: the folder cannot be read, holds no images, or two that differ in their suffix alone.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")]
    except OSError as error:
        message = f"the folder {folder} cannot be read: {error.strerror}"
        raise VideoError(message) from error
    if not paths:
        message = f"the folder {folder} holds no images ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}); give the folder that holds the frames"
        raise VideoError(message)
    stem, count = Counter(path.stem for path in paths).most_common(1)[0]
    if count > 1:
        message = f"the folder {folder} holds {count} images named {stem}; keep one of each name, and masks in a folder of their own"
        raise VideoError(message)
    return FolderClip(sorted(paths, key=natural_key), folder.resolve().name or "clip")
