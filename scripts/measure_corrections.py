"""How far corrections get a user: mean J over whole clips after each, for the frames that are suggested and for evenly spaced ones, and by fuser.

    python scripts/measure_corrections.py DATA [--clips a,b] [--model mast-lite] [--fuser WEIGHTS] [--corrections 3] [--every 2] [--short-side 240]

DATA is a DAVIS root. The user gives the first mask, and the truth for one frame after the other, each carried to the rest of the clip. With
`--fuser`, weights of `fusion-lite`, evenly spaced corrections are joined by it too, beside the linear blend.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rotoscope.datasets.davis import AnnotatedClip, read_davis, read_label_map
from rotoscope.models import registry
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.types import Frame, Fuser, Tracker
from rotoscope.video.folders import read_picture


def shrunk(clip: AnnotatedClip, *, every: int, short_side: int) -> tuple[list[Frame], list[Tensor]]:
    """Every so many frames of a clip, and what is object in them, at most so large."""
    frames, truths = [], []
    for index, (picture, annotation) in enumerate(zip(clip.frame_paths[::every], clip.annotation_paths[::every], strict=True)):
        pixels = torch.from_numpy(read_picture(picture)).permute(2, 0, 1)
        scale = min(1.0, short_side / min(pixels.shape[1:]))
        hw = [round(side * scale) for side in pixels.shape[1:]]
        image = F.interpolate(pixels[None].float(), hw, mode="area")[0].round().to(torch.uint8)
        truth = torch.from_numpy((read_label_map(annotation) != 0).astype("float32"))
        frames.append(Frame(index, image))
        truths.append(F.interpolate(truth[None, None], hw, mode="area")[0, 0] > 0.5)
    return frames, truths


def quality(
    frames: Sequence[Frame], truths: Sequence[Tensor], tracker: Tracker, *, corrections: int, uniform: bool, fuser: Fuser | None = None
) -> list[float]:
    """The mean J over the clip after the first mask, and after each correction."""
    evenly = [round((number + 0.5) * len(frames) / corrections) for number in range(corrections)]
    means = []
    with InteractiveSession(frames, tracker, fuser=fuser) as session:
        for number in range(corrections + 1):
            index = 0 if number == 0 else evenly[number - 1] if uniform else session.suggest_frames(1)[0]
            session.add_mask(index, 1, truths[index])
            for _ in session.propagate():
                pass
            means.append(sum(overlap(session.masks(at).labels() == 1, truth) for at, truth in enumerate(truths)) / len(truths))
    return means


def overlap(found: Tensor, truth: Tensor) -> float:
    """J: 1 where both are empty."""
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def main() -> None:
    """Print a line for each clip, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips")
    parser.add_argument("--model", default="mast-lite")
    parser.add_argument("--fuser", type=Path)
    parser.add_argument("--corrections", type=int, default=3)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--short-side", type=int, default=240)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {"short_side": options.short_side} if options.model == "mast-lite" else {}
    tracker = registry.load(options.model, device="cpu", **settings)
    ways: dict[str, tuple[bool, Fuser | None]] = {"suggested": (False, None), "even": (True, None)}
    if options.fuser is not None:
        ways["even, fused"] = (True, registry.load_fuser("fusion-lite", weights=options.fuser, device="cpu"))
    table = []
    for clip in read_davis(options.data, clips=options.clips.split(",") if options.clips else None, with_frames=True):
        frames, truths = shrunk(clip, every=options.every, short_side=options.short_side)
        rows = [quality(frames, truths, tracker, corrections=options.corrections, uniform=way[0], fuser=way[1]) for way in ways.values()]
        print(f"{clip.name:<20} {shown(ways, rows)}", flush=True)
        table.append(rows)
    print(f"{'mean':<20} {shown(ways, torch.tensor(table).mean(dim=0).tolist())}")


def shown(ways: Iterable[str], rows: Iterable[Sequence[float]]) -> str:
    """The figures of all ways in a line."""
    return "   ".join(f"{way} {' '.join(f'{value:.3f}' for value in means)}" for way, means in zip(ways, rows, strict=True))


if __name__ == "__main__":
    main()
