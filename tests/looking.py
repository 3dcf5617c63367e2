"""Searches for tests: clips of painted rectangles, detectors that read their masks from the truth and may be noisy or in doubt, a simple tracker."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from rotoscope.models import registry
from rotoscope.tracking.discover import Discovered, Discoverer, follow
from rotoscope.tracking.matching import DiscoveryRules
from rotoscope.types import Detections, Frame, Masks

Seen = tuple[torch.Tensor, float, int]
"""A mask, its score and its class."""


def detections_of(seen: Sequence[Seen], hw: tuple[int, int]) -> Detections:
    """What a detector gives for so many masks."""
    masks = torch.stack([mask for mask, _, _ in seen]) if seen else torch.zeros((0, *hw), dtype=torch.bool)
    boxes = torch.zeros((len(seen), 4))
    for row, mask in enumerate(masks):
        rows, columns = mask.nonzero(as_tuple=True)
        if len(rows):
            boxes[row] = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()
    scores, classes = torch.tensor([score for _, score, _ in seen]), torch.tensor([class_id for _, _, class_id in seen], dtype=torch.int64)
    return Detections(boxes, scores.reshape(-1), classes.reshape(-1), masks)


class LabelDetector:
    """Finds the objects of label maps `[t, h, w]`, each as class `id - 1`, with a score; it notes the frames in which it looked.

    Args:
        labels: the truth.
        see: what is seen instead of the truth: from the frame's index and the true sights, the sights.
        score: of all objects.
    """

    class_names = ("ball", "box", "cone", "disc")

    def __init__(
        self, labels: torch.Tensor, see: Callable[[int, list[Seen]], list[Seen]] | None = None, *, score: float = 0.9, one_class: bool = False
    ) -> None:
        self.labels = labels
        self.see = see
        self.score = score
        self.one_class = one_class
        self.looks: list[int] = []

    def detect(self, frame: Frame) -> Detections:
        self.looks.append(frame.index)
        labels = self.labels[frame.index]
        ids = [int(one) for one in labels.unique() if one != 0]
        seen: list[Seen] = [(labels == one, self.score, 0 if self.one_class else one - 1) for one in ids]
        return detections_of(seen if self.see is None else self.see(frame.index, seen), frame.hw)


COLOURS = ((220, 40, 40), (40, 60, 220), (40, 200, 60), (230, 210, 40), (200, 50, 210), (40, 200, 210), (240, 130, 30), (120, 70, 20))
HW = (48, 64)
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels."""


def painted(tracks: Sequence[Sequence[Box | None]], colours: Sequence[tuple[int, int, int]] = COLOURS) -> tuple[list[Frame], torch.Tensor]:
    """A clip of rectangles, each with its colour, over gray, and its truth: a box for each frame, or None; ids from 1, later ones in front."""
    num_frames = len(tracks[0])
    images = torch.full((num_frames, 3, *HW), 110, dtype=torch.uint8)
    labels = torch.zeros((num_frames, *HW), dtype=torch.int32)
    for object_id, (track, colour) in enumerate(zip(tracks, colours, strict=False), start=1):
        for index, box in enumerate(track):
            if box is not None:
                x0, y0, x1, y1 = box
                labels[index, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = object_id
                images[index, :, max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return [Frame(index, image) for index, image in enumerate(images)], labels


def write_painted(folder: Path, tracks: Sequence[Sequence[Box | None]]) -> Path:
    """The frames of `painted` as a new folder of images."""
    folder.mkdir()
    for frame in painted(tracks)[0]:
        Image.fromarray(frame.image.permute(1, 2, 0).numpy()).save(folder / f"{frame.index:05d}.png")
    return folder


def load_stand_ins(monkeypatch: pytest.MonkeyPatch, tracks: Sequence[Sequence[Box | None]]) -> "LabelDetector":
    """A detector that sees the truth; it and the tracker of colours are loaded under every name."""
    detector = LabelDetector(painted(tracks)[1])
    monkeypatch.setattr(registry, "load", lambda *args, **kwargs: ColourTracker())
    monkeypatch.setattr(registry, "load_detector", lambda *args, **kwargs: detector)
    return detector


def moving(box: Box, num_frames: int, *, dx: int = 0, dy: int = 0, within: range | None = None) -> list[Box | None]:
    """A track in a straight line; outside some frames there is nothing."""
    x0, y0, x1, y1 = box
    line = [(x0 + dx * index, y0 + dy * index, x1 + dx * index, y1 + dy * index) for index in range(num_frames)]
    return [one if within is None or index in within else None for index, one in enumerate(line)]


class ColourTracker:
    """Follows things of one colour: a pixel is of an object if it has its colour and is near where the object was. Lost is lost."""

    def __init__(self, reach: int = 7) -> None:
        self.reach = reach

    def start(self, *, max_memory_bytes: int | None = None) -> "ColourPropagator":
        del max_memory_bytes
        return ColourPropagator(self.reach)


class ColourPropagator:
    """A pass of `ColourTracker`; it notes what it is told to remember."""

    def __init__(self, reach: int) -> None:
        self.reach = reach
        self.colours: dict[int, torch.Tensor] = {}
        self.last: Masks | None = None
        self.log: list[tuple[int, tuple[int, ...], bool]] = []

    def predict(self, frame: Frame) -> Masks:
        assert self.last is not None, "nothing is remembered yet"
        before = self.last.labels()
        labels = torch.zeros(frame.hw, dtype=torch.int32)
        for object_id in self.last.object_ids:
            near = F.max_pool2d((before == object_id).float()[None], self.reach, stride=1, padding=self.reach // 2)[0] > 0
            alike = (frame.image.float() - self.colours.get(object_id, torch.full((3,), -99.0))[:, None, None]).abs().amax(dim=0) < 20
            labels[near & alike & (labels == 0)] = object_id
        return Masks.from_labels(labels, self.last.object_ids)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        self.log.append((frame.index, masks.object_ids, given))
        labels = masks.labels()
        for object_id in masks.object_ids:
            own = labels == object_id
            if own.any() and (given or object_id not in self.colours):
                self.colours[object_id] = frame.image[:, own].float().median(dim=1).values
        self.last = masks

    def state(self) -> dict[str, torch.Tensor]:
        assert self.last is not None, "a state is asked for once something is remembered"
        colours = {f"colour.{object_id}": colour for object_id, colour in self.colours.items()}
        return colours | {"probs": self.last.probs, "ids": torch.tensor(self.last.object_ids)}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self.colours = {int(name.split(".")[1]): tensor for name, tensor in state.items() if name.startswith("colour.")}
        self.last = Masks(state["probs"], tuple(state["ids"].tolist()))


def search(frames: Sequence[Frame], detector: object, **more: Any) -> dict[int, Discovered]:
    """A search with the tracker of colours; the results by frame."""
    rules = DiscoveryRules(**{name: more.pop(name) for name in list(more) if name in DiscoveryRules.__dataclass_fields__})
    discoverer = Discoverer(ColourTracker().start(), detector, rules, **more)
    return {frame.index: discoverer.discovered(frame, masks) for frame, masks in follow(frames, discoverer)}


def shown(result: Discovered, truth: torch.Tensor) -> dict[int, int]:
    """Which true object each id shows most of, for the ids that have pixels."""
    labels = result.masks.labels()
    present = [object_id for object_id in result.masks.object_ids if (labels == object_id).any()]
    return {object_id: int(truth[labels == object_id].mode().values) for object_id in present}
