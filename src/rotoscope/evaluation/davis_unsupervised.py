"""The DAVIS-2017 score of objects that nobody pointed out: proposals are matched to the annotated objects, and the matched ones are scored.

The protocol is that of the unsupervised multi-object challenge (Caelles et al., "The 2019 DAVIS Challenge on VOS", arXiv:1905.00737), as the official
DAVIS-2017 evaluator has it:

- A clip has at most 20 proposals: predicted ids, each one object over the whole clip. More are an error.
- J and F of every proposal with every object are means over **all** frames, the first and the last too.
- The one-to-one assignment with the largest sum of J&F is taken (`ops.assignment`). Proposals that are left over cost nothing.
- An object without a proposal is compared with an empty mask: 0 in frames that show it, 1 in frames that do not.
- The objects of a clip are those of its first annotation, which `Annotations_unsupervised` holds; pixels annotated 255 are left out.

It differs where the official code stops: proposals are counted by the ids there are, not by the largest one, and a prediction of nothing but 0 and
255 is one proposal; beside other ids 255 is background.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.davis import VOID, AnnotatedClip, read_label_map
from rotoscope.errors import InputError
from rotoscope.evaluation import report
from rotoscope.evaluation.davis import ClipFiles, ClipScores, ObjectScores, Series, each_clip, find_predictions
from rotoscope.evaluation.measures import Mask, boundary_radius, jaccard_and_boundary_f, summarize

MOST_PROPOSALS = 20
"""Per clip (the challenge's)."""
ANNOTATIONS_FOLDER = "Annotations_unsupervised"


@dataclass(frozen=True, slots=True)
class _Measured:
    """J and F of all pairs in a clip.

    Attributes:
        name: the clip.
        frame_names: of all frames.
        object_ids: the objects.
        proposal_ids: at least as many; None for an empty one.
        values: in 0..1, `[frames, objects, proposals, 2]`.
        notes: what was ignored, in words.
    """

    name: str
    frame_names: tuple[str, ...]
    object_ids: tuple[int, ...]
    proposal_ids: tuple[int | None, ...]
    values: NDArray[np.float64]
    notes: tuple[str, ...]


def find_proposals(clips: Sequence[AnnotatedClip], predictions: Path) -> list[ClipFiles]:
    """The predicted label map of every annotated frame, the first and the last too, by name: `predictions/CLIP/00000.png`.

    Raises:
        InputError: predictions are missing; the message names the clip and the frames.
    """
    found = find_predictions(clips, predictions)
    for files in found:
        missing = [path.stem for path, predicted in zip(files.annotation_paths, files.prediction_paths, strict=True) if predicted is None]
        if missing:
            message = (
                f"clip '{files.name}': frames {', '.join(missing)} have no prediction; without a given frame the first and the last are scored too"
            )
            raise InputError(message)
    return found


def score_proposals(files: Sequence[ClipFiles], *, workers: int = 1) -> Iterator[ClipScores]:
    """The scores of each clip, in the order given, in so many processes as `evaluation.davis.score_clips` has them.

    Raises:
        InputError: a file cannot be read or has another size than its annotation, or there are more than 20 proposals.
    """
    return map(_matched, each_clip(_measure_files, files, workers=workers))


def score_label_maps(name: str, frame_names: Sequence[str], given: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]) -> ClipScores:
    """The scores of the predicted label maps of one clip, with the proposal that each object got.

    Args:
        name: of the clip.
        frame_names: of all frames.
        given: the annotation of each frame `[h, w]`: object ids, 0 background, 255 void.
        predicted: the proposals of each frame `[h, w]`: any ids, at most 20 in all; 0 is none.

    Raises:
        InputError: maps have different sizes or numbers, there is no object, or there are more than 20 proposals.
    """
    return _matched(_measure(name, frame_names, given, predicted))


def as_dict(clips: Sequence[ClipScores]) -> dict[str, Any]:
    """The scores as one JSON object, as `evaluation.report.as_dict` gives it, with the `proposal` of each object: its predicted id, or null.

    Raises:
        InputError: there are no clips.
    """
    said = report.as_dict(clips)
    for clip in clips:
        for scores in clip.objects:
            said["clips"][clip.name]["objects"][str(scores.object_id)]["proposal"] = scores.proposal_id
    return said


def _measure_files(files: ClipFiles) -> _Measured:
    given = [read_label_map(path) for path in files.annotation_paths]
    predicted = [read_label_map(path) for path in files.prediction_paths if path is not None]
    if files.merged:
        given = [(labels != 0).astype(np.uint8) for labels in given]
    return _measure(files.name, [path.stem for path in files.annotation_paths], given, predicted)


def _measure(name: str, frame_names: Sequence[str], given: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]) -> _Measured:
    _check_sizes(name, frame_names, given, predicted)
    object_ids = _ids(given[:1])
    if not object_ids:
        message = f"clip '{name}': the first annotation holds no object; objects are those of the first frame"
        raise InputError(message)
    proposal_ids = _proposal_ids(name, predicted)
    padded: list[int | None] = [*proposal_ids, *[None] * (len(object_ids) - len(proposal_ids))]
    values = np.array([_measure_frame(truth, maps, object_ids, padded) for truth, maps in zip(given, predicted, strict=True)])
    return _Measured(name, tuple(frame_names), object_ids, tuple(padded), values, _notes(name, given, object_ids))


def _matched(clip: _Measured) -> ClipScores:
    """The scores of the best assignment."""
    import torch  # only here: the processes that measure start quickly without it

    from rotoscope.ops.assignment import best_assignment

    quality = torch.from_numpy(clip.values.mean(axis=(0, 3)))  # J&F
    objects = []
    for row, column in best_assignment(quality):
        j, f = (Series(tuple(values), summarize(values)) for values in clip.values[:, row, column].T.tolist())
        objects.append(ObjectScores(clip.object_ids[row], j, f, clip.proposal_ids[column]))
    return ClipScores(clip.name, clip.frame_names, tuple(objects), clip.notes)


def _check_sizes(name: str, frame_names: Sequence[str], given: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]) -> None:
    if not len(frame_names) == len(given) == len(predicted):
        message = (
            f"clip '{name}': {len(frame_names)} frames, {len(given)} annotations and {len(predicted)} predictions; give one of each for each frame"
        )
        raise InputError(message)
    for frame, truth, maps in zip(frame_names, given, predicted, strict=True):
        if truth.shape != maps.shape:
            sizes = f"is {maps.shape[1]}x{maps.shape[0]} but its annotation is {truth.shape[1]}x{truth.shape[0]}"
            message = f"clip '{name}': the prediction of frame {frame} {sizes}; predict at the size of the annotations"
            raise InputError(message)


def _ids(maps: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    values = sorted(set[int]().union(*(np.unique(labels).tolist() for labels in maps)))
    return tuple(value for value in values if value not in (0, VOID))


def _proposal_ids(name: str, predicted: Sequence[NDArray[Any]]) -> tuple[int, ...]:
    ids = _ids(predicted)
    if not ids and any((labels == VOID).any() for labels in predicted):
        return (VOID,)
    if len(ids) > MOST_PROPOSALS:
        message = f"clip '{name}' has {len(ids)} proposals; at most {MOST_PROPOSALS} are allowed for a clip, so keep the best ones"
        raise InputError(message)
    return ids


def _measure_frame(
    given: NDArray[Any], predicted: NDArray[Any], object_ids: Sequence[int], proposal_ids: Sequence[int | None]
) -> list[list[tuple[float, float]]]:
    """J and F of every object (outer) with every proposal (inner)."""
    void = given == VOID
    objects = [given == object_id for object_id in object_ids]
    proposals = [np.zeros_like(void) if proposal_id is None else (predicted == proposal_id) & ~void for proposal_id in proposal_ids]
    return [[_j_and_f(proposal, truth) for proposal in proposals] for truth in objects]


def _j_and_f(proposal: Mask, truth: Mask) -> tuple[float, float]:
    """J and F; pairs whose boundaries are too far apart to match anywhere, which are most, are 0 without a look at the pixels."""
    x, y, width, height = cv2.boundingRect(proposal.view(np.uint8))
    other_x, other_y, other_width, other_height = cv2.boundingRect(truth.view(np.uint8))
    reach = boundary_radius(truth.shape) + 1  # a boundary lies up to one pixel outside of its box
    apart = x > other_x + other_width + reach or other_x > x + width + reach or y > other_y + other_height + reach or other_y > y + height + reach
    if apart and width and other_width:
        return 0.0, 0.0
    return jaccard_and_boundary_f(proposal, truth)


def _notes(name: str, given: Sequence[NDArray[Any]], object_ids: Sequence[int]) -> tuple[str, ...]:
    latecomers = sorted(set(_ids(given)).difference(object_ids))
    return (f"clip '{name}': annotated ids {latecomers} are not in the first frame; they are not scored",) if latecomers else ()
