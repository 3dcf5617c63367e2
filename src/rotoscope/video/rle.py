"""Masks as run lengths, the way COCO and YouTube-VIS files hold them: a few hundred characters for a mask, exact, and fit for JSON.

A mask is read down its columns. The lengths of its runs of 0 and 1 in turn, 0 first, are a list ("uncompressed", as COCO's crowds are) or text: from
the fourth length on each is the difference to the last but one, in pieces of five bits, lowest first, with a sixth bit where more pieces follow and
48 added to make characters (https://github.com/cocodataset/cocoapi, common/maskApi.c).

This is numpy and not pycocotools: that one's version 2.0.11 fails for more than 255 masks at a time with numpy 2, and trusts lengths that
do not fit the size.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from rotoscope.errors import MaskError

_ZERO = 48  # the character that stands for 0
_MORE, _SIGN, _BITS = 32, 16, 5
_MOST_PIECES = 7  # of a length: 35 bits, beyond any picture


class EncodedMask(TypedDict):
    """A mask as COCO's JSON has it: `size` is height and width, `counts` the run lengths as text."""

    size: list[int]
    counts: str


def encode_mask(mask: NDArray[np.bool_]) -> EncodedMask:
    """The run lengths of a mask `[h, w]`; whatever is not 0 belongs to it.

    Raises:
        MaskError: the array has other axes, or no pixels.
    """
    if mask.ndim != 2 or mask.size == 0:
        message = f"an array of shape {list(mask.shape)} is no mask; masks are [h, w]"
        raise MaskError(message)
    values = np.asarray(mask, dtype=np.bool_).T.reshape(-1)
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(ends, prepend=0, append=values.size)
    if values[0]:
        lengths = np.concatenate(([0], lengths))
    return {"size": [int(side) for side in mask.shape], "counts": pack_run_lengths(lengths)}


def decode_mask(encoded: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask `[h, w]` of run lengths, as text or as a list.

    Raises:
        MaskError: they are damaged, or do not add up to the size.
    """
    height, width = _size(encoded)
    lengths = run_lengths(encoded)
    values = np.arange(lengths.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, lengths).reshape(width, height).T)


def run_lengths(encoded: Mapping[str, Any]) -> NDArray[np.int64]:
    """The lengths of the runs of 0 and 1 in turn, 0 first.

    Raises:
        MaskError: they are damaged, or do not add up to the size.
    """
    height, width = _size(encoded)
    counts = encoded.get("counts")
    lengths = _listed(counts) if isinstance(counts, list | tuple | np.ndarray) else unpack_run_lengths(counts)
    if lengths.size and int(lengths.min()) < 0:
        message = f"a run length is {int(lengths.min())}; the mask is damaged"
        raise MaskError(message)
    total = float(lengths.sum(dtype=np.float64))  # of damaged lengths the sum may be beyond 64 bits
    if total != height * width:
        message = f"run lengths cover {total:.0f} pixels of {width}x{height}; the mask is damaged, or its size is not [height, width]"
        raise MaskError(message)
    return lengths


def mask_area(encoded: Mapping[str, Any]) -> int:
    """How many pixels belong to the mask.

    Raises:
        MaskError: as for `run_lengths`.
    """
    return int(run_lengths(encoded)[1::2].sum())


def mask_box(encoded: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """The smallest box around the mask as x, y, width, height in pixels; all 0 for an empty mask.

    Raises:
        MaskError: as for `run_lengths`.
    """
    height, _ = _size(encoded)
    ends = np.cumsum(run_lengths(encoded))
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not starts.size:
        return 0, 0, 0, 0
    left, right = int(starts[0] // height), int((ends[-1] - 1) // height)
    if (starts // height != (ends - 1) // height).any():  # a run over the end of a column has its last row and the next column's first
        top, bottom = 0, height - 1
    else:
        top, bottom = int((starts % height).min()), int(((ends - 1) % height).max())
    return left, top, right - left + 1, bottom - top + 1


def pack_run_lengths(lengths: NDArray[np.int64]) -> str:
    """Run lengths as text."""
    numbers = np.array(lengths, dtype=np.int64)
    numbers[3:] -= np.asarray(lengths, dtype=np.int64)[1:-2]
    pieces, present = [], []
    goes_on = np.ones(numbers.shape, dtype=np.bool_)
    while goes_on.any():
        bits, numbers = numbers & (_MORE - 1), numbers >> _BITS
        present.append(goes_on)
        goes_on = goes_on & np.where(bits & _SIGN, numbers != -1, numbers != 0)  # until the rest is the sign alone
        pieces.append(bits + _MORE * goes_on + _ZERO)
    if not pieces:
        return ""
    characters = np.stack(pieces, axis=1)[np.stack(present, axis=1)]
    return characters.astype(np.uint8).tobytes().decode("ascii")


def unpack_run_lengths(packed: object) -> NDArray[np.int64]:
    """Run lengths from text (or its bytes); they may still not fit a mask.

    Raises:
        MaskError: this is no text of run lengths.
    """
    if not isinstance(packed, str | bytes) or not packed:
        message = f"run lengths are text or a list of numbers, not {'nothing' if not packed else type(packed).__name__}"
        raise MaskError(message)
    characters = np.frombuffer(packed if isinstance(packed, bytes) else packed.encode("utf-8"), dtype=np.uint8).astype(np.int64) - _ZERO
    ends = np.flatnonzero((characters & _MORE) == 0)
    sizes = np.diff(ends, prepend=-1)
    if characters.min() < 0 or characters.max() >= 2 * _MORE or not ends.size or ends[-1] + 1 != characters.size or sizes.max() > _MOST_PIECES:
        message = "the text of the run lengths is damaged: it holds other characters than those from '0' to 'o', or breaks off"
        raise MaskError(message)
    starts = ends + 1 - sizes
    places = np.arange(characters.size) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((characters & (_MORE - 1)) << (_BITS * places), starts)
    numbers -= np.where(characters[ends] & _SIGN, np.int64(1) << (_BITS * sizes), 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def _size(encoded: Mapping[str, Any]) -> tuple[int, int]:
    size = encoded.get("size")
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
        return size[0], size[1]
    message = f"run lengths need a size [height, width] in pixels, not {size!r}"
    raise MaskError(message)


def _listed(counts: Any) -> NDArray[np.int64]:
    try:
        numbers = np.asarray(counts)
    except ValueError:  # lists of different lengths
        numbers = np.zeros(0)
    if numbers.ndim == 1 and numbers.size and numbers.dtype.kind in "iu":
        return numbers.astype(np.int64)
    message = "a list of run lengths must hold whole numbers and nothing else"
    raise MaskError(message)
