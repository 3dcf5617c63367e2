"""All images of a training set at hand as bytes: read once, kept flat in memory (of the GPU, where there is one), so that reading never limits."""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path

import cv2
import numpy as np
import safetensors
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from rotoscope._files import output_error
from rotoscope.datasets.stills import StillImage, numbered, read_still
from rotoscope.errors import InputError
from rotoscope.training.damage import MAX_DAMAGED_SHARE
from rotoscope.training.losses import VOID

logger = logging.getLogger(__name__)

MEAN_COLOUR = (124, 116, 104)
"""Of ImageNet, in bytes: what lies beyond the edge of an image (AOT, section 4 of its sheet)."""
_DECODERS = 4  # threads; decoding releases the interpreter
_NAMED = 5  # images at fault that a message lists


@dataclass(frozen=True, slots=True)
class Rejected:
    """An image that is left out.

    Attributes:
        name: of the image.
        reason: why, naming the file.
        damaged: it could not be read, or its mask does not fit; otherwise it holds no object.
    """

    name: str
    reason: str
    damaged: bool


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image in memory: RGB `[h, w, 3]`, and labels `[h, w]` as `read_still` gives them."""

    name: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageBank:
    """Images and their label maps, one after the other.

    Attributes:
        image_bytes: of each image its red plane, its green and its blue, row by row.
        label_bytes: of each image its labels, row by row: 0 background, 1..n objects without gaps, 255 void.
        starts: where the labels of each image start; its planes start at three times that.
        sizes: height and width of each.
        names: of each, unique.
        rejected: what was left out.
    """

    image_bytes: UInt8[Tensor, " image_bytes"]
    label_bytes: UInt8[Tensor, " label_bytes"]
    starts: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()

    @staticmethod
    def read(stills: Sequence[StillImage], *, limit: int | None = None, longest_side: int | None = None) -> "ImageBank":
        """The images and masks of a set; see `decode` and `collect`, which show their progress.

        Raises:
            InputError: there are none, or more than 1 % are damaged; the message names the first.
        """
        return ImageBank.collect(decode(chosen(stills, limit), longest_side=longest_side))

    @staticmethod
    def collect(items: Iterable[Decoded | Rejected]) -> "ImageBank":
        """The bank of what `decode` gives.

        Raises:
            InputError: no image holds an object, or more than 1 % are damaged; the message names the first.
        """
        decoded: list[Decoded] = []
        rejected: list[Rejected] = []
        for item in items:
            if isinstance(item, Decoded):
                decoded.append(item)
            else:
                rejected.append(item)
        _check_enough(len(decoded), rejected)
        sizes = tuple((one.labels.shape[0], one.labels.shape[1]) for one in decoded)
        names = tuple(one.name for one in decoded)
        starts = tuple(accumulate((height * width for height, width in sizes), initial=0))
        image_bytes, label_bytes = (torch.empty(planes * starts[-1], dtype=torch.uint8) for planes in (3, 1))
        decoded.reverse()
        for start, (height, width) in zip(starts, sizes, strict=False):
            one = decoded.pop()  # so that each lies in memory once, not twice
            planes, stop = torch.from_numpy(one.rgb).permute(2, 0, 1), start + height * width
            image_bytes[3 * start : 3 * stop].view(3, height, width).copy_(planes)
            label_bytes[start:stop].view(height, width).copy_(torch.from_numpy(one.labels))
        return ImageBank(image_bytes, label_bytes, starts[:-1], sizes, names, tuple(rejected))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def device(self) -> torch.device:
        """Where the bytes are."""
        return self.image_bytes.device

    @property
    def num_bytes(self) -> int:
        """The memory taken."""
        return self.image_bytes.numel() + self.label_bytes.numel()

    def to(self, device: torch.device | str) -> "ImageBank":
        """The bank with its bytes on a device; itself if they are there."""
        return replace(self, image_bytes=self.image_bytes.to(device), label_bytes=self.label_bytes.to(device))

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """An image, as a view."""
        start, (height, width) = self.starts[index], self.sizes[index]
        return self.image_bytes[3 * start : 3 * (start + height * width)].view(3, height, width)

    def labels(self, index: int) -> UInt8[Tensor, "h w"]:
        """The labels of an image, as a view: 0 background, 1..n objects without gaps, 255 void."""
        start, (height, width) = self.starts[index], self.sizes[index]
        return self.label_bytes[start : start + height * width].view(height, width)

    def padded(self, indices: Sequence[int]) -> tuple[UInt8[Tensor, "b 3 h w"], UInt8[Tensor, "b h w"], Int64[Tensor, "b 2"]]:
        """Some images as one tensor, at the top left corner of the smallest size that holds each; their labels; their heights and widths.

        Beyond an image lie the mean colour and void. All on the device of the bank; at least one index.
        """
        sizes = [self.sizes[index] for index in indices]
        height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
        colour = torch.tensor(MEAN_COLOUR, dtype=torch.uint8).to(self.device)
        images = colour.view(1, 3, 1, 1).expand(len(sizes), 3, height, width).clone()
        labels = self.label_bytes.new_full((len(sizes), height, width), VOID)
        for row, index in enumerate(indices):
            height, width = sizes[row]
            images[row, :, :height, :width] = self.image(index)
            labels[row, :height, :width] = self.labels(index)
        return images, labels, torch.tensor(sizes, dtype=torch.int64).to(self.device)

    def split(self, share_held_out: float, seed: int = 0) -> tuple[list[int], list[int]]:
        """Two lists of indices: to train on, and held out.

        The name of an image decides, so that it stays on its side however the set grows; the share is met on average.

        Raises:
            InputError: the share is not in 0..1, or one side would be empty though it should not.
        """
        if not 0 <= share_held_out < 1:
            message = f"a share of {share_held_out:g} cannot be held out; give a number from 0 to less than 1"
            raise InputError(message)
        sides: tuple[list[int], list[int]] = ([], [])
        for index, name in enumerate(self.names):
            sides[_position(name, seed) < share_held_out].append(index)
        if not sides[0] or (share_held_out and not sides[1]):
            message = f"{len(self)} images cannot be split so that {share_held_out:.1%} are held out; give more images, or hold none out"
            raise InputError(message)
        return sides

    def save(self, path: Path, *, made_of: str = "") -> None:
        """Write the bank to a safetensors file, whole or not at all; `made_of` is asked for again by `load`.

        Raises:
            OutputError: the file cannot be written.
        """
        record = {"starts": self.starts, "sizes": self.sizes, "names": self.names, "made_of": made_of}
        record["rejected"] = [(one.name, one.reason, one.damaged) for one in self.rejected]
        tensors = {"image_bytes": self.image_bytes.cpu(), "label_bytes": self.label_bytes.cpu()}
        partial = path.with_name(f"{path.name}.partial")
        try:
            save_file(tensors, partial, {_RECORD: json.dumps(record)})
            partial.replace(path)
        except (OSError, safetensors.SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise output_error(path, error if isinstance(error, OSError) else OSError(str(error))) from error

    @staticmethod
    def load(path: Path, *, made_of: str | None = None) -> "ImageBank":
        """The bank of a file that `save` wrote; its bytes are read when they are first used.

        Args:
            path: the file.
            made_of: what it must have been made of; None for anything.

        Raises:
            InputError: the file is missing, no bank, damaged, or made of something else.
        """
        try:
            with safetensors.safe_open(path, "pt") as file:
                record = json.loads((file.metadata() or {})[_RECORD])
                tensors = {name: file.get_tensor(name) for name in ("image_bytes", "label_bytes")}
        except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
            message = f"{path} is not a readable bank of images ({error}); delete it, and it is made again"
            raise InputError(message) from error
        if made_of is not None and record["made_of"] != made_of:
            message = f"{path} was made of other images or other settings; delete it, and it is made again"
            raise InputError(message)
        sizes = tuple((height, width) for height, width in record["sizes"])
        rejected = tuple(Rejected(*one) for one in record["rejected"])
        return ImageBank(**tensors, starts=tuple(record["starts"]), sizes=sizes, names=tuple(record["names"]), rejected=rejected)


_RECORD = "rotoscope.image_bank"


def chosen(stills: Sequence[StillImage], limit: int | None) -> list[StillImage]:
    """At most `limit` images, in the order given: which ones is decided by their names, evenly over the set, and fewer are a part of more.

    Raises:
        InputError: the limit is less than 1.
    """
    if limit is None:
        return list(stills)
    if limit < 1:
        message = f"{limit} images are too few; give 1 or more"
        raise InputError(message)
    order = sorted(range(len(stills)), key=lambda index: _position(stills[index].name, "limit"))
    return [stills[index] for index in sorted(order[:limit])]


def made_of(stills: Iterable[StillImage], *, longest_side: int | None = None) -> str:
    """A digest of the files and settings that a bank is made of: it differs if an image or mask was added, removed or written again.

    Raises:
        InputError: a file is missing.
    """
    digest = hashlib.sha256(str(longest_side).encode())
    for still in stills:
        digest.update(still.name.encode() + still.convention.encode())
        for path in (still.image_path, still.mask_path):
            digest.update(_stamp(path))
    return digest.hexdigest()


def decode(stills: Iterable[StillImage], *, longest_side: int | None = None) -> Generator[Decoded | Rejected]:
    """The images in memory, or why not, in the order given; a few threads are ahead. Closing the generator stops them.

    Args:
        stills: the images.
        longest_side: larger images are reduced to this, and objects that vanish are gone.
    """
    waiting: deque[Future[Decoded | Rejected]] = deque()
    remaining = iter(stills)
    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="rotoscope-decode") as threads:
        try:
            for still in remaining:
                waiting.append(threads.submit(_decode, still, longest_side))
                if len(waiting) > 4 * _DECODERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode(still: StillImage, longest_side: int | None) -> Decoded | Rejected:
    try:
        rgb, labels = read_still(still)
    except InputError as error:
        return Rejected(still.name, str(error), damaged=True)
    if longest_side is not None and max(labels.shape) > longest_side:
        scale = longest_side / max(labels.shape)
        width, height = (max(1, round(side * scale)) for side in (labels.shape[1], labels.shape[0]))
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        labels = numbered(np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.uint8))
    if not ((labels > 0) & (labels != VOID)).any():
        return Rejected(still.name, f"the mask of {still.image_path} holds no object", damaged=False)
    return Decoded(still.name, rgb, labels)


def _check_enough(num_decoded: int, rejected: Sequence[Rejected]) -> None:
    damaged = [one for one in rejected if one.damaged]
    count = num_decoded + len(rejected)
    reasons = "; ".join(one.reason for one in islice(damaged or rejected, _NAMED))
    if len(damaged) > MAX_DAMAGED_SHARE * count:
        message = f"{len(damaged)} of {count} images are damaged, more than {MAX_DAMAGED_SHARE:.0%}: {reasons}. Replace or remove them"
        raise InputError(message)
    if not num_decoded:
        message = f"there is no image to train on: {f'none of {count} holds an object ({reasons})' if count else 'the set is empty'}"
        raise InputError(message)
    if rejected:
        empty = len(rejected) - len(damaged)
        logger.warning("%d of %d images left out: %d damaged, %d without an object: %s", len(rejected), count, len(damaged), empty, reasons)


def _stamp(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise InputError(message) from error
    return f"{path.name} {status.st_size} {status.st_mtime_ns}".encode()


def _position(name: str, seed: int | str) -> float:
    """A number in 0..1 that is a matter of chance, and always the same for a name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") / 2**64
