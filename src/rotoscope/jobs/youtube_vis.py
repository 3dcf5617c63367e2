"""The masks of a finished run as YouTube-VIS JSON (https://youtube-vos.org/dataset/vis): one file with the video, the categories and the tracks.

`annotations` is at the same time what evaluation servers take as results: a list with video, category, score and a segmentation for each frame.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rotoscope._files import write_atomically
from rotoscope.errors import InputError
from rotoscope.jobs.folder import RunFolder
from rotoscope.video.masks import read_stored_labels
from rotoscope.video.read import Clip
from rotoscope.video.rle import encode_mask, mask_area, mask_box

_VIDEO_ID = 1
_NO_CLASS = "object"
"""The category of objects without a class: those that were given and never detected."""


@dataclass(slots=True)
class _Track:
    """What the frames show of an object, by frame."""

    segmentations: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, frame_index: int, mask: NDArray[np.bool_]) -> None:
        self.segmentations[frame_index] = dict(encode_mask(mask))

    def as_lists(self, num_frames: int) -> dict[str, list[Any]]:
        found = [self.segmentations.get(index) for index in range(num_frames)]
        return {
            "segmentations": found,
            "bboxes": [None if one is None else list(mask_box(one)) for one in found],
            "areas": [None if one is None else mask_area(one) for one in found],
        }


def check_youtube_vis(path: Path | None) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises:
        InputError: it is a folder, or in a folder that does not exist.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        message = f"--youtube-vis {path} is {'a folder' if path.is_dir() else 'in a folder that does not exist'}; name a file, such as tracks.json"
        raise InputError(message)


def write_youtube_vis(path: Path, folder: RunFolder, clip: Clip) -> None:
    """Write the masks of a finished run.

    Raises:
        OutputError: the file cannot be written.
        MaskError: a mask of the run is damaged.
    """
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    records = list(folder.records().values())
    num_frames = clip.num_frames or 1 + max((record.frame_index for record in records), default=-1)
    stems = {record.frame_index: Path(record.file).stem for record in records}
    video = {
        "id": _VIDEO_ID,
        "file_names": [f"{clip.name}/{stems.get(index, f'{index:05d}')}.jpg" for index in range(num_frames)],
        "height": clip.hw[0],
        "width": clip.hw[1],
        "length": num_frames,
    }
    labels = ((record.frame_index, read_stored_labels(folder.masks / record.file)) for record in records)
    objects = summary.get("objects", [{"id": object_id, "class_id": None, "score": 1.0} for object_id in summary["object_ids"]])
    content = as_youtube_vis(video, summary.get("classes", []), objects, labels)
    write_atomically(path, (json.dumps(content) + "\n").encode())


def as_youtube_vis(
    video: Mapping[str, Any], classes: Sequence[str], objects: Sequence[Mapping[str, Any]], labels: Iterable[tuple[int, NDArray[np.int32]]]
) -> dict[str, Any]:
    """Tracks as the format has them.

    Args:
        video: the entry of the video, with `id`, `height`, `width` and `length`.
        classes: what the classes are called; class i is category i + 1.
        objects: `id`, `class_id` (may be None) and `score` of each object; one without pixels in any frame is left out.
        labels: the object id of each pixel, by frame index; frames may be missing.
    """
    tracks: dict[int, _Track] = {}
    for frame_index, ids in labels:
        for object_id in np.unique(ids[ids > 0]).tolist():
            tracks.setdefault(object_id, _Track()).add(frame_index, ids == object_id)
    shown = [one for one in objects if one["id"] in tracks]
    most = max((1 + one["class_id"] for one in shown if one["class_id"] is not None), default=0)
    names = [*classes, *(f"class {index}" for index in range(len(classes), most))]
    no_class = [_NO_CLASS] if any(one["class_id"] is None for one in shown) else []
    size = {"height": video["height"], "width": video["width"], "length": video["length"]}
    annotations = [
        {
            "id": one["id"],
            "video_id": video["id"],
            "category_id": 1 + (len(names) if one["class_id"] is None else one["class_id"]),
            "score": one["score"],
            "iscrowd": 0,
            **size,
            **tracks[one["id"]].as_lists(video["length"]),
        }
        for one in shown
    ]
    categories = [{"id": number, "name": name, "supercategory": _NO_CLASS} for number, name in enumerate([*names, *no_class], start=1)]
    return {"videos": [dict(video)], "categories": categories, "annotations": annotations}
