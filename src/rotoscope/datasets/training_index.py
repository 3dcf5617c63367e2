"""Training sets that list themselves: an `index.json` with the source and the licence of each image or clip.

- Images: `items` with `name`, `source` and `licence`; `images/NAME.webp` and `masks/NAME.png`, whose values are 0 and the objects 1..n.
- Clips: `clips` with `name`, `source` and `licence`; a folder `NAME` of frames each, without masks.
"""

import json
from pathlib import Path
from typing import Any

from rotoscope.datasets.davis import abridged
from rotoscope.datasets.stills import StillImage
from rotoscope.errors import InputError
from rotoscope.video.folders import IMAGE_SUFFIXES

INDEX_NAME = "index.json"


def has_index(root: Path, kind: str) -> bool:
    """Whether a folder lists its "items" (images) or "clips" itself.

    Raises:
        InputError: the index cannot be read.
    """
    return (root / INDEX_NAME).is_file() and kind in _read(root / INDEX_NAME)


def read_image_index(root: Path) -> tuple[list[StillImage], int]:
    """The images of an index that have a mask, and how many listed ones have none.

    Raises:
        InputError: the index cannot be read, or an image that it lists is missing.
    """
    items = _entries(root, "items")
    images, masks = (
        {path.stem: path for path in (root / folder).glob("*") if path.suffix.lower() in IMAGE_SUFFIXES} for folder in ("images", "masks")
    )
    missing = [item["name"] for item in items if item["name"] not in images]
    if missing:
        message = f"{root / INDEX_NAME} lists {len(missing)} images that are not in {root / 'images'} ({abridged(missing)}); copy the set again"
        raise InputError(message)
    stills = [
        StillImage(f"{root.resolve().name}/{name}", images[name], masks[name], item.get("source", ""), item.get("licence", ""))
        for item in items
        if (name := item["name"]) in masks
    ]
    return stills, len(items) - len(stills)


def read_clip_index(root: Path) -> list[Path]:
    """The folders of the clips that an index lists, in its order.

    Raises:
        InputError: the index cannot be read, or a clip that it lists is missing.
    """
    folders = [root / clip["name"] for clip in _entries(root, "clips")]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        message = f"{root / INDEX_NAME} lists {len(missing)} clips that are not in {root} ({abridged(missing)}); copy the set again"
        raise InputError(message)
    return folders


def _entries(root: Path, kind: str) -> list[dict[str, Any]]:
    entries = _read(root / INDEX_NAME).get(kind)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries):
        message = f"{root / INDEX_NAME} must hold a list '{kind}' of objects with a 'name'"
        raise InputError(message)
    return entries


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as JSON ({error}); copy it again"
        raise InputError(message) from error
    return content if isinstance(content, dict) else {}
