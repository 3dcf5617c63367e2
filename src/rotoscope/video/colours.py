"""What painted masks mean: gray levels and colours to object ids, with smooth edges and lossy files told from plain ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rotoscope.errors import MaskError
from rotoscope.video.palette import palette

_HALF = 128
_LEAST_FLAT_SHARE = 0.5  # of the pixels of anything painted; photographs have next to none
_MOST_COLOURS = 255
_SAME_COLOUR_DISTANCE = 24  # summed over the channels; colours of the palette's first 64 ids are at least 64 apart
_MOST_IDS_WITHOUT_PROOF = 127  # ids 1..n beyond this look like all the levels of a blurred edge
_FEWEST_LEVELS_OF_A_BLUR = 8  # where none of them is white


@dataclass(frozen=True, slots=True)
class Reading:
    """Ids as they were understood, 255 not yet taken for "ignore", and what was guessed on the way."""

    ids: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def read_levels(levels: NDArray[np.uint8], name: str, *, lossy: bool) -> Reading:
    """The ids of a grayscale image `[h, w]`.

    Args:
        levels: the gray levels.
        name: the file, for messages.
        lossy: whether compression may have changed them.

    Raises:
        MaskError: it looks like a photograph.
    """
    present = np.unique(levels)
    present = present[present > 0]
    if present.tolist() == [255]:
        return Reading((levels == 255).astype(np.int64))
    if not _is_smooth(levels, present, lossy=lossy):
        note = ("lossy compression may have changed the ids; save masks as PNG",) if lossy and present.size else ()
        return Reading(levels.astype(np.int64), note)
    extreme = float(((levels < 16) | (levels >= 240)).mean())
    if extreme < _LEAST_FLAT_SHARE:
        message = (
            f"{name} is no mask but looks like a photograph: {1 - extreme:.0%} of it is neither black nor white; give object ids, or black and white"
        )
        raise MaskError(message)
    return Reading(
        (levels >= _HALF).astype(np.int64), (f"it has {present.size} gray levels, as smooth edges have; it was cut at half, white being object 1",)
    )


def _is_smooth(levels: NDArray[np.uint8], present: NDArray[np.uint8], *, lossy: bool) -> bool:
    """Whether gray levels are the steps of smooth edges rather than ids: bright at most, and few of them with a patch of their own."""
    between = present[present < 255]
    counts_up = between.tolist() == list(range(1, between.size + 1)) and between.size <= _MOST_IDS_WITHOUT_PROOF
    if present.size == 0 or present[-1] < _HALF or (counts_up and not lossy):
        return False
    if lossy:
        return True
    if present[-1] < 255 and present.size < _FEWEST_LEVELS_OF_A_BLUR:
        return False
    with_patch = np.unique(levels[solid_pixels(levels)])
    return bool(np.isin(between, with_patch).mean() <= 0.25)


def read_colours(rgb: NDArray[np.uint8], name: str) -> Reading:
    """The ids of a colour image `[h, w, 3]`: those of the DAVIS palette if it is painted with it, else a number per flat colour.

    Raises:
        MaskError: it looks like a photograph.
    """
    codes = _codes(rgb)
    colours, places, counts = np.unique(codes, return_inverse=True, return_counts=True)
    places = places.reshape(codes.shape)
    labels = _palette_labels(colours)
    if (labels >= 0).all():
        return Reading(labels[places])
    flat = _flat_colours(codes, colours, counts, name)
    nearest = _nearest(colours, flat)
    ids, notes = _number(flat)
    blended = int(counts[colours != flat[nearest]].sum())
    if blended:
        notes = (*notes, f"{blended} pixels are of blended colours, as smooth edges have; each went to the nearest of {len(flat)} flat colours")
    return Reading(ids[nearest][places], notes)


def solid_pixels(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """The pixels whose eight neighbours all have their value; none on the border."""
    solid = np.zeros(values.shape, dtype=bool)
    if min(values.shape) >= 3:
        middle = values[1:-1, 1:-1]
        height, width = values.shape
        around = [values[y : height - 2 + y, x : width - 2 + x] == middle for y in range(3) for x in range(3)]
        solid[1:-1, 1:-1] = np.logical_and.reduce(around)
    return solid


def _flat_colours(codes: NDArray[np.int64], colours: NDArray[np.int64], counts: NDArray[np.intp], name: str) -> NDArray[np.int64]:
    """The colours that were painted, ascending: those with a patch of their own, without those that compression made from a larger one.

    If there are few colours and none has a patch, all were painted.
    """
    patched = np.isin(colours, np.unique(codes[solid_pixels(codes)]))
    if not patched[colours > 0].any() and colours.size <= 16:
        return colours
    painted: list[int] = []
    is_mask = counts[patched].sum() >= _LEAST_FLAT_SHARE * codes.size
    if is_mask:
        for colour in colours[patched][np.argsort(-counts[patched], kind="stable")].tolist():
            if all(_distance(colour, other) > _SAME_COLOUR_DISTANCE for other in painted):
                painted.append(colour)
            if len(painted) > _MOST_COLOURS:
                is_mask = False
                break
    if not is_mask:
        message = f"{name} is no mask but looks like a photograph: it has {colours.size} colours; paint each object in one flat colour on black"
        raise MaskError(message)
    return np.array(sorted(painted))


def _nearest(colours: NDArray[np.int64], flat: NDArray[np.int64]) -> NDArray[np.intp]:
    """For each colour which of the flat ones is nearest; ties go to the first."""
    nearest = np.zeros(colours.shape, dtype=np.intp)
    least = np.full(colours.shape, 3 * 256)
    for number, colour in enumerate(flat.tolist()):  # one at a time: a table of all pairs could be huge
        apart = np.abs(_channels(colours) - _channels(np.array(colour))).sum(axis=1)
        nearest[apart < least] = number
        least = np.minimum(apart, least)
    return nearest


def _number(flat: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The id of each flat colour: the palette's if all are near to a colour of it, else 1, 2, ... in ascending order, without black."""
    apart = np.abs(_channels(flat)[:, None] - palette().astype(np.int64)[None]).sum(axis=2)
    if (apart.min(axis=1) <= _SAME_COLOUR_DISTANCE // 2).all():
        return apart.argmin(axis=1), ()
    is_black = _channels(flat).sum(axis=1) <= _SAME_COLOUR_DISTANCE
    ids = np.where(is_black, 0, np.cumsum(~is_black))
    named = ", ".join(f"#{colour:06x} is object {number}" for colour, number in zip(flat.tolist(), ids.tolist(), strict=True) if number)
    ground = "" if is_black.any() else "; nothing is black, so there is no background"
    return ids, (f"its colours are not those of the DAVIS palette; {named}{ground}",)


def _codes(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Each colour as one number, which sorts by red, then green, then blue."""
    wide = rgb.astype(np.int64)
    codes: NDArray[np.int64] = wide[:, :, 0] << 16 | wide[:, :, 1] << 8 | wide[:, :, 2]
    return codes


def _channels(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)


def _distance(colour: int, other: int) -> int:
    return sum(abs((colour >> shift & 255) - (other >> shift & 255)) for shift in (16, 8, 0))


def _palette_labels(colours: NDArray[np.int64]) -> NDArray[np.int64]:
    """The palette's label of each colour; -1 for others."""
    label_of = {code: label for label, code in enumerate(_codes(palette()[None])[0].tolist())}
    return np.array([label_of.get(colour, -1) for colour in colours.tolist()])
