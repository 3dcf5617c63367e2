"""Pictures for people: masks over frames, contact sheets, image files."""

from collections.abc import Sequence
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
