"""Clips to train on: with masks (DAVIS, YouTube-VOS, BL30K, a user's own), and without (any frames or videos)."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rotoscope._files import natural_key
from rotoscope.datasets.davis import RESOLUTIONS, VOID, AnnotatedClip, image_paths, read_davis, read_label_map
from rotoscope.datasets.training_index import has_index, read_clip_index
from rotoscope.datasets.youtube_vos import read_youtube_vos, train_part
from rotoscope.errors import InputError, MaskError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ogv")
"""The files of a folder that are taken for videos; any other file that FFmpeg knows can be given by itself."""

_PARTS_OF_BL30K = 6  # the set is published in so many archives, a to f


@dataclass(frozen=True, slots=True)
class ClipSet:
    """Annotated clips of one kind.

    Attributes:
        layout: how they lie on disk, such as "DAVIS".
        clips: with at least two annotated frames each.
        max_gap: the most annotated frames from one frame of a training clip to the next.
        repeats: how often each clip counts when clips are drawn.
        num_too_short: how many clips have fewer frames and are left out.
    """

    layout: str
    clips: tuple[AnnotatedClip, ...]
    max_gap: int
    repeats: int = 1
    num_too_short: int = 0

    def __str__(self) -> str:
        frames = sum(len(clip.annotation_paths) for clip in self.clips)
        left_out = f", {self.num_too_short} of one frame left out" if self.num_too_short else ""
        return f"{len(self.clips)} clips with {frames} annotated frames ({self.layout}){left_out}"


@dataclass(frozen=True, slots=True)
class Footage:
    """A clip without masks.

    Attributes:
        name: of its folder or file.
        frame_paths: its frames; empty for a video file.
        video: the video file; None for frames.
    """

    name: str
    frame_paths: tuple[Path, ...] = ()
    video: Path | None = None


def read_clips(root: Path) -> list[ClipSet]:
    """The annotated clips of a folder that has one of the layouts, or whose folders have.

    Raises:
        InputError: there is no such folder, it has none of the layouts (the message lists them), or no clip has two annotated frames.
    """
    _check_folder(root, "clips and their masks")
    own = _read_layout(root)
    found = [own] if own else [one for folder in _folders(root) if (one := _read_layout(folder))]
    if not found:
        message = f"{root} {_emptiness(root)} no clips with masks in a layout that is known; known are\n{_known()}"
        raise InputError(message)
    return found


def read_footage(root: Path) -> list[Footage]:
    """The clips without masks of a folder: folders of frames and video files, at any depth; or one of these itself.

    An `index.json` with `clips`, where there is one, says which. Masks beside the frames (`Annotations`) and clips of one frame are passed over.

    Raises:
        InputError: there is no such folder or file, or it holds no clip.
    """
    if root.is_file():
        return [Footage(root.stem, video=root)]
    _check_folder(root, "folders of frames, or videos")
    folders = read_clip_index(root) if has_index(root, "clips") else _folders_below(root)
    found = [Footage(_name(folder, root), paths) for folder in folders if len(paths := image_paths(folder)) > 1]
    if not has_index(root, "clips"):
        found += [Footage(_name(path.with_suffix(""), root), video=path) for path in sorted(root.rglob("*"), key=natural_key) if _is_video(path)]
    if not found:
        message = f"{root} {_emptiness(root)} no clips; it must hold folders of two frames or more ({root / 'CLIP' / '00000.jpg'}), or videos"
        raise InputError(message)
    return found


@dataclass(frozen=True, slots=True)
class _Layout:
    name: str
    looks_like: str
    is_here: Callable[[Path], bool]
    read: Callable[[Path], list[AnnotatedClip]]
    max_gap: int
    repeats: int = 1


def _has_resolution(root: Path) -> bool:
    return any((root / "Annotations" / name).is_dir() for name in RESOLUTIONS)


def _has_clip_folders(root: Path) -> bool:
    return any(image_paths(root / "JPEGImages" / folder.name) for folder in _folders(root / "Annotations"))


def _parts(root: Path) -> list[Path]:
    """The unpacked archives of BL30K: single letters, or folders whose names end in one after an underscore."""
    return [folder for folder in _folders(root) if folder.name.split("_")[-1] in "abcdef"[:_PARTS_OF_BL30K] and _has_clip_folders(folder)]


def _read_parts(root: Path) -> list[AnnotatedClip]:
    return [clip for part in _parts(root) for clip in _paired_clips(part)]


def _read_clip_folders(root: Path) -> list[AnnotatedClip]:
    """The clips of a user, whose masks may be 0 and 255 instead of ids."""
    return [replace(clip, merged=_is_one_object(clip.annotation_paths)) for clip in _paired_clips(root)]


def _is_one_object(masks: Iterable[Path]) -> bool:
    """Whether the first mask that shows anything holds no value but 0 and 255, as in DAVIS-2016. A damaged one is for others to report."""
    for path in masks:
        with suppress(MaskError):
            labels = read_label_map(path)
            if labels.any():
                return bool(np.isin(labels, (0, VOID)).all())
    return False


def _paired_clips(root: Path) -> list[AnnotatedClip]:
    """The frames of each clip that have a mask of the same name; the others are not looked at."""
    clips = []
    for folder in _folders(root / "Annotations"):
        frames = {path.stem: path for path in image_paths(root / "JPEGImages" / folder.name)}
        masks = [path for path in image_paths(folder) if path.stem in frames]
        clips.append(AnnotatedClip(folder.name, tuple(frames[path.stem] for path in masks), tuple(masks), merged=False))
    return clips


_LAYOUTS = (
    _Layout(
        "DAVIS",
        "JPEGImages/480p/CLIP/00000.jpg, Annotations/480p/CLIP/00000.png, ImageSets/2017/train.txt",
        _has_resolution,
        lambda root: read_davis(root, with_frames=True, subset="train"),
        max_gap=12,  # AOT's
        repeats=5,  # AOT's, beside YouTube-VOS
    ),
    _Layout(
        "YouTube-VOS",
        "train/meta.json, train/JPEGImages/CLIP/00000.jpg, train/Annotations/CLIP/00000.png",
        lambda root: train_part(root) is not None,
        read_youtube_vos,
        max_gap=3,  # AOT's: every fifth frame is annotated
    ),
    _Layout("BL30K", "a/JPEGImages/CLIP/00000.jpg, a/Annotations/CLIP/00000.png, and so on to f", lambda root: bool(_parts(root)), _read_parts, 10),
    _Layout("clips and masks", "JPEGImages/CLIP/00000.jpg, Annotations/CLIP/00000.png", _has_clip_folders, _read_clip_folders, 10),
)


def _read_layout(root: Path) -> ClipSet | None:
    layout = next((layout for layout in _LAYOUTS if layout.is_here(root)), None)
    if layout is None:
        return None
    clips = layout.read(root)
    long = tuple(clip for clip in clips if len(clip.annotation_paths) > 1)
    if not long:
        message = f"{root} has the layout of {layout.name} ({layout.looks_like}), but none of its {len(clips)} clips has two frames with masks"
        raise InputError(message)
    return ClipSet(layout.name, long, layout.max_gap, layout.repeats, len(clips) - len(long))


def _folders(root: Path) -> list[Path]:
    return sorted((path for path in root.iterdir() if path.is_dir()), key=natural_key) if root.is_dir() else []


def _folders_below(root: Path) -> Iterable[Path]:
    """The folder and all in it but annotations and what is hidden, in natural order."""
    yield root
    for folder in _folders(root):
        if folder.name not in ("Annotations", "ImageSets") and not folder.name.startswith("."):
            yield from _folders_below(folder)


def _is_video(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else root.resolve().name


def _check_folder(root: Path, wanted: str) -> None:
    if not root.is_dir():
        message = f"there is no folder {root}; give one that holds {wanted}"
        raise InputError(message)


def _emptiness(root: Path) -> str:
    return "holds" if any(root.iterdir()) else "is empty: it holds"


def _known() -> str:
    return "\n".join(f"  {layout.name}: {layout.looks_like}" for layout in _LAYOUTS)
