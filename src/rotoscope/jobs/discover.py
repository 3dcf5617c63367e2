"""A video in and nothing else, masks of what a detector finds out: the search as a generator, and as a part of a run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.jobs.detect import class_ids
from rotoscope.jobs.folder import FrameRecord
from rotoscope.jobs.plan import Pass, plan_search
from rotoscope.jobs.track import GivenMasks, MaskSource, frames_of
from rotoscope.models import registry
from rotoscope.models.checkpoints import sha256
from rotoscope.tracking.class_names import class_names_of
from rotoscope.tracking.discover import Discovered, Discoverer, follow
from rotoscope.tracking.matching import DiscoveryRules
from rotoscope.types import Detector, Masks, Propagator, Tracker
from rotoscope.video.read import Clip, open_clip


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for, with what.

    Attributes:
        detector: a name of the registry.
        weights: its weights file; None for those that ship or were imported.
        classes: names of the classes that are wanted; none for all.
        rules: when a detection is an object.
    """

    detector: str = registry.DEFAULT_DETECTOR
    weights: Path | None = None
    classes: tuple[str, ...] = ()
    rules: DiscoveryRules = field(default_factory=DiscoveryRules)

    def as_json(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one it goes on with."""
        weights = self.weights or registry.find_weights(registry.spec_of(self.detector)).path
        digest = None if weights is None else sha256(weights)
        return {"detector": self.detector, "detector_weights": digest, "classes": list(self.classes), **asdict(self.rules)}


@dataclass(frozen=True, slots=True)
class Search:
    """A detector, and what is wanted of it.

    Attributes:
        detector: with its weights.
        rules: when a detection is an object.
        classes: the classes that are wanted, as indices; None for all.
    """

    detector: Detector
    rules: DiscoveryRules
    classes: frozenset[int] | None = None

    @classmethod
    def load(cls, request: SearchRequest, *, device: str) -> "Search":
        """What was asked for.

        Raises:
            InputError: no such detector, device or class.
            CheckpointError: no weights, or weights that do not fit.
        """
        detector = registry.load_detector(request.detector, weights=request.weights, device=device)
        return cls(detector, request.rules, class_ids(class_names_of(detector), request.classes or None))

    def start(self, propagator: Propagator, given: Mapping[int, Masks]) -> Discoverer:
        """A pass that looks for objects and lets a tracker follow them."""
        return Discoverer(propagator, self.detector, self.rules, given=given, classes=self.classes)


def discover(
    video: str | Path | int | NDArray[np.uint8] | Tensor,
    *,
    detector: str | Detector = registry.DEFAULT_DETECTOR,
    classes: Iterable[str] | None = None,
    masks: MaskSource | Mapping[int, MaskSource] | None = None,
    model: str | Tracker = "default",
    frames: slice = slice(None),
    **rules: object,
) -> Iterator[Discovered]:
    """Find the objects of a clip and follow them, with no mask to begin with.

    A detector looks at every tenth frame; what it finds is followed from there on, newcomers get new ids, and objects that come back their old
    ones. Everything is checked before the first frame is asked for; frames stream, and live sources will do. Stop whenever you like.

    Args:
        video: a file, folder of images, stream or camera number, or frames as uint8 `[t, h, w, 3]`.
        detector: a name from `list_models("detect")`, or a `Detector`.
        classes: names of the classes that are wanted; by default all.
        masks: objects to follow besides: the mask of the first frame, or masks by frame index. What they cover is not found again.
        model: the tracker: a name from `list_models("track")`, or what `load` gave.
        frames: the frames to cover, as `slice(start, stop)`; by default all.
        rules: when a detection is an object: fields of `tracking.matching.DiscoveryRules`, such as `every=5`, `min_score=0.4`, `max_objects=10`.

    Yields:
        What is known of each frame: first the frames before the first given mask, backwards, then the others, forwards. Masks may hold no object.

    Raises:
        InputError: the video, a mask, a class or a rule cannot be used; the message says why.
        CheckpointError: the weights of the detector or the tracker are missing.

    Example:
        >>> import numpy as np, torch, rotoscope
        >>> frames = np.zeros((3, 48, 64, 3), dtype=np.uint8)
        >>> frames[:, 10:30, 20:40] = 200
        >>> class Bright:
        ...     def detect(self, frame):
        ...         box, score = torch.tensor([[20.0, 10.0, 40.0, 30.0]]), torch.tensor([0.9])
        ...         return rotoscope.Detections(box, score, torch.tensor([0]), frame.image[:1] > 100)
        >>> [result.masks.object_ids for result in rotoscope.discover(frames, detector=Bright(), every=2)]
        [(1,), (1,), (1,)]
    """
    clip = open_clip(video)
    sources = {} if masks is None else masks if isinstance(masks, Mapping) else {0: masks}
    passes = plan_search(sources, clip.num_frames, within=frames)
    given = GivenMasks(sources, clip.hw)
    found = registry.load_detector(detector) if isinstance(detector, str) else detector
    search = Search(found, _rules(rules), class_ids(class_names_of(found), classes))
    tracker = registry.load(model) if isinstance(model, str) else model
    return _run_passes(clip, passes, given, search, tracker)


def _run_passes(clip: Clip, passes: list[Pass], given: GivenMasks, search: Search, tracker: Tracker) -> Iterator[Discovered]:
    handed_over: dict[str, Tensor] = {}
    for one_pass in passes:
        discoverer = search.start(tracker.start(), given)
        if handed_over:
            discoverer.restore(handed_over)
        for frame, masks in follow(frames_of(clip, one_pass), discoverer):
            if one_pass.reverse and len(passes) > 1 and frame.index in given:
                continue  # the forward pass starts at this very frame
            yield discoverer.discovered(frame, masks)
        handed_over = discoverer.handed_over()


def _rules(chosen: Mapping[str, object]) -> DiscoveryRules:
    names = [one.name for one in fields(DiscoveryRules)]
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        message = f"there is no rule {', '.join(unknown)}; rules: {', '.join(names)}"
        raise InputError(message)
    return DiscoveryRules(**chosen)  # type: ignore[arg-type] # each is checked by the rules


def found_as_json(discoverer: Discoverer, records: Sequence[FrameRecord]) -> dict[str, Any]:
    """What the summary says of a search: the classes, and each object with the first, the last and the number of the frames that show it."""
    rows = []
    for one in discoverer.objects:
        shown = [record.frame_index for record in records if record.objects.get(one.object_id, {}).get("area_pixels")]
        rows.append(
            {
                "id": one.object_id,
                "class": one.class_name,
                "class_id": one.class_id,
                "score": round(one.score, 4),
                "given": one.is_given,
                "first_frame": min(shown, default=None),
                "last_frame": max(shown, default=None),
                "num_frames": len(shown),
            }
        )
    return {"classes": list(discoverer.class_names), "objects": rows}
