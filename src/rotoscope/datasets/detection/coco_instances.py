"""Instances of COCO and of the many tools that write its format: images, categories, and an outline for each object (https://cocodataset.org/#format-data).

Other tools differ from COCO, and from each other: ids may be texts, `iscrowd`, `area` and `bbox` may be missing, category ids may be any, images may
lie beside the file. All that is read. What cannot be read is counted, and refused when it is more than one in a hundred.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rotoscope._files import natural_key
from rotoscope.datasets.coco import Outline
from rotoscope.datasets.davis import abridged
from rotoscope.datasets.detection.samples import Annotation, Box, DetectionSample, DetectionSet, Faults
from rotoscope.errors import InputError

_Segmentation = Sequence[Sequence[float]] | Mapping[str, Any]


def read_coco_instances(annotations: Path, image_folders: Sequence[Path]) -> DetectionSet:
    """The images of an instances file, those without objects among them. Classes are in the order of their category ids.

    Args:
        annotations: the JSON file.
        image_folders: where the images may be, each looked for in turn.

    Raises:
        InputError: the file is no such file, holds no image or no category, its images are not there, or too much in it is at fault.
    """
    content = _content(annotations)
    faults = Faults(annotations)
    categories = sorted(content["categories"], key=lambda one: natural_key(Path(str(one["id"]))))
    class_of = {str(one["id"]): index for index, one in enumerate(categories)}
    owners: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in content["annotations"]:
        owners[str(one.get("image_id"))].append(one)
    known = _listed(image_folders)
    samples = []
    for image in content["images"]:
        path = _found(str(image["file_name"]), known)
        own = owners.pop(str(image["id"]), [])
        if path is None:
            faults.add("images missing", str(image["file_name"]))
            continue
        found = [annotation for one in own if (annotation := _annotation(one, class_of, faults)) is not None]
        samples.append(DetectionSample(str(image["file_name"]), path, tuple(found)))
    for orphans in owners.values():
        for orphan in orphans:
            example = f"annotation {orphan.get('id')} of image {orphan.get('image_id')}"
            faults.add("annotations of images that the file does not list", example)
    if not samples:
        listed = abridged([str(image["file_name"]) for image in content["images"]])
        message = f"none of the images of {annotations} ({listed}) is in {' or '.join(str(folder) for folder in image_folders)}; put them there"
        raise InputError(message)
    skipped = faults.counts(len(content["images"]) + len(content["annotations"]))
    names = tuple(str(one.get("name", one["id"])) for one in categories)
    return DetectionSet("COCO instances", names, tuple(samples), skipped)


def _content(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of the file, whose entries have what each needs."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as JSON ({error}); copy or download it again"
        raise InputError(message) from error
    needed = {"images": ("id", "file_name"), "categories": ("id",), "annotations": ()}
    for name, keys in needed.items():
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and all(key in entry for key in keys) for entry in entries):
            wanted = f" with {' and '.join(keys)}" if keys else ""
            message = f"{path} is not an instances file of COCO: '{name}' must be a list of objects{wanted}"
            raise InputError(message)
        if not entries and name != "annotations":
            message = f"{path} lists no {name}; there is nothing to train on"
            raise InputError(message)
    return {name: content[name] for name in needed}


def _annotation(one: Mapping[str, Any], class_of: Mapping[str, int], faults: Faults) -> Annotation | None:
    """An object; None, and a fault, if it cannot be used."""
    example = f"annotation {one.get('id')} of image {one.get('image_id')}"
    class_id = class_of.get(str(one.get("category_id")))
    if class_id is None:
        faults.add("annotations of a category that the file does not list", f"{example}: category {one.get('category_id')!r}")
        return None
    segmentation = _segmentation(one.get("segmentation"))
    if segmentation is None:
        faults.add("annotations without a usable outline", example)
        return None
    outline = Outline(segmentation, _number(one.get("area")), bool(one.get("iscrowd", 0)))
    return Annotation(class_id, outline, _stated_box(one.get("bbox")))


def _segmentation(stated: Any) -> _Segmentation | None:
    """Polygons of three points or more, or run lengths; None if there are none. Single broken polygons of an object are left out."""
    if isinstance(stated, dict):
        size = stated.get("size")
        fits = isinstance(size, list) and len(size) == 2 and isinstance(stated.get("counts"), list | str)
        return stated if fits else None
    if not isinstance(stated, list):
        return None
    polygons = [stated] if stated and isinstance(stated[0], int | float) else stated  # some tools leave out the outer list
    whole = [polygon for polygon in polygons if _is_polygon(polygon)]
    return whole or None


def _is_polygon(polygon: Any) -> bool:
    is_list = isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
    return is_list and all(isinstance(value, int | float) and math.isfinite(value) for value in polygon)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _stated_box(box: Any) -> Box | None:
    """Corners, from x, y, width and height."""
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) and math.isfinite(side) for side in box):
        return None
    x, y, width, height = (float(side) for side in box)
    return x, y, x + width, y + height


def _listed(folders: Sequence[Path]) -> list[tuple[Path, frozenset[str]]]:
    """The folders that there are, and the names in each: one listing is faster than a question for each image."""
    return [(folder, frozenset(path.name for path in folder.iterdir())) for folder in folders if folder.is_dir()]


def _found(file_name: str, folders: Sequence[tuple[Path, frozenset[str]]]) -> Path | None:
    """Where an image is: under its whole name in one of the folders, or under the last part of it."""
    parts = PurePosixPath(file_name.replace("\\", "/"))
    for folder, names in folders:
        if len(parts.parts) > 1 and parts.parts[0] in names and (folder / parts).is_file():
            return folder / parts
        if parts.name in names:
            return folder / parts.name
    return None
