"""Judge a maker of masks on the first frames of clips: the overlap after a box, and after one to five clicks by the standard rule; seconds.

    python scripts/measure_interactions.py DATA [--model s2m-lite] [--weights FILE] [--threads 2] [--clicks 5] [--set long_edge=384]

DATA is a folder of clips in one of the layouts of docs/training-data.md (DAVIS among them), or holds folders that are. Every object of the first
annotated frame counts on its own.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rotoscope.datasets.clips import read_clips
from rotoscope.datasets.davis import read_label_map
from rotoscope.models import registry
from rotoscope.training.interactions import Click, errors_of, standard_click
from rotoscope.training.losses import VOID
from rotoscope.types import Box, Clicks, Frame, MaskMaker, Masks
from rotoscope.video.folders import read_picture


@dataclass(frozen=True, slots=True)
class Judged:
    """How one object fared.

    Attributes:
        name: of the clip, and the object.
        box: overlap after a box.
        clicks: overlaps after each click; once all is right, the last one stays.
        seconds: of each interaction.
    """

    name: str
    box: float
    clicks: tuple[float, ...]
    seconds: tuple[float, ...]


def judge(maker: MaskMaker, frame: Frame, truth: Tensor, name: str, *, num_clicks: int = 5, counts: Tensor | None = None) -> Judged:
    """The overlaps of one object; `truth` is a mask, and void pixels (where `counts` is False) count for nothing."""
    seconds: list[float] = []
    empty = Masks.from_labels(torch.zeros(frame.hw, dtype=torch.int32), [1])

    def made(done: Sequence[Box | Clicks]) -> Tensor:
        begun = time.perf_counter()
        labels = maker.make(frame, done, empty).labels().cpu()
        seconds.append(time.perf_counter() - begun)
        return labels == 1

    after_box = overlap(made([Box(frame.index, 1, box_of(truth))]), truth, counts)
    clicks: list[Click] = []
    overlaps: list[float] = []
    found = torch.zeros_like(truth)
    for _ in range(num_clicks):
        click = standard_click(errors_of(truth, found, counts=counts))
        if click is None:
            overlaps.append(overlaps[-1])
            continue
        clicks.append(click)
        found = made([as_clicks(frame.index, clicks)])
        overlaps.append(overlap(found, truth, counts))
    return Judged(name, after_box, tuple(overlaps), tuple(seconds))


def as_clicks(frame_index: int, clicks: Sequence[Click]) -> Clicks:
    """All clicks so far as one interaction."""
    points = torch.tensor([[click.x, click.y] for click in clicks], dtype=torch.float32)
    return Clicks(frame_index, 1, points, torch.tensor([click.positive for click in clicks]))


def box_of(mask: Tensor) -> Tensor:
    """The tight box around a mask."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)


def overlap(found: Tensor, truth: Tensor, counts: Tensor | None = None) -> float:
    """Intersection over union."""
    if counts is not None:
        found, truth = found & counts, truth & counts
    return float((found & truth).sum() / (found | truth).sum().clamp(min=1))


def first_frames(root: Path) -> Iterator[tuple[str, Frame, Tensor]]:
    """The first annotated frame of each clip, with its labels."""
    for one in read_clips(root):
        for clip in one.clips:
            labels = torch.from_numpy(read_label_map(clip.annotation_paths[0]).astype("int64"))
            labels = (labels != 0).long() if clip.merged else labels
            picture = torch.from_numpy(read_picture(clip.frame_paths[0])).permute(2, 0, 1).contiguous()
            yield clip.name, Frame(0, picture), labels


def main() -> None:
    """Judge all objects, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=registry.DEFAULT_MASK_MAKER)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="a whole-numbered or decimal setting of the model: FIELD=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {name: float(text) if "." in text else int(text) for name, _, text in (one.partition("=") for one in options.settings)}
    maker = registry.load_mask_maker(options.model, weights=options.weights, **settings)
    judged = []
    for name, frame, labels in first_frames(options.data):
        for object_id in [value for value in torch.unique(labels).tolist() if value not in (0, VOID)]:
            one = judge(maker, frame, labels == object_id, f"{name} {object_id}", num_clicks=options.clicks, counts=labels != VOID)
            print(f"{one.name:<24} box {one.box:.3f}  clicks {' '.join(f'{value:.3f}' for value in one.clicks)}  {max(one.seconds):.2f} s at most")
            judged.append(one)
    if not judged:
        parser.error(f"no object is in the first frames of {options.data}")
    print(summary(judged))


def summary(judged: Sequence[Judged]) -> str:
    """The means over the objects."""
    curve = torch.tensor([one.clicks for one in judged]).mean(dim=0).tolist()
    seconds = torch.tensor([value for one in judged for value in one.seconds])
    box = sum(one.box for one in judged) / len(judged)
    return (
        f"{len(judged)} objects: mean IoU {box:.3f} from a box; {', '.join(f'{value:.3f}' for value in curve)} after 1 to {len(curve)} clicks; "
        f"{seconds.median():.2f} s an interaction (median), {seconds.max():.2f} s at most"
    )


if __name__ == "__main__":
    main()
