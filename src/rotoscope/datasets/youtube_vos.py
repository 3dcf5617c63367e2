"""YouTube-VOS 2018 and 2019, training part: `train/meta.json`, `train/JPEGImages/CLIP` and `train/Annotations/CLIP`.

Every fifth frame is annotated; the frames between, where they were downloaded too (`train_all_frames`), serve as unlabelled ones only. Objects may
come later than the first frame, and values are ids: 0 is the background (https://youtube-vos.org/dataset/vos).
"""

import json
from pathlib import Path

from rotoscope.datasets.davis import AnnotatedClip, abridged, image_paths
from rotoscope.errors import InputError


def read_youtube_vos(root: Path) -> list[AnnotatedClip]:
    """The clips of the training part with their annotated frames.

    Args:
        root: the folder that holds `train`, or `train` itself.

    Raises:
        InputError: the folder is no such root, or clips of its `meta.json` are missing.
    """
    part = train_part(root)
    if part is None:
        message = f"{root} is no YouTube-VOS root; it must hold train/meta.json, train/JPEGImages/CLIP and train/Annotations/CLIP"
        raise InputError(message)
    names = _listed(part / "meta.json")
    clips = [_read_clip(part, name) for name in names]
    missing = [name for name, clip in zip(names, clips, strict=True) if clip is None]
    if missing:
        message = f"{part / 'meta.json'} lists {len(missing)} clips with no annotated frame in {part} ({abridged(missing)}); unpack the set again"
        raise InputError(message)
    return [clip for clip in clips if clip is not None]


def train_part(root: Path) -> Path | None:
    """The folder with the `meta.json` of the training part; None if the root is not of YouTube-VOS."""
    return next((part for part in (root / "train", root) if (part / "meta.json").is_file() and (part / "Annotations").is_dir()), None)


def _read_clip(part: Path, name: str) -> AnnotatedClip | None:
    frames = {path.stem: path for path in image_paths(part / "JPEGImages" / name)}
    annotations = [path for path in image_paths(part / "Annotations" / name, {".png"}) if path.stem in frames]
    if not annotations:
        return None
    return AnnotatedClip(name, tuple(frames[path.stem] for path in annotations), tuple(annotations), merged=False)


def _listed(path: Path) -> list[str]:
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        return sorted(videos)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} is not the meta.json of YouTube-VOS ({error!r}); it must hold 'videos' with the clips by name"
        raise InputError(message) from error
