"""Folders in the layout of YOLO's segmentation: `data.yaml`, `images/`, and for each image a text file in `labels/`.

A line of a text file is an object: the class, then the corners of its outline as x and y in shares of the image's sides. An image without such
a file, or with an empty one, shows no object.
"""

import math
from pathlib import Path

from rotoscope.datasets.coco import Outline
from rotoscope.datasets.davis import image_paths
from rotoscope.datasets.detection.flat_yaml import Value, read_flat_yaml
from rotoscope.datasets.detection.samples import Annotation, DetectionSample, DetectionSet, Faults
from rotoscope.errors import InputError

INDEX_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
_SLACK = 0.01  # by how much a corner may lie beyond the image: rounding of annotation tools
_FEWEST = 7  # values of a line: the class and three corners


def read_yolo_seg(index: Path) -> DetectionSet:
    """The training images of a data set, those without objects among them.

    Args:
        index: its `data.yaml`, which states `names` and `train`, and may state `path`.

    Raises:
        InputError: the file does not say what it must, no image is there, or too much in the labels is at fault.
    """
    entries = read_flat_yaml(index)
    names = _names(entries, index)
    faults = Faults(index)
    paths = [path for folder in _folders(entries, index) for path in _images(folder)]
    if not paths:
        message = f"the folders that {index} names under 'train' hold no images"
        raise InputError(message)
    samples = []
    total = len(paths)
    for path in paths:
        label_path = _label_path(path)
        lines = _lines(label_path) if label_path.is_file() else []
        total += len(lines)
        found = [one for number, line in enumerate(lines, 1) if (one := _annotation(line, len(names), f"{label_path}:{number}", faults)) is not None]
        samples.append(DetectionSample(path.name if len(paths) == len({one.name for one in paths}) else str(path), path, tuple(found)))
    if not any(sample.annotations for sample in samples) and not faults.counts(max(total, 1)):
        message = f"none of the {len(samples)} images of {index} has an object; labels are looked for at {_label_path(paths[0])} and the like"
        raise InputError(message)
    return DetectionSet("YOLO segmentation", names, tuple(samples), faults.counts(total))


def _names(entries: dict[str, Value], index: Path) -> tuple[str, ...]:
    """The names of the classes: a list, or a map from 0, 1, 2, ..."""
    stated = entries.get("names")
    if isinstance(stated, list) and stated:
        return tuple(stated)
    if isinstance(stated, dict) and stated and sorted(stated, key=lambda key: (len(key), key)) == [str(number) for number in range(len(stated))]:
        return tuple(stated[str(number)] for number in range(len(stated)))
    message = f"{index} must state the 'names' of the classes, as a list or numbered from 0; it has {stated!r}"
    raise InputError(message)


def _folders(entries: dict[str, Value], index: Path) -> list[Path]:
    """The folders of the training images."""
    stated = entries.get("train")
    parts = [stated] if isinstance(stated, str) else stated
    if not isinstance(parts, list) or not parts:
        message = f"{index} must state under 'train' where the training images are"
        raise InputError(message)
    path = entries.get("path")
    base = index.parent / path if isinstance(path, str) else index.parent
    roots = (base, index.parent, index.parent.parent)  # some tools write paths as seen from elsewhere: "../train/images"
    folders = []
    for part in parts:
        candidates = [root / part for root in roots] + [index.parent / part.removeprefix("../")]
        folder = next((one for one in candidates if one.is_dir()), None)
        if folder is None:
            message = f"{index} names the folder {part}, but there is none at {' or '.join(str(one) for one in dict.fromkeys(candidates))}"
            raise InputError(message)
        folders.append(folder)
    return folders


def _images(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, or of the folder `images` in it."""
    return image_paths(folder) or image_paths(folder / "images")


def _label_path(image: Path) -> Path:
    """The text file of an image: the last folder `images` of its path becomes `labels`; without one it lies beside it."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read ({error}); write it again"
        raise InputError(message) from error


def _annotation(line: str, num_classes: int, where: str, faults: Faults) -> Annotation | None:
    """The object of a line; None, and a fault, if it cannot be used."""
    try:
        class_id, *corners = (float(text) for text in line.split())
    except ValueError:
        faults.add("lines that are not numbers", where)
        return None
    if not (class_id.is_integer() and 0 <= class_id < num_classes):
        faults.add(f"lines with a class that is none of 0 to {num_classes - 1}", f"{where}: class {class_id:g}")
        return None
    if len(corners) == 4:
        faults.add("lines with a box in place of an outline", where)
        return None
    if len(corners) < _FEWEST - 1 or len(corners) % 2:
        faults.add("lines without a usable outline", where)
        return None
    if not all(math.isfinite(value) and -_SLACK <= value <= 1 + _SLACK for value in corners):
        faults.add("lines with corners beyond the image", where)
        return None
    return Annotation(int(class_id), Outline([corners], 0.0, is_crowd=False), is_relative=True)
