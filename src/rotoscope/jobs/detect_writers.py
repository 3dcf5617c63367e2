"""What is written of each picture besides the JSON: an overlay, and a file for each object."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rotoscope.jobs.detect import ranking_scores
from rotoscope.jobs.detect_folder import Categories, PictureRecord
from rotoscope.jobs.detect_inputs import NamedPicture, Place, VideoFrames
from rotoscope.tracking.class_names import name_of
from rotoscope.types import Detections, Frame
from rotoscope.video.draw import DrawnObject, draw_objects, write_cutout, write_image, write_mask
from rotoscope.video.palette import colour_of
from rotoscope.video.rle import decode_mask, encode_mask
from rotoscope.video.write import OverlayVideo, prepare_folder

MAX_JPEG_SIDE = 65500
"""libjpeg writes no larger pictures."""

OverlayCodec = Literal["vp9", "h264", "none"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to write besides the JSON.

    Attributes:
        overlay: the codec of overlay videos; "none" for no overlays at all, of images neither.
        instances: a mask for each object.
        cutouts: a picture with transparency for each object.
    """

    overlay: OverlayCodec = "vp9"
    instances: bool = False
    cutouts: bool = False


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object of a picture.

    Attributes:
        mask: its pixels, `[h, w]`.
        box: `(x0, y0, x1, y1)` in pixels.
        score: of the detection as a whole.
        class_score: that of the class alone, where the detector judges its masks; None where the score is just that.
        class_id: the detector's.
    """

    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]
    score: float
    class_score: float | None
    class_id: int


def objects_of(found: Detections) -> list[FoundObject]:
    """The objects of detections on the CPU, in their order."""
    class_scores = found.scores.tolist() if found.mask_scores is not None else [None] * len(found.scores)
    rows = zip(found.masks.numpy(), found.boxes.tolist(), ranking_scores(found).tolist(), class_scores, found.class_ids.tolist(), strict=True)
    return [FoundObject(mask, (box[0], box[1], box[2], box[3]), score, class_score, class_id) for mask, box, score, class_score, class_id in rows]


def result_of(one: FoundObject, categories: Categories) -> dict[str, Any]:
    """An object as a COCO result without its mask: the box as x, y, width, height to a hundredth of a pixel; scores to a millionth."""
    x0, y0, x1, y1 = one.box
    box = [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)]
    result = {"category_id": categories.id_of(one.class_id), "bbox": box, "score": round(one.score, 6)}
    return result if one.class_score is None else {**result, "class_score": round(one.class_score, 6)}


def results_of(objects: Sequence[FoundObject], image_id: int, categories: Categories) -> list[dict[str, Any]]:
    """The objects of an image as COCO results."""
    return [{"image_id": image_id, **result_of(one, categories), "segmentation": encode_mask(one.mask)} for one in objects]


def stored_objects(record: PictureRecord) -> list[FoundObject]:
    """The objects that a record was made of."""
    objects = []
    for result, class_id in zip(record.results, record.class_ids, strict=True):
        x, y, width, height = result["bbox"]
        mask = decode_mask(result["segmentation"])
        objects.append(FoundObject(mask, (x, y, x + width, y + height), result["score"], result.get("class_score"), class_id))
    return objects


class PictureWriter:
    """Writes overlays and instances to an output folder; a video's overlay is finished when another source begins, or at `close`.

    Args:
        root: the output folder.
        wanted: what to write.
        names: of the detector's classes.
    """

    def __init__(self, root: Path, wanted: Wanted, names: Sequence[str]) -> None:
        self._root = root
        self._wanted = wanted
        self._names = names
        self._video: OverlayVideo | None = None
        self._video_source = -1

    def write(self, picture: NamedPicture, objects: Sequence[FoundObject], video: VideoFrames | None) -> list[str]:
        """Write what is wanted of a picture; the files, relative to the output folder.

        Args:
            picture: the picture.
            objects: what was found, best first.
            video: the video that it is a frame of, if it is.

        Raises:
            OutputError: a file cannot be written.
        """
        files = self._write_instances(picture, objects)
        if self._wanted.overlay == "none":
            return files
        if video is not None:
            return [*files, self.draw_frame(picture.place, picture.frame, objects, video)]
        drawn = draw_objects(picture.frame.image, self._drawn(objects, by_class=False))
        suffix = "jpg" if max(drawn.shape) <= MAX_JPEG_SIDE else "png"
        path = self._root / "overlay" / f"{picture.name}.{suffix}"
        prepare_folder(path.parent)
        write_image(path, drawn)
        return [*files, self._relative(path)]

    def draw_frame(self, place: Place, frame: Frame, objects: Sequence[FoundObject], video: VideoFrames) -> str:
        """Add a frame to the overlay of its video; the file, relative to the output folder.

        Raises:
            OutputError: it cannot be written.
        """
        drawn = draw_objects(frame.image, self._drawn(objects, by_class=True))
        if self._video is None or self._video_source != place.source:
            self.close()
            path = self._root / "overlay" / f"{video.name}.{'mp4' if self._wanted.overlay == 'h264' else 'webm'}"
            prepare_folder(path.parent)
            self._video = OverlayVideo(path, drawn.shape[:2], video.clip.fps, self._wanted.overlay)
            self._video_source = place.source
        self._video.write(drawn, frame.time_seconds)
        return self._relative(self._video.path)

    def close(self) -> None:
        """Finish the overlay video that was begun.

        Raises:
            OutputError: it cannot be written.
        """
        if self._video is not None:
            video, self._video = self._video, None
            video.close()

    def _drawn(self, objects: Sequence[FoundObject], *, by_class: bool) -> list[DrawnObject]:
        """Objects with their labels and colours: by class in videos, where ranks change from frame to frame, and by rank in images."""
        return [
            DrawnObject(
                one.mask, one.box, f"{name_of(self._names, one.class_id)} {one.score:.2f}", colour_of(1 + (one.class_id if by_class else rank))
            )
            for rank, one in enumerate(objects)
        ]

    def _write_instances(self, picture: NamedPicture, objects: Sequence[FoundObject]) -> list[str]:
        if not (objects and (self._wanted.instances or self._wanted.cutouts)):
            return []
        folder = prepare_folder(self._root / "instances" / picture.name)
        written: list[Path] = []
        for rank, one in enumerate(objects):
            name = f"{rank:02d}_{_plain(name_of(self._names, one.class_id))}_{one.score:.2f}"
            if self._wanted.instances:
                write_mask(folder / f"{name}.png", one.mask)
                written.append(folder / f"{name}.png")
            cutout = folder / f"{name}_cutout.png"
            if self._wanted.cutouts and write_cutout(cutout, picture.frame.image, one.mask):
                written.append(cutout)
        return [self._relative(path) for path in written]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _plain(name: str) -> str:
    """The name of a class as part of a file name."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "class"
