"""COCO's two JSON files, the annotations and the results of a detector, checked at the door (https://cocodataset.org/#format-data, #format-results).

What cannot be understood is an error that names the file and the entry, counted from 0 as in the JSON. What the official evaluator skips in silence
is skipped and counted in a note: annotations of images that are not listed, results on other images or of other classes.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from rotoscope.datasets.davis import abridged
from rotoscope.errors import InputError

ImageId = int | str


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of a file: `str()` gives `FILE: annotations[3]`."""

    file: str
    part: str
    index: int

    def __str__(self) -> str:
        return f"{self.file}: {self.part}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Instance:
    """An annotated or a detected object, its place and shape as the file has them.

    Attributes:
        place: the file and the entry, for messages.
        image_id: of an image of the ground truth.
        category_id: of a category of the ground truth.
        segmentation: polygons or run lengths, unchecked; None where there is none.
        box: x, y, width, height, unchecked; None where there is none.
        area: of an annotation in pixels, as stated and unchecked; None where it is not, and for detections, where a file may have that of the box.
        score: of a detection; 1 for an annotation.
        is_crowd: an annotation of a group of objects that nobody told apart.
    """

    place: Place
    image_id: ImageId
    category_id: int
    segmentation: Any
    box: Any
    area: Any
    score: float
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """A file of annotations.

    Attributes:
        name: of the file.
        image_sizes: height and width of each image by its id; None where the file does not tell.
        categories: name by id.
        instances: in the order of the file.
        notes: what was taken for granted or skipped, in words.
    """

    name: str
    image_sizes: Mapping[ImageId, tuple[int, int] | None]
    categories: Mapping[int, str]
    instances: tuple[Instance, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Predictions:
    """A file of results, without those that the ground truth has no image or class for; `notes` tell how many these were."""

    name: str
    instances: tuple[Instance, ...]
    notes: tuple[str, ...]


def read_ground_truth(source: Path | str | Mapping[str, Any]) -> GroundTruth:
    """The annotations of an instances file, or of what `json.load` makes of one.

    Ids of images are all numbers or all text. `iscrowd` may be missing, and then means 0; so may `area` and the sizes of images.

    Raises:
        InputError: this is no instances file, or an entry of it is broken; the message names the entry.
    """
    name, content = _opened(source, "the ground truth")
    if not isinstance(content, Mapping):
        message = f"{name} is not an instances file of COCO, which holds one object; is it the file of predictions?"
        raise InputError(message)
    missing = [part for part in ("images", "annotations", "categories") if not isinstance(content.get(part), Sequence)]
    if missing:
        message = f"{name} is not an instances file of COCO: it has no list '{missing[0]}' beside {abridged(list(map(str, content)))}"
        raise InputError(message)
    sizes = _image_sizes(content["images"], name)
    categories = _categories(content["categories"], name)
    counts: Counter[str] = Counter()
    instances = []
    for index, entry in enumerate(content["annotations"]):
        instance = _annotation(entry, Place(name, "annotations", index), counts)
        _check_category(instance, categories)
        _check_same_kind(instance, sizes, name)
        if instance.image_id in sizes:
            instances.append(instance)
        else:
            counts["annotations are of images that the file does not list; they are skipped"] += 1
    return GroundTruth(name, sizes, categories, tuple(instances), _notes(name, counts))


def read_predictions(source: Path | str | Sequence[Mapping[str, Any]], truth: GroundTruth) -> Predictions:
    """The detections of a results file, or of what `json.load` makes of one, on the images and of the classes of the ground truth.

    Raises:
        InputError: this is no results file, an entry of it is broken, or none fits the ground truth.
    """
    name, content = _opened(source, "the predictions")
    if isinstance(content, Mapping) and "annotations" in content:
        message = f"{name} is not a results file of COCO; is it the ground truth?"
        raise InputError(message)
    if isinstance(content, Mapping | str) or not isinstance(content, Sequence):
        message = f"{name} is not a results file of COCO; it must be a list of image_id, category_id, score, and segmentation or bbox"
        raise InputError(message)
    instances, skipped = [], Counter[str]()
    unknown: dict[str, None] = {}
    for index, entry in enumerate(content):
        instance = _detection(entry, Place(name, "", index))
        _check_same_kind(instance, truth.image_sizes, truth.name)
        if instance.image_id not in truth.image_sizes:
            skipped["images"] += 1
            unknown[f"image {instance.image_id}"] = None
        elif instance.category_id not in truth.categories:
            skipped["classes"] += 1
            unknown[f"class {instance.category_id}"] = None
        else:
            instances.append(instance)
    notes = tuple(f"{name}: {count} predictions are on {what} that {truth.name} does not have; they are skipped" for what, count in skipped.items())
    if content and not instances:
        strangers = abridged(list(unknown))
        message = f"none of the {len(content)} predictions of {name} is on an image and of a class of {truth.name}; it does not have {strangers}"
        raise InputError(message)
    return Predictions(name, tuple(instances), notes)


def finite(value: Any) -> float | None:
    """A number, of Python or numpy, as a float; None for everything else, truth values and numbers without a value among it."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _opened(source: Path | str | object, role: str) -> tuple[str, Any]:
    """What a file is called in messages, and what it holds."""
    if not isinstance(source, str | Path):
        return role, source
    path = Path(source)
    try:
        return str(path), json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{role} {path} cannot be read: {error.strerror or error}"
        raise InputError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{role} {path} is not JSON ({error}); was it copied or written to its end?"
        raise InputError(message) from error


def _image_sizes(images: Sequence[Any], name: str) -> dict[ImageId, tuple[int, int] | None]:
    sizes: dict[ImageId, tuple[int, int] | None] = {}
    for index, entry in enumerate(images):
        place = Place(name, "images", index)
        image_id = _image_id(_entry(entry, place), "id", place)
        if image_id in sizes:
            message = f"{place}: the id {image_id!r} is that of another image too; give each image an id of its own"
            raise InputError(message)
        sizes[image_id] = _size(entry, place)
    if len({type(image_id) for image_id in sizes}) > 1:
        message = f"{name}: some ids of images are numbers and some are text; write all in one way"
        raise InputError(message)
    return sizes


def _size(entry: Mapping[str, Any], place: Place) -> tuple[int, int] | None:
    if "height" not in entry and "width" not in entry:
        return None
    height, width = _whole(entry.get("height")), _whole(entry.get("width"))
    if height is None or width is None or height < 1 or width < 1:
        message = f"{place}: an image of {entry.get('width')!r} x {entry.get('height')!r} pixels; width and height must be whole numbers above 0"
        raise InputError(message)
    return height, width


def _categories(entries: Sequence[Any], name: str) -> dict[int, str]:
    categories: dict[int, str] = {}
    for index, entry in enumerate(entries):
        place = Place(name, "categories", index)
        category_id = _category_id(_entry(entry, place), "id", place)
        if category_id in categories:
            message = f"{place}: the id {category_id} is that of '{categories[category_id]}' too; give each category an id of its own"
            raise InputError(message)
        categories[category_id] = str(entry.get("name", category_id))
    if not categories:
        message = f"{name} lists no categories; there is nothing to score"
        raise InputError(message)
    return categories


def _annotation(entry: Any, place: Place, counts: Counter[str]) -> Instance:
    entry = _entry(entry, place)
    if "iscrowd" not in entry:
        counts["annotations have no iscrowd; they count as single objects"] += 1
    if entry.get("iscrowd", 0) not in (0, 1):
        message = f"{place}: iscrowd is {entry['iscrowd']!r}; it must be 0 or 1"
        raise InputError(message)
    if entry.get("area") is None:
        counts["annotations have no area; it is that of their shape"] += 1
    return _instance(entry, place, area=entry.get("area"), score=1.0, is_crowd=bool(entry.get("iscrowd", 0)))


def _detection(entry: Any, place: Place) -> Instance:
    score = finite(_entry(entry, place).get("score"))
    if score is None:
        message = f"{place}: the score is {entry.get('score')!r}; it must be a number"
        raise InputError(message)
    return _instance(entry, place, area=None, score=score, is_crowd=False)


def _instance(entry: Mapping[str, Any], place: Place, *, area: Any, score: float, is_crowd: bool) -> Instance:
    image_id, category_id = _image_id(entry, "image_id", place), _category_id(entry, "category_id", place)
    return Instance(place, image_id, category_id, entry.get("segmentation"), entry.get("bbox"), area, score, is_crowd)


def _entry(entry: Any, place: Place) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        message = f"{place} is {entry!r:.40}, not an object with fields"
        raise InputError(message)
    return entry


def _image_id(entry: Mapping[str, Any], field: str, place: Place) -> ImageId:
    value = entry.get(field)
    number = value if isinstance(value, str) else _whole(value)
    if number is None:
        message = f"{place}: {field} is {_told(entry, field)}; it must be a whole number or a text"
        raise InputError(message)
    return number


def _category_id(entry: Mapping[str, Any], field: str, place: Place) -> int:
    number = _whole(entry.get(field))
    if number is None:
        message = f"{place}: {field} is {_told(entry, field)}; ids of categories must be whole numbers"
        raise InputError(message)
    return number


def _whole(value: Any) -> int | None:
    number = finite(value)
    return int(value) if number is not None and number.is_integer() else None


def _told(entry: Mapping[str, Any], field: str) -> str:
    return f"{entry[field]!r:.40}" if field in entry else "missing"


def _check_category(instance: Instance, categories: Mapping[int, str]) -> None:
    if instance.category_id not in categories:
        known = abridged([str(category_id) for category_id in categories])
        message = f"{instance.place}: category_id {instance.category_id} is not among the categories of the file ({known})"
        raise InputError(message)


def _check_same_kind(instance: Instance, sizes: Mapping[ImageId, object], name: str) -> None:
    """Refuse text for a number, or a number for text: they are never the same image."""
    known = next(iter(sizes), None)
    if known is not None and type(known) is not type(instance.image_id):
        kinds = ("text", "numbers") if isinstance(instance.image_id, str) else ("a number", "text")
        message = f"{instance.place}: image_id {instance.image_id!r} is {kinds[0]}, but the ids of {name} are {kinds[1]} such as {known!r}"
        raise InputError(message)


def _notes(name: str, counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(f"{name}: {count} {what}" for what, count in counts.items())
