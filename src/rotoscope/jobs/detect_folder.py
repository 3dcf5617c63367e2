"""The output folder of a detection: its layout, its records, and the COCO files that are made of them.

OUT/detections.json        COCO results: image_id, category_id, bbox, segmentation, score
OUT/images.json            what they refer to: images and categories, as a COCO file without annotations
OUT/summary.json           what was done: counts, frames per second, what could not be read
OUT/overlay/NAME.jpg       each image with masks, boxes and labels; NAME.webm for a video
OUT/instances/NAME/...png  a mask for each object, on request; NAME is VIDEO/00012 for frames
OUT/.rotoscope/            the lock, the plan, and the records so far
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rotoscope._files import write_atomically, writing_atomically
from rotoscope._version import __version__
from rotoscope.errors import InputError
from rotoscope.jobs.detect_inputs import Place
from rotoscope.jobs.locked import Existing, LockedFolder, RecordLines
from rotoscope.models.yolact.classes import COCO_CLASSES, COCO_IDS


@dataclass(frozen=True, slots=True)
class PictureRecord:
    """What was found in one picture, as it lies on disk.

    Attributes:
        place: where the picture is among the inputs.
        image: its entry in `images.json`.
        results: its entries in `detections.json`; `category_id` is None for a class that the ground truth lacks.
        class_ids: the detector's own class of each.
        files: what was written of it besides, relative to the output folder.
        network_seconds: how long the detector looked at it.
        seconds: since the start of the run, when it was done, over all the processes that worked on the run.
    """

    place: Place
    image: dict[str, Any]
    results: list[dict[str, Any]] = field(default_factory=list)
    class_ids: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    network_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class SkippedRecord:
    """An image that could not be read, as it lies on disk."""

    place: Place
    file_name: str
    reason: str
    seconds: float = 0.0


Record = PictureRecord | SkippedRecord


@dataclass(frozen=True, slots=True)
class Categories:
    """The numbers of the classes in the results.

    Attributes:
        names: by the detector's class id.
        ids: for each the category id; None for a class whose detections are left out of `detections.json`.
    """

    names: tuple[str, ...]
    ids: tuple[int | None, ...]

    def id_of(self, class_id: int) -> int | None:
        """The category id of a class; one more than the class id where the detector names no such class."""
        return self.ids[class_id] if class_id < len(self.ids) else class_id + 1

    def entries(self) -> list[dict[str, Any]]:
        """As COCO files list them."""
        listed = [(number, name) for number, name in zip(self.ids, self.names, strict=True) if number is not None]
        return [{"id": number, "name": name, "supercategory": ""} for number, name in listed]


def own_categories(names: Sequence[str]) -> Categories:
    """COCO's ids (1 to 90, with gaps) for COCO's 80 classes; otherwise 1, 2, 3, ... in the order of the detector's list."""
    if tuple(names) == COCO_CLASSES:
        return Categories(tuple(names), COCO_IDS)
    return Categories(tuple(names), tuple(range(1, len(names) + 1)))


@dataclass(frozen=True, slots=True)
class KnownNumbers:
    """The numbers that a COCO file gives to images, by file name, and to classes, by name."""

    images: Mapping[str, int]
    categories: Mapping[str, int]

    def categories_for(self, names: Sequence[str]) -> tuple[Categories, str]:
        """The categories of a detector's classes, and a note on those that the file lacks; its own where the file has none of them."""
        missing = [name for name in names if name not in self.categories]
        if len(missing) == len(names):
            return own_categories(names), "the ground truth has none of the model's classes; category ids are the model's own"
        found = Categories(tuple(names), tuple(self.categories.get(name) for name in names))
        return found, f"the ground truth has no {', '.join(missing)}; such detections are left out of detections.json" if missing else ""


def read_known_numbers(path: Path) -> KnownNumbers:
    """The numbers in a COCO file.

    Raises:
        InputError: it cannot be read, or lists no images and categories.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {str(image["file_name"]): image["id"] for image in content["images"]}
        categories = {str(category["name"]): category["id"] for category in content["categories"]}
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); check the name"
        raise InputError(message) from error
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is no ground truth of COCO ({error!r}); it needs images with id and file_name, and categories with id and name"
        raise InputError(message) from error
    return KnownNumbers(images, categories)


class DetectFolder:
    """The output folder of one run, locked while it is open.

    Args:
        root: the folder; it is made if need be.
        plan: what is being done, as JSON values; a resumed run must have the same.
        existing: what to do when the folder holds a run.

    Raises:
        OutputError: the folder is a file or not writable, another run holds its lock, or it holds a run and `existing` is "refuse".
        InputError: the run to resume was started with other settings; the message lists the differences.
    """

    def __init__(self, root: Path, plan: Mapping[str, Any], *, existing: Existing) -> None:
        self.root = root
        self._folder = LockedFolder(root)
        self._lines = RecordLines(self._folder.private / "detections.jsonl")
        self._summary = root / "summary.json"
        try:
            if not self._folder.resumes(plan, existing):
                self._remove_older()
                self._folder.begin(plan)
        except BaseException:
            self._folder.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._folder.release()

    def completed(self) -> dict[str, Any] | None:
        """The summary of the run if nothing of it is left to do."""
        try:
            summary: dict[str, Any] = json.loads(self._summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return summary if summary.get("complete") else None

    def append(self, record: Record) -> None:
        """Add a record to those on disk.

        Raises:
            OutputError: it cannot be written.
        """
        self._lines.append(asdict(record))

    def records(self) -> Iterator[Record]:
        """The records so far, in the order of the inputs."""
        for values in self._lines:
            place = Place(**values.pop("place"))
            yield SkippedRecord(place, **values) if "reason" in values else PictureRecord(place, **values)

    def finish(self, about: Mapping[str, Any], categories: Categories) -> dict[str, Any]:
        """Make the COCO files and the summary of the records so far, one record at a time in memory; the summary.

        Args:
            about: what the summary says besides; `seconds` is how long the run took.
            categories: what the category ids mean.

        Raises:
            OutputError: a file cannot be written.
        """
        tally = self._write_coco_files(categories)
        summary = {
            "rotoscope": __version__,
            **about,
            "num_images": tally.num_images,
            "num_detections": tally.counts.total(),
            "classes": dict(tally.counts.most_common()),
            "skipped": tally.skipped,
            "fps": round(tally.num_images / max(about["seconds"], 1e-3), 3),
            "network_fps": round(tally.num_images / max(tally.network_seconds, 1e-6), 3),
        }
        write_atomically(self._summary, (json.dumps(summary, indent=1) + "\n").encode())
        return summary

    def _write_coco_files(self, categories: Categories) -> "_Tally":
        tally = _Tally()
        name_of = {entry["id"]: entry["name"] for entry in categories.entries()}
        with writing_atomically(self.root / "detections.json") as results, writing_atomically(self.root / "images.json") as images:
            results.write("[")
            images.write(_images_head())
            for record in self.records():
                if isinstance(record, SkippedRecord):
                    tally.skipped.append({"file_name": record.file_name, "reason": record.reason})
                    continue
                _write_item(images, record.image, first=tally.num_images == 0)
                for result in record.results:
                    if result["category_id"] is not None:
                        _write_item(results, result, first=tally.counts.total() == 0)
                        tally.counts[name_of.get(result["category_id"], str(result["category_id"]))] += 1
                tally.num_images += 1
                tally.network_seconds += record.network_seconds
            results.write("\n]\n")
            images.write(f'\n], "annotations": [], "categories": {json.dumps(categories.entries())}}}\n')
        return tally

    def _remove_older(self) -> None:
        """Remove what an older run wrote here, and nothing else."""
        for record in self.records():
            for name in record.files if isinstance(record, PictureRecord) else ():
                path = self.root / name
                path.unlink(missing_ok=True)
                with suppress(OSError):  # other files are in it
                    path.parent.rmdir()
        for path in (self._lines.path, self._summary, self.root / "detections.json", self.root / "images.json"):
            path.unlink(missing_ok=True)


@dataclass(slots=True)
class _Tally:
    """What the records of a run add up to."""

    num_images: int = 0
    network_seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[dict[str, str]] = field(default_factory=list)


def _images_head() -> str:
    about = {"description": "images that Rotoscope looked at", "version": __version__}
    return f'{{"info": {json.dumps(about)}, "licenses": [], "images": ['


def _write_item(file: TextIO, item: Mapping[str, Any], *, first: bool) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(item))
