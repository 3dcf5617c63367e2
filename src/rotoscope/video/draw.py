"""Pictures for people: masks over frames, contact sheets, image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rotoscope._files import write_atomically
from rotoscope.errors import InputError, MaskError
from rotoscope.video.palette import palette, palette_labels

_TILE_WIDTH_PIXELS = 480
_CAPTION_HEIGHT_PIXELS = 24
_GAP_PIXELS = 4
_OUTLINE_PER_PIXELS = 480  # outlines get a pixel thicker, on either side, with every so many pixels of the shorter side

_SMALL_PIXELS = 256  # pictures whose longer side is shorter than this are enlarged before anything is written on them
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE_PER_PIXEL = 1 / 900  # of the shorter side: 0.53 at 480p, 1.2 at 1080p
_FONT_SCALES = (0.4, 1.5)  # below the former letters run together
_PADDING_PIXELS = 3

Picture = NDArray[np.uint8] | Tensor
"""RGB: uint8 `[h, w, 3]`, or a frame's image `[3, h, w]` if it is a tensor."""


def overlay(picture: Picture, labels: NDArray[np.integer] | Tensor, alpha: float = 0.5, *, outline: bool = True) -> NDArray[np.uint8]:
    """The picture with each object tinted and outlined in its colour of the DAVIS palette, as RGB `[h, w, 3]`.

    Args:
        picture: see `Picture`.
        labels: the object id of each pixel, 0 for the background.
        alpha: how much of the colour there is, 0 to 1.
        outline: draw the edge of each object, inside it, in the full colour.

    Raises:
        MaskError: the labels have another size than the picture.
        InputError: alpha is out of range, or the picture is no picture.
    """
    rgb = _rgb(picture)
    ids = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if ids.shape != rgb.shape[:2]:
        message = f"the labels are {list(ids.shape)} but the picture is {list(rgb.shape[:2])}; resize the labels first"
        raise MaskError(message)
    if not 0 <= alpha <= 1:
        message = f"alpha is {alpha}; give 0 (no colour) to 1 (nothing but colour)"
        raise InputError(message)
    inside = ids > 0
    if not inside.any():
        return rgb.copy()
    colours = palette()[palette_labels(ids)]
    drawn = np.where(inside[:, :, None], cv2.addWeighted(rgb, 1 - alpha, colours, alpha, 0), rgb)
    if outline:
        edge = _edges(ids) & inside
        drawn[edge] = colours[edge]
    return drawn.astype(np.uint8, copy=False)


@dataclass(frozen=True, slots=True)
class DrawnObject:
    """An object to be drawn.

    Attributes:
        mask: its pixels, `[h, w]` as large as the picture.
        box: `(x0, y0, x1, y1)` in pixels; parts outside the picture are not seen.
        text: what its label says; letters that are not ASCII show as question marks.
        colour: red, green, blue.
    """

    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]
    text: str
    colour: tuple[int, int, int]


def draw_objects(picture: Picture, objects: Sequence[DrawnObject], alpha: float = 0.45) -> NDArray[np.uint8]:
    """The picture with masks, outlines, boxes and labels, as RGB; what is earlier in the list lies on top.

    A picture whose longer side is less than 256 pixels is enlarged by a whole number, so that its labels can be read.

    Args:
        picture: see `Picture`.
        objects: best first.
        alpha: how much of the colour there is inside masks, 0 to 1 (0.45 is the official display's of YOLACT).

    Raises:
        MaskError: a mask has another size than the picture.
    """
    rgb = tint(picture, objects, alpha)
    factor = enlargement(rgb.shape[:2])
    rgb = _enlarged(rgb, factor)
    boxes = [_corners(one.box, factor) for one in objects]
    width = 1 + min(rgb.shape[:2]) // _OUTLINE_PER_PIXELS
    for one, (start, end) in reversed(list(zip(objects, boxes, strict=True))):
        _draw_outline(rgb, one, factor, width)
        cv2.rectangle(rgb, start, end, one.colour, width)
    _draw_labels(rgb, objects, boxes)
    return rgb


def tint(picture: Picture, objects: Sequence[DrawnObject], alpha: float = 0.45) -> NDArray[np.uint8]:
    """The picture with the masks alone; where they overlap, each lies under those before it, and shines through.

    Raises:
        MaskError: a mask has another size than the picture.
    """
    rgb = _rgb(picture).copy()
    for one in reversed(objects):
        if one.mask.shape != rgb.shape[:2]:
            message = f"the mask is {list(one.mask.shape)} but the picture is {list(rgb.shape[:2])}; resize the mask first"
            raise MaskError(message)
        x, y, width, height = cv2.boundingRect(one.mask.astype(np.uint8))
        part, inside = rgb[y : y + height, x : x + width], one.mask[y : y + height, x : x + width]
        if inside.any():
            paint = np.full_like(part, one.colour)
            np.copyto(part, cv2.addWeighted(part, 1 - alpha, paint, alpha, 0).astype(np.uint8), where=inside[:, :, None])
    return rgb


def enlargement(hw: tuple[int, ...]) -> int:
    """How many times as large as the picture `draw_objects` draws it."""
    return -(-_SMALL_PIXELS // max(hw[:2]))


def contact_sheet(tiles: Sequence[tuple[Picture, str]], columns: int = 4) -> NDArray[np.uint8]:
    """Pictures in rows, each with its caption below, as one RGB picture.

    All tiles get the shape of the first, at most 480 pixels wide; a picture of another shape is centred in it. Captions are plain ASCII: other
    letters show as question marks.

    Raises:
        InputError: there are no pictures, or no columns.
    """
    if not tiles or columns < 1:
        message = f"a contact sheet of {len(tiles)} pictures in {columns} columns is empty; give at least one of each"
        raise InputError(message)
    height, width = _rgb(tiles[0][0]).shape[:2]
    scale = min(1.0, _TILE_WIDTH_PIXELS / width)
    tile_hw = max(1, round(height * scale)), max(1, round(width * scale))
    columns = min(columns, len(tiles))
    step_y, step_x = tile_hw[0] + _CAPTION_HEIGHT_PIXELS + _GAP_PIXELS, tile_hw[1] + _GAP_PIXELS
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * step_y + _GAP_PIXELS, columns * step_x + _GAP_PIXELS, 3), 255, dtype=np.uint8)
    for number, (picture, caption) in enumerate(tiles):
        y, x = number // columns * step_y + _GAP_PIXELS, number % columns * step_x + _GAP_PIXELS
        sheet[y : y + tile_hw[0], x : x + tile_hw[1]] = _fit(_rgb(picture), tile_hw)
        text = sheet[y + tile_hw[0] : y + tile_hw[0] + _CAPTION_HEIGHT_PIXELS, x : x + tile_hw[1]]
        text[...] = _caption(caption, tile_hw[1])
    return sheet


def write_image(path: str | Path, picture: Picture) -> None:
    """Write a picture as PNG or JPEG, by the file's suffix, whole or not at all.

    Raises:
        InputError: another suffix.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    options = {".png": [], ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 92], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 92]}
    suffix = path.suffix.lower()
    if suffix not in options:
        message = f"{path} has no suffix of a picture; end it in {', '.join(options)}"
        raise InputError(message)
    encoded = cv2.imencode(suffix, cv2.cvtColor(_rgb(picture), cv2.COLOR_RGB2BGR), options[suffix])[1]
    write_atomically(path, encoded.tobytes())


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask as a gray PNG: 255 inside, 0 outside; whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    write_atomically(path, cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes())


def write_cutout(path: Path, picture: Picture, mask: NDArray[np.bool_]) -> bool:
    """Write what a mask covers as PNG with transparency, cut to the mask's extent; whether there was anything to write.

    Raises:
        OutputError: the file cannot be written.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if width == 0:
        return False
    inside = mask[y : y + height, x : x + width, None]
    rgb = _rgb(picture)[y : y + height, x : x + width] * inside
    bgra = np.concatenate((rgb[:, :, ::-1], inside.astype(np.uint8) * 255), axis=2)
    write_atomically(path, cv2.imencode(".png", bgra)[1].tobytes())
    return True


def _rgb(picture: Picture) -> NDArray[np.uint8]:
    rgb = picture.permute(1, 2, 0).cpu().numpy() if isinstance(picture, Tensor) and picture.ndim == 3 else np.asarray(picture)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        message = f"the picture is {rgb.dtype} {list(rgb.shape)}; give RGB bytes [h, w, 3], or a frame's image [3, h, w]"
        raise InputError(message)
    return np.ascontiguousarray(rgb)


def _edges(ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """The pixels near which another object, or the background, begins. The border of the picture is no edge."""
    radius = 1 + min(ids.shape) // _OUTLINE_PER_PIXELS
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    values = ids.astype(np.uint16)
    edges: NDArray[np.bool_] = cv2.erode(values, disk) != cv2.dilate(values, disk)
    return edges


def _fit(rgb: NDArray[np.uint8], hw: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture scaled to lie within a size, its proportions kept, centred on black."""
    scale = min(hw[0] / rgb.shape[0], hw[1] / rgb.shape[1])
    height, width = max(1, round(rgb.shape[0] * scale)), max(1, round(rgb.shape[1] * scale))
    tile = np.zeros((*hw, 3), dtype=np.uint8)
    y, x = (hw[0] - height) // 2, (hw[1] - width) // 2
    tile[y : y + height, x : x + width] = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return tile


def _caption(text: str, width: int) -> NDArray[np.uint8]:
    strip = np.full((_CAPTION_HEIGHT_PIXELS, width, 3), 255, dtype=np.uint8)
    plain = text.encode("ascii", "replace").decode()
    drawn = cv2.putText(strip, plain, (2, _CAPTION_HEIGHT_PIXELS - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.asarray(drawn, dtype=np.uint8)


def _corners(box: tuple[float, float, float, float], factor: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last pixel of a box, in a picture that is so many times as large."""
    x0, y0, x1, y1 = (round(factor * value) for value in box)
    return (x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1))


def _enlarged(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return pixels if factor == 1 else pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _draw_outline(rgb: NDArray[np.uint8], one: DrawnObject, factor: int, width: int) -> None:
    outlines, _ = cv2.findContours(_enlarged(one.mask.astype(np.uint8), factor), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(rgb, outlines, -1, one.colour, width)


def _draw_labels(rgb: NDArray[np.uint8], objects: Sequence[DrawnObject], boxes: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    """Write the texts: each above its box, or else inside it at the top, or below it, wherever no better object's label is in the way."""
    scale = float(np.clip(min(rgb.shape[:2]) * _FONT_SCALE_PER_PIXEL, *_FONT_SCALES))
    thickness = 2 if scale > 0.9 else 1
    taken: list[tuple[int, int, int, int]] = []
    for one, (start, end) in zip(objects, boxes, strict=True):
        text = one.text.encode("ascii", "replace").decode()
        (text_width, ascent), descent = cv2.getTextSize(text, _FONT, scale, thickness)
        hw = ascent + descent + 2 * _PADDING_PIXELS, text_width + 2 * _PADDING_PIXELS
        places = [_inside(rgb.shape, (start[0], y), hw) for y in (start[1] - hw[0], start[1], end[1] + 1)]
        place = next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0])
        taken.append(place)
        cv2.rectangle(rgb, place[:2], (place[2] - 1, place[3] - 1), one.colour, cv2.FILLED)
        origin = place[0] + _PADDING_PIXELS, place[1] + _PADDING_PIXELS + ascent
        cv2.putText(rgb, text, origin, _FONT, scale, _ink_on(one.colour), thickness, cv2.LINE_AA)


def _inside(shape: tuple[int, ...], corner: tuple[int, int], hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The rectangle `(x0, y0, x1, y1)` of a label, moved into the picture; one that is wider than the picture begins at its left edge."""
    x, y = max(0, min(corner[0], shape[1] - hw[1])), max(0, min(corner[1], shape[0] - hw[0]))
    return x, y, x + hw[1], y + hw[0]


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ink_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever can be read on a colour (luma of BT.601)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)
