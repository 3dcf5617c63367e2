"""Masks for clips that have none: a detector finds objects, a tracker carries them there and back, and what both ways agree on is written.

    python scripts/pseudo_label.py CLIPS OUT [--model mast-lite] [--detector yolact-lite] [--least-score 0.3] [--least-agreement 0.7] [--part 0/1]

CLIPS is what `read_footage` reads. OUT gets `JPEGImages/CLIP` (links to the frames) and `Annotations/CLIP`: clips with masks as `rotoscope train`
reads them. Videos are passed over: only frames can be linked to.

The best of three frames of a clip begins. From it the objects are carried to both ends and back again (cycle consistency: Wang, Jabri and Efros,
CVPR 2019). Where the two ways differ the mask says void; an object on which they differ over most of the clip is left out of it.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rotoscope.datasets.clips import Footage, read_footage
from rotoscope.datasets.davis import VOID
from rotoscope.models import registry
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Detector, Frame, Masks, Tracker
from rotoscope.video.folders import read_picture
from rotoscope.video.write import write_labels

_MOST_OBJECTS = 3
_LEAST_SHARE = 0.004
"""Of the frame, that an object covers."""
_MOST_OVERLAP = 0.3
"""Of a detection, that may lie on better ones."""


def first_labels(frame: Frame, detector: Detector, least_score: float) -> tuple[float, Tensor]:
    """The score of the best detection of a frame, and the labels of the good ones, the best being 1."""
    found = detector.detect(frame)
    labels = torch.zeros(frame.hw, dtype=torch.int32)
    best = 0.0
    for position in found.scores.argsort(descending=True).tolist():
        mask, score = found.masks[position].cpu() > 0.5, float(found.scores[position])
        is_new = int((mask & (labels == 0)).sum()) >= (1 - _MOST_OVERLAP) * int(mask.sum())
        if score < least_score or int(labels.max()) == _MOST_OBJECTS:
            break
        if is_new and int(mask.sum()) >= _LEAST_SHARE * mask.numel():
            labels[mask & (labels == 0)] = 1 + int(labels.max())
            best = max(best, score)
    return best, labels


def carried(frames: Sequence[Frame], labels: Tensor, tracker: Tracker) -> list[Tensor]:
    """Labels of all frames, from those of the first."""
    given = Masks.from_labels(labels)
    if not given.object_ids:
        return [torch.zeros_like(labels) for _ in frames]
    passed = propagate(frames, tracker.start(), {frames[0].index: given})
    return [masks.labels().cpu() for _, masks in passed]


def there_and_back(frames: Sequence[Frame], labels: Tensor, tracker: Tracker, least_agreement: float) -> dict[int, NDArray[np.uint8]]:
    """Labels by frame index, with void where the ways differ; objects whose ways agree too little are background."""
    there = torch.stack(carried(frames, labels, tracker))
    back = torch.stack(carried(frames[::-1], there[-1], tracker)[::-1])
    agreed = torch.where(there == back, there, VOID)
    for object_id in range(1, 1 + int(labels.max())):
        ours, theirs = there == object_id, back == object_id
        either = (ours | theirs).sum(dim=(1, 2))
        shares = ((ours & theirs).sum(dim=(1, 2)) / either.clamp(min=1))[either > 0]
        if not len(shares) or float(shares.mean()) < least_agreement:
            agreed[ours | theirs] = 0
    return {frame.index: one.numpy().astype(np.uint8) for frame, one in zip(frames, agreed, strict=True)}


def label_clip(
    frames: Sequence[Frame], detector: Detector, tracker: Tracker, *, least_score: float, least_agreement: float
) -> Mapping[int, NDArray[np.uint8]]:
    """Labels by frame index; empty if nothing was found."""
    looks = {index: first_labels(frames[index], detector, least_score) for index in {0, len(frames) // 3, 2 * len(frames) // 3}}
    start = max(looks, key=lambda index: looks[index][0])
    score, labels = looks[start]
    if score == 0:
        return {}
    parts = [there_and_back(way, labels, tracker, least_agreement) for way in (frames[start:], frames[start::-1]) if len(way) > 1]
    ids = range(1, 1 + int(labels.max()))
    kept_by_all = [one for one in ids if all(any((shown == one).any() for shown in part.values()) for part in parts)]
    joined = {index: shown for part in parts for index, shown in part.items()}
    kept = {index: np.where(np.isin(shown, [*kept_by_all, VOID]), shown, 0).astype(np.uint8) for index, shown in sorted(joined.items())}
    return kept if kept_by_all else {}


def write_clip(out: Path, clip: Footage, labels: Mapping[int, NDArray[np.uint8]]) -> None:
    """Links to the frames, and their masks."""
    name = clip.name.replace("/", "-")
    for index, one in labels.items():
        source = clip.frame_paths[index]
        link = out / "JPEGImages" / name / source.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(source.resolve())
        mask = (out / "Annotations" / name / source.name).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_labels(mask, one)


def main() -> None:
    """Label the clips of a folder, a line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="mast-lite")
    parser.add_argument("--detector", default="yolact-lite")
    parser.add_argument("--least-score", type=float, default=0.3, help="of a detection")
    parser.add_argument("--least-agreement", type=float, default=0.7, help="mean overlap of an object's masks there and back")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th clip from the I-th on, so that N runs share the work")
    options = parser.parse_args()
    tracker, detector = registry.load(options.model), registry.load_detector(options.detector)
    part, parts = (int(one) for one in options.part.split("/"))
    for clip in [one for one in read_footage(options.clips) if one.frame_paths][part::parts]:
        frames = [Frame(index, torch.from_numpy(read_picture(path)).permute(2, 0, 1).contiguous()) for index, path in enumerate(clip.frame_paths)]
        labels = label_clip(frames, detector, tracker, least_score=options.least_score, least_agreement=options.least_agreement)
        write_clip(options.out, clip, labels)
        objects = sorted({int(one) for label in labels.values() for one in np.unique(label)} - {0, VOID})
        print(f"{clip.name}: {len(frames)} frames, objects {objects}", flush=True)


if __name__ == "__main__":
    main()
