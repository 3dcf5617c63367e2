"""The soft masks of a clip, kept: rounded to 255 levels, compressed, one file for each, with the recent ones in memory within a budget.

A file is named by the SHA-256 of what it holds. So equal masks are stored once, a file never changes, and damage is noticed. It holds, little-endian:
`RSM1`, height, width, the number of objects and their ids (uint32), then one plane of bytes per object, compressed by zlib. The background is what
the objects leave of 255.
"""

import hashlib
import struct
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rotoscope._files import output_error, write_atomically
from rotoscope.errors import InputError, MaskError
from rotoscope.types import Masks

LEVELS = 255
"""Probabilities are kept in steps of 1/255."""

_MAGIC = b"RSM1"
_HEADER = struct.Struct("<4sIII")
_COMPRESSION = 1  # of 9: twice as fast as the default, for a tenth more bytes
_NAME_DIGITS = 40  # of 64; 160 bits do not collide


def levels_of(masks: Masks) -> UInt8[Tensor, "channels h w"]:
    """The probabilities in steps of 1/255, each within one step, their sum exactly 255, and the winner of each pixel the same.

    Pixels are shared out by largest remainder. Where that makes a tie of what was none, the winner takes one step from the other.

    Raises:
        MaskError: the probabilities are not finite, or negative.
    """
    probs = masks.probs.detach().cpu().float()
    if not bool(torch.isfinite(probs).all()) or bool((probs < 0).any()):
        message = f"masks of the objects {list(masks.object_ids)} hold negative or non-finite probabilities; they cannot be stored"
        raise MaskError(message)
    exact = (probs * (LEVELS / probs.sum(dim=0).clamp(min=1e-12))).flatten(1)
    levels = (exact > LEVELS / 2).to(torch.uint8) * LEVELS
    soft = (exact.amax(dim=0) < LEVELS - 0.25).nonzero().flatten()  # the others are certain, within a quarter of a step
    levels[:, soft] = _shared_out(exact[:, soft]).to(torch.uint8)
    return levels.view(probs.shape)


def encode(masks: Masks) -> bytes:
    """The content of a file."""
    planes = levels_of(masks)[1:].contiguous().numpy()
    head = _HEADER.pack(_MAGIC, *masks.hw, len(masks.object_ids)) + struct.pack(f"<{len(masks.object_ids)}I", *masks.object_ids)
    return head + zlib.compress(planes.tobytes(), _COMPRESSION)


def decode(content: bytes) -> Masks:
    """The masks that a file holds.

    Raises:
        MaskError: it is not such a file, or damaged.
    """
    try:
        magic, height, width, count = _HEADER.unpack_from(content)
        ids = struct.unpack_from(f"<{count}I", content, _HEADER.size)
        planes = zlib.decompress(content[_HEADER.size + 4 * count :])
        objects = torch.from_numpy(np.frombuffer(bytearray(planes), dtype=np.uint8).reshape(count, height, width)) if count else None
    except (struct.error, zlib.error, ValueError) as error:
        message = f"stored masks are damaged ({error})"
        raise MaskError(message) from error
    if magic != _MAGIC:
        message = f"stored masks begin with {magic!r} and not with {_MAGIC!r}"
        raise MaskError(message)
    levels = torch.zeros((0, height, width)) if objects is None else objects.float()
    return Masks(torch.cat((LEVELS - levels.sum(dim=0, keepdim=True), levels)) / LEVELS, ids)


class SoftMaskStore:
    """Masks by key, on disk for good and in memory while there is room; safe after a crash at any point.

    Args:
        folder: where the files go; it is made if need be.
        max_bytes: how much memory the masks may take; the least recently used are then read from the disk again.
        durable: wait for the disk at each file, so that it survives a power cut too.
    """

    def __init__(self, folder: Path, *, max_bytes: int, durable: bool = True) -> None:
        if max_bytes < 0:
            message = f"a budget of {max_bytes} bytes for masks is not possible; give 0 or more"
            raise InputError(message)
        self._folder = folder
        self._max_bytes = max_bytes
        self._durable = durable
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self.used_bytes = 0

    def put(self, masks: Masks) -> str:
        """Store masks, and give the key under which `get` finds them, rounded.

        Raises:
            OutputError: they cannot be written.
            MaskError: they are not finite, or negative.
        """
        content = encode(masks)
        key = hashlib.sha256(content).hexdigest()[:_NAME_DIGITS]
        path = self.path_of(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_there = path.is_file() and path.stat().st_size == len(content)
        except OSError as error:
            raise output_error(path, error) from error
        if not is_there:
            write_atomically(path, content, durable=self._durable)
        self._keep(key, content)
        return key

    def get(self, key: str) -> Masks:
        """The masks of a key, always the same bit for bit.

        Raises:
            MaskError: the file is missing or damaged; the message names it.
        """
        if key in self._recent:
            self._recent.move_to_end(key)
            return decode(self._recent[key])
        content = self._read(key)
        self._keep(key, content)
        return decode(content)

    def is_sound(self, key: str) -> bool:
        """Whether the file of a key is there and undamaged."""
        try:
            self._read(key)
        except MaskError:
            return False
        return True

    def path_of(self, key: str) -> Path:
        """The file of a key."""
        return self._folder / key[:2] / f"{key}.masks"

    def _read(self, key: str) -> bytes:
        path = self.path_of(key)
        try:
            content = path.read_bytes()
        except OSError as error:
            message = f"the masks {path} cannot be read ({error.strerror}); undo the step that made them, or propagate again"
            raise MaskError(message) from error
        if hashlib.sha256(content).hexdigest()[:_NAME_DIGITS] != key:
            message = f"the masks {path} are damaged; undo the step that made them, or propagate again"
            raise MaskError(message)
        return content

    def _keep(self, key: str, content: bytes) -> None:
        if key not in self._recent:
            self._recent[key] = content
            self.used_bytes += len(content)
        self._recent.move_to_end(key)
        while self.used_bytes > self._max_bytes:
            _, dropped = self._recent.popitem(last=False)
            self.used_bytes -= len(dropped)


def _shared_out(exact: Float[Tensor, "channels m"]) -> Float[Tensor, "channels m"]:
    """Whole numbers that sum to 255, by largest remainder, with the largest at the same place."""
    levels = exact.floor()
    fractions = exact - levels
    left = LEVELS - levels.sum(dim=0)
    while bool((left > 0).any()):
        columns = (left > 0).nonzero().flatten()
        receivers = fractions[:, columns].argmax(dim=0)
        levels[receivers, columns] += 1
        fractions[receivers, columns] = -1
        left[columns] -= 1
    winners = exact.max(dim=0).indices
    while bool((wrong := levels.max(dim=0).indices != winners).any()):  # a tie by rounding went to a lower channel
        columns = wrong.nonzero().flatten()
        levels[levels[:, columns].argmax(dim=0), columns] -= 1
        levels[winners[columns], columns] += 1
    return levels
