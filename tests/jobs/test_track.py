from pathlib import Path

import numpy as np
import pytest
import torch

from rotoscope.errors import InputError, MaskError
from rotoscope.jobs.track import GivenMasks, track
from rotoscope.types import Masks

FRAMES = np.zeros((6, 24, 32, 3), dtype=np.uint8)


def square(object_id: int = 1) -> np.ndarray:
    labels = np.zeros((24, 32), dtype=np.uint8)
    labels[4:12, 3:9] = object_id
    return labels


def test_every_frame_gets_labels_ids_and_scores(smear, clip_folder: Path, first_mask: Path) -> None:
    results = list(track(clip_folder, first_mask))
    assert [result.frame_index for result in results] == list(range(12))
    assert [result.given for result in results] == [True] + [False] * 11
    assert results[0].object_ids == (1, 4)
    assert results[3].labels.dtype == np.int32
    assert results[3].labels.shape == (24, 32)
    assert set(results[3].scores) == {1, 4}
    assert all(0 <= score <= 1 for result in results for score in result.scores.values())


@pytest.mark.parametrize(
    "form", [square, lambda: torch.from_numpy(square()), lambda: square() > 0, lambda: Masks.from_labels(torch.from_numpy(square()))]
)
def test_masks_may_be_arrays_tensors_or_masks(smear, form) -> None:
    results = list(track(FRAMES, form()))
    assert results[0].labels.sum() == 48


def test_a_mask_in_the_middle_covers_the_whole_clip_once(smear) -> None:
    assert [result.frame_index for result in track(FRAMES, {3: square()})] == [2, 1, 0, 3, 4, 5]


def test_several_given_frames_are_kept_as_given(smear) -> None:
    later = np.roll(square(), 9, axis=1)
    results = {result.frame_index: result for result in track(FRAMES, {0: square(), 4: later})}
    assert np.array_equal(results[4].labels, later)


def test_a_range_of_frames_is_all_that_is_visited(smear) -> None:
    assert [result.frame_index for result in track(FRAMES, {2: square()}, frames=slice(2, 4))] == [2, 3]


def test_faults_are_reported_before_the_first_frame_is_asked_for(smear) -> None:
    with pytest.raises(InputError, match="frame 9"):
        track(FRAMES, {9: square()})
    with pytest.raises(MaskError, match="is empty"):
        track(FRAMES, np.zeros((24, 32), dtype=np.uint8))
    with pytest.raises(MaskError, match="integer object ids"):
        track(FRAMES, np.zeros((24, 32)))
    with pytest.raises(MaskError, match="resize"):
        track(FRAMES, square()[:20])


def test_masks_of_another_size_are_resized_on_request() -> None:
    given = GivenMasks({0: square()[::2, ::2]}, (24, 32), resize=True)
    assert given[0].hw == (24, 32)
    assert given[0].labels().sum() == 48
    assert list(given) == [0]
    assert len(given) == 1
