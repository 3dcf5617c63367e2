"""The objects of pictures as a generator, and which detections are kept."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detect_fixtures import ColourDetector, picture, put_video

import rotoscope
from rotoscope.errors import InputError, VideoError
from rotoscope.jobs.detect import Choice, choose, class_names_of, name_of
from rotoscope.types import Detections


def found(scores: list[float], class_ids: list[int], mask_scores: list[float] | None = None) -> Detections:
    count = len(scores)
    judged = None if mask_scores is None else torch.tensor(mask_scores)
    boxes = torch.arange(4.0 * count).reshape(count, 4)
    return Detections(boxes, torch.tensor(scores), torch.tensor(class_ids, dtype=torch.int64), torch.ones(count, 2, 3) > 0, judged)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_each_image_of_a_folder_gives_its_objects(photos: Path, batch: int) -> None:
    detector = ColourDetector()
    results = list(rotoscope.detect(photos, model=detector, batch=batch))
    assert [result.frame.name for result in results] == ["img1", "img2", "img10"]
    assert [result.class_names for result in results] == [("person",), ("person", "hot dog"), ()]
    assert results[1].detections.boxes.tolist() == [[30, 8, 46, 24], [8, 28, 24, 44]]
    assert results[2].detections.masks.shape == (0, 48, 64)
    assert detector.batches == {1: [1, 1, 1], 2: [2, 1], 5: [3]}[batch]


def test_videos_arrays_and_single_images_are_looked_at_alike(colours, photos: Path, tmp_path: Path) -> None:
    frames = np.stack([picture(4), picture(None, 8)])
    assert [result.class_names for result in rotoscope.detect(frames)] == [("person",), ("hot dog",)]
    assert [result.class_names for result in rotoscope.detect(torch.from_numpy(frames))] == [("person",), ("hot dog",)]
    assert [result.class_names for result in rotoscope.detect(str(photos / "img2.png"))] == [("person", "hot dog")]
    video = list(rotoscope.detect(put_video(tmp_path / "clip.mp4", 8)))
    assert [result.frame.index for result in video] == list(range(8))
    assert [len(result.class_names) for result in video] == [1] * 6 + [2] * 2
    assert len(list(rotoscope.detect(f"file://{tmp_path / 'clip.mp4'}"))) == 8


def test_what_was_not_asked_for_is_left_out(colours, photos: Path) -> None:
    assert [result.class_names for result in rotoscope.detect(photos, score=0.7)] == [("person",), ("person",), ()]
    assert [result.class_names for result in rotoscope.detect(photos, top_k=1)] == [("person",), ("person",), ()]
    assert [result.class_names for result in rotoscope.detect(photos, classes=["Hot Dog "])] == [(), ("hot dog",), ()]


def test_wrong_arguments_are_refused_before_any_work(colours, photos: Path) -> None:
    with pytest.raises(InputError, match=r"no class 'cat'; its classes are person, hot dog"):
        rotoscope.detect(photos, classes=["cat"])
    with pytest.raises(InputError, match="no class ''"):
        rotoscope.detect(photos, classes=[])
    with pytest.raises(InputError, match=r"the least score is 1\.5"):
        rotoscope.detect(photos, score=1.5)
    with pytest.raises(InputError, match="the best 0 detections are none"):
        rotoscope.detect(photos, top_k=0)
    with pytest.raises(InputError, match="a batch of 0 pictures"):
        rotoscope.detect(photos, batch=0)
    assert colours.batches == []


def test_an_unreadable_image_is_an_error_where_it_is_reached(colours, photos: Path) -> None:
    (photos / "img2.png").write_bytes(b"no image")
    results = rotoscope.detect(photos)
    assert next(results).frame.name == "img1"
    with pytest.raises(VideoError, match=r"img2\.png is not an image"):
        next(results)


def test_the_best_are_kept_in_order() -> None:
    kept = choose(found([0.9, 0.8, 0.3, 0.2, 0.1], [0, 1, 0, 2, 0]), Choice(0.2, 3, frozenset((0, 2))))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.3, 0.2])
    assert kept.boxes[:, 0].tolist() == [0, 8, 12]
    assert kept.mask_scores is None
    assert len(choose(found([], []), Choice()).scores) == 0
    assert len(choose(found([0.0, 0.0], [0, 0]), Choice(0.0, 5)).scores) == 2


def test_judged_masks_are_ranked_and_chosen_by_their_own_scores() -> None:
    kept = choose(found([0.9, 0.8, 0.7], [0, 0, 0], [0.1, 0.5, 0.6]), Choice(0.2, 2))
    assert kept.mask_scores is not None
    assert kept.mask_scores.tolist() == pytest.approx([0.6, 0.5])
    assert kept.scores.tolist() == pytest.approx([0.7, 0.8])


def test_classes_without_a_name_are_numbered() -> None:
    class Silent:
        config = None

    assert class_names_of(Silent()) == ()
    assert name_of((), 7) == "class 7"
    assert name_of(("a",), -1) == "class -1"
