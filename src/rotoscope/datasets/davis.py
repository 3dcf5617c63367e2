"""DAVIS roots: which clips there are, their frames, and the annotation of each frame.

A root holds `Annotations/480p/CLIP/00000.png` and `JPEGImages/480p/CLIP/00000.jpg`; the resolution folder may be another or be left out,
and `ImageSets/2016|2017/val.txt` and `train.txt`, where there are any, say which clips belong to the set.

Two conventions (https://davischallenge.org):

- DAVIS-2016: one object; whatever is not 0 belongs to it. Files are 0/255, or indexed with the ids to be merged.
- DAVIS-2017: many objects; the value is the object id, 0 is the background, 255 is void.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rotoscope._files import natural_key
from rotoscope.errors import InputError, MaskError

Year = Literal["auto", "2016", "2017"]
Subset = Literal["val", "train"]

RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
VOID = 255
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_GREY_OR_INDEXED = frozenset({"1", "L", "P", "I", "I;16", "I;16B"})


@dataclass(frozen=True, slots=True)
class AnnotatedClip:
    """A clip with its annotations, as files in the order of time.

    Attributes:
        name: the name of its folder.
        frame_paths: the images; empty where only annotations were asked for.
        annotation_paths: the label maps; with images, one for each of them and of the same name.
        merged: the DAVIS-2016 convention: all that is not 0 is one object, 1. Otherwise values are object ids.
    """

    name: str
    frame_paths: tuple[Path, ...]
    annotation_paths: tuple[Path, ...]
    merged: bool


def read_davis(
    root: Path,
    *,
    clips: Sequence[str] | None = None,
    year: Year = "auto",
    with_frames: bool = False,
    subset: Subset = "val",
    annotations_folder: str = "Annotations",
) -> list[AnnotatedClip]:
    """The clips of a DAVIS root whose every frame is annotated.

    Args:
        root: the folder that holds `Annotations`.
        clips: their names; by default those of `ImageSets/YEAR/SUBSET.txt` (for "auto" 2017 before 2016), and without that file all there are.
        year: the convention. "auto" takes 2016 for a clip whose first annotation holds no values but 0 and 255, and 2017 for others.
        with_frames: ask for the images too.
        subset: which list: clips to score on, or to train on.
        annotations_folder: the name of the folder of annotations; those of the unsupervised task have one of their own.

    Raises:
        InputError: a folder, clip, frame or annotation is missing; the message says which, and which clips there are.
    """
    annotations, frames = _folders(root, annotations_folder, with_frames=with_frames)
    available = _clip_names(annotations)
    if not available:
        message = f"{annotations} holds no clips; it must hold one folder of PNG annotations per clip"
        raise InputError(message)
    names = _chosen(clips, _listed(root, year, subset) or available, available, annotations)
    return [_read_clip(name, annotations / name, frames / name if with_frames else None, year) for name in names]


def read_label_map(path: Path) -> NDArray[Any]:
    """The value of each pixel of an indexed or grey image, `[h, w]` unsigned; the palette has no say, and 1-bit images are 0/255.

    Colour images whose channels are equal are read as grey (some files of DAVIS-2016 are stored so).

    Raises:
        MaskError: the file cannot be read, or holds colours.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            values = np.asarray(image.convert("L") if mode == "1" else image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow reports a broken PNG as a SyntaxError
        message = f"{path} cannot be read as a mask ({error}); masks are indexed or grey PNG files"
        raise MaskError(message) from error
    if mode in _GREY_OR_INDEXED:
        return values
    colours = values[..., :1] if mode == "LA" else values[..., :3]
    if values.ndim != 3 or (colours != colours[..., :1]).any():
        message = f"{path} holds colours (mode {mode}); save it as an indexed PNG whose values are the object ids, or as 0/255 for one object"
        raise MaskError(message)
    return np.ascontiguousarray(colours[..., 0])


def _folders(root: Path, name: str, *, with_frames: bool) -> tuple[Path, Path]:
    if not (root / name).is_dir():
        above = next((parent for parent in root.parents if (parent / name).is_dir()), None)
        hint = f"; did you mean {above}?" if above is not None and root.is_dir() else ""
        missing = f"holds no {name} folder" if root.is_dir() else "does not exist"
        message = f"{root} {missing}; give a DAVIS root, with {name}/480p/CLIP/00000.png and JPEGImages/480p/CLIP/00000.jpg{hint}"
        raise InputError(message)
    resolution = next((one for one in RESOLUTIONS if (root / name / one).is_dir()), "")
    annotations, frames = root / name / resolution, root / "JPEGImages" / resolution
    if with_frames and not frames.is_dir():
        message = f"{root} has {annotations.relative_to(root)} but no {frames.relative_to(root)}; the frames are needed to run a model"
        raise InputError(message)
    return annotations, frames


def _clip_names(annotations: Path) -> list[str]:
    return sorted(folder.name for folder in annotations.iterdir() if folder.is_dir() and image_paths(folder, {".png"}))


def image_paths(folder: Path, suffixes: Iterable[str] = _IMAGE_SUFFIXES) -> tuple[Path, ...]:
    """The images of a folder in natural order; none where there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted((path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")), key=natural_key))


def _listed(root: Path, year: Year, subset: Subset) -> list[str]:
    for listed_year in ("2017", "2016") if year == "auto" else (year,):
        path = root / "ImageSets" / listed_year / f"{subset}.txt"
        if path.is_file():
            return path.read_text(encoding="utf-8").split()
    return []


def _chosen(asked: Sequence[str] | None, default: Sequence[str], available: Sequence[str], annotations: Path) -> list[str]:
    names = list(dict.fromkeys(default if asked is None else asked))
    missing = [name for name in names if name not in available]
    if missing or not names:
        wrong = f"clips {', '.join(missing)} are not in {annotations}" if missing else "no clip was named"
        why = " (ImageSets/*/val.txt lists them; name those to take with --clips)" if asked is None else ""
        message = f"{wrong}{why}; there are: {', '.join(available)}"
        raise InputError(message)
    return names


def _read_clip(name: str, annotations: Path, frames: Path | None, year: Year) -> AnnotatedClip:
    annotation_paths = image_paths(annotations, {".png"})
    frame_paths = () if frames is None else image_paths(frames, _IMAGE_SUFFIXES)
    if frames is not None:
        _check_same_names(name, frame_paths, annotation_paths, frames)
    first = read_label_map(annotation_paths[0])
    if not first.any():
        message = f"clip '{name}': the first annotation, {annotation_paths[0]}, holds no object; objects are those of the first frame"
        raise InputError(message)
    if frame_paths:
        _check_same_size(name, frame_paths[0], first)
    one_object = bool(np.isin(first, (0, VOID)).all())
    if one_object and year == "2017":
        message = f"clip '{name}': {annotation_paths[0]} is a 0/255 mask, in which DAVIS-2017 sees only void; score it as DAVIS-2016 (--year 2016)"
        raise InputError(message)
    return AnnotatedClip(name, frame_paths, annotation_paths, one_object if year == "auto" else year == "2016")


def _check_same_size(name: str, frame_path: Path, labels: NDArray[Any]) -> None:
    try:
        with Image.open(frame_path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        message = f"{frame_path} cannot be read as an image ({error}); replace the file, or leave the clip out with --clips"
        raise InputError(message) from error
    if (height, width) != labels.shape:
        size = f"{labels.shape[1]}x{labels.shape[0]}"
        message = f"clip '{name}': frames are {width}x{height} but annotations are {size}; take both from the same resolution of DAVIS"
        raise InputError(message)


def _check_same_names(name: str, frame_paths: tuple[Path, ...], annotation_paths: tuple[Path, ...], frames: Path) -> None:
    annotated, shown = [path.stem for path in annotation_paths], [path.stem for path in frame_paths]
    unannotated, unseen = sorted(set(shown) - set(annotated)), sorted(set(annotated) - set(shown))
    if unannotated:
        message = (
            f"clip '{name}': {len(unannotated)} of {len(shown)} frames have no annotation ({abridged(unannotated)}) "
            f"in {annotation_paths[0].parent}; only clips with every frame annotated can be scored"
        )
        raise InputError(message)
    if unseen:
        message = f"clip '{name}': {len(unseen)} annotated frames have no image ({abridged(unseen)}) in {frames}"
        raise InputError(message)
    if len(set(shown)) != len(shown):
        message = f"clip '{name}': {frames} holds two images of the same name; keep one image per frame"
        raise InputError(message)


def abridged(names: Sequence[str], most: int = 5) -> str:
    """A list of names for a message: at most so many of them."""
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
