from pathlib import Path

import numpy as np
import pytest
from davis_roots import SQUARE, given_frames, labels_of, predicted_frames, write_labels, write_root

from rotoscope.datasets.davis import read_davis
from rotoscope.errors import InputError, MaskError
from rotoscope.evaluation.davis import PREDICTION_FOLDERS, ClipScores, find_predictions, mean_scores, score_clips, score_frame
from rotoscope.evaluation.measures import Summary


def score(root: Path, predictions: Path, *, workers: int = 1, year: str = "auto") -> list[ClipScores]:
    return list(score_clips(find_predictions(read_davis(root, year=year), predictions), workers=workers))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "davis", {"b": given_frames(), "a": given_frames()})


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    write_labels(tmp_path / "predictions" / "a", predicted_frames())
    write_labels(tmp_path / "predictions" / "b", given_frames())
    return tmp_path / "predictions"


def test_scores_are_those_computed_by_hand(root: Path, predictions: Path) -> None:
    clip = score(root, predictions)[0]
    first, second = clip.objects
    assert clip.frame_names == ("00000", "00001", "00002", "00003", "00004")
    assert (first.object_id, second.object_id) == (1, 2)
    assert first.j.per_frame == pytest.approx((1, 1, 0, 8 / 24, 0))
    assert first.f.per_frame == pytest.approx((1, 1, 0, 10 / 16, 0))  # 10 of the 16 boundary pixels are at most one pixel off
    assert second.j.per_frame == second.f.per_frame == (1, 1, 1, 0, 1)
    assert first.j.summary == Summary(pytest.approx(4 / 9), pytest.approx(1 / 3), pytest.approx(1 / 2 - 1 / 3))
    assert first.f.summary == Summary(pytest.approx(1.625 / 3), pytest.approx(2 / 3), pytest.approx(1 / 2 - 5 / 8))
    assert second.j.summary == Summary(pytest.approx(2 / 3), pytest.approx(2 / 3), 1)
    assert first.j_and_f == pytest.approx((4 / 9 + 1.625 / 3) / 2)


def test_the_mean_is_over_objects_and_not_over_clips(tmp_path: Path) -> None:
    root = write_root(tmp_path / "davis", {"one": [labels_of((1, SQUARE))] * 3, "two": given_frames()})
    write_labels(tmp_path / "out" / "one", [labels_of()] * 3)
    write_labels(tmp_path / "out" / "two", given_frames())
    scores = score(root, tmp_path / "out")
    means = mean_scores([scores for clip in scores for scores in clip.objects])
    assert (means.j.mean, means.f.mean, means.j_and_f) == pytest.approx((2 / 3,) * 3)
    with pytest.raises(InputError, match="no objects to score"):
        mean_scores([])


def test_the_number_of_processes_changes_nothing(root: Path, predictions: Path) -> None:
    alone, together = score(root, predictions), score(root, predictions, workers=2)
    assert alone == together
    assert [clip.name for clip in together] == ["a", "b"]


def test_an_error_in_another_process_arrives_as_it_is(root: Path, predictions: Path) -> None:
    (predictions / "b" / "00002.png").write_bytes(b"no PNG")
    with pytest.raises(MaskError, match=r"b.00002.png cannot be read as a mask"):
        score(root, predictions, workers=2)


@pytest.mark.parametrize("pattern", PREDICTION_FOLDERS)
def test_predictions_are_found_where_tools_write_them(root: Path, tmp_path: Path, pattern: str) -> None:
    for name in ("a", "b"):
        write_labels(tmp_path / "out" / pattern.format(clip=name), given_frames())
    assert mean_scores(score(root, tmp_path / "out")[0].objects).j_and_f == 1


def test_missing_predictions_name_the_clip_and_the_frames(root: Path, predictions: Path) -> None:
    for index in (1, 3):
        (predictions / "a" / f"{index:05d}.png").unlink()
    with pytest.raises(InputError, match=r"clip 'a': 2 of 3 scored frames have no prediction in .*predictions.a \(00001, 00003\); choose"):
        score(root, predictions)
    for path in (predictions / "b").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"clip 'a': .*; clip 'b': 3 of 3 scored frames"):
        score(root, predictions)
    with pytest.raises(InputError, match="absent is not a folder; give the folder with the predicted masks"):
        score(root, predictions / "absent")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    root = write_root(tmp_path / "davis", dict.fromkeys("abcde", given_frames()))
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"clip 'c'.*; and 2 more clips; choose clips with --clips"):
        score(root, tmp_path / "out")


def test_the_first_and_last_frame_need_no_prediction(root: Path, predictions: Path) -> None:
    whole = score(root, predictions)[0]
    for index in (0, 4):
        (predictions / "a" / f"{index:05d}.png").unlink()
    cut = score(root, predictions)[0]
    assert cut.objects[0].j.per_frame == (None, *whole.objects[0].j.per_frame[1:4], None)
    assert cut.objects[0].j.summary == whole.objects[0].j.summary


def test_a_clip_of_two_frames_has_nothing_to_score(tmp_path: Path) -> None:
    root = write_root(tmp_path / "davis", {"a": given_frames()[:2]})
    write_labels(tmp_path / "out" / "a", given_frames()[:2])
    with pytest.raises(InputError, match="clip 'a' has 2 frames; a clip needs three"):
        score(root, tmp_path / "out")


def test_a_prediction_of_another_size_says_both_sizes(root: Path, predictions: Path) -> None:
    write_labels(predictions / "a", [labels_of(hw=(20, 24))] * 5)
    with pytest.raises(InputError, match=r"clip 'a': .*00000.png is 24x20 but its annotation is 12x10"):
        score(root, predictions)


def test_predicted_ids_that_are_no_objects_are_background_and_noted(root: Path, predictions: Path) -> None:
    before = score(root, predictions)[0]
    frames = [frame.copy() for frame in predicted_frames()]
    for frame in frames:
        frame[0, 0], frame[0, 1] = 9, 7
    write_labels(predictions / "a", frames)
    after = score(root, predictions)[0]
    assert after.objects == before.objects
    assert before.notes == ()
    assert after.notes == ("clip 'a': predicted ids [7, 9] are no objects of the clip; they count as background",)


def test_objects_that_turn_up_later_are_not_scored_and_noted(tmp_path: Path) -> None:
    late = [labels_of((1, SQUARE)), *[labels_of((1, SQUARE), (3, (slice(7, 9), slice(8, 11))))] * 3]
    root = write_root(tmp_path / "davis", {"a": late})
    write_labels(tmp_path / "out" / "a", late)
    clip = score(root, tmp_path / "out")[0]
    assert [scores.object_id for scores in clip.objects] == [1]
    assert "annotated ids [3] are not in the first frame; they are not scored" in clip.notes[-1]


def test_ids_need_not_be_contiguous_nor_fit_a_byte(tmp_path: Path) -> None:
    frames = [labels_of((3, SQUARE), (200, (slice(7, 9), slice(8, 11)))).astype(np.uint16) * 5] * 3
    for folder in (tmp_path / "davis" / "Annotations" / "480p" / "a", tmp_path / "out" / "a"):
        write_labels(folder, frames, indexed=False)
    clip = score(tmp_path / "davis", tmp_path / "out")[0]
    assert [scores.object_id for scores in clip.objects] == [15, 1000]
    assert mean_scores(clip.objects).j_and_f == 1


@pytest.mark.parametrize("value", [1, 7, 255])
@pytest.mark.parametrize("indexed", [True, False])
def test_davis_2016_merges_whatever_is_predicted(tmp_path: Path, value: int, indexed: bool) -> None:
    root = write_root(tmp_path / "davis", {"a": [labels_of((255, SQUARE))] * 3}, indexed=False)
    write_labels(tmp_path / "out" / "a", [labels_of((value, (slice(2, 4), slice(2, 6))), (2, (slice(4, 6), slice(2, 6))))] * 3, indexed=indexed)
    clip = score(root, tmp_path / "out")[0]
    assert [scores.object_id for scores in clip.objects] == [1]
    assert mean_scores(clip.objects).j_and_f == 1
    assert clip.notes == ()


def test_davis_2017_annotations_are_merged_on_request(root: Path, predictions: Path) -> None:
    clip = score(root, predictions, year="2016")[0]
    assert [scores.object_id for scores in clip.objects] == [1]
    assert clip.objects[0].j.per_frame == pytest.approx((1, 1, 6 / 22, 8 / 30, 0))


def test_a_0_255_prediction_is_the_object_of_a_clip_with_one(tmp_path: Path) -> None:
    root = write_root(tmp_path / "davis", {"a": [labels_of((4, SQUARE))] * 3})
    write_labels(tmp_path / "out" / "a", [labels_of((255, SQUARE))] * 3, indexed=False)
    clip = score(root, tmp_path / "out")[0]
    assert clip.objects[0].object_id == 4
    assert mean_scores(clip.objects).j_and_f == 1


def test_void_is_left_out_of_both_masks() -> None:
    given = labels_of((1, SQUARE), (255, (slice(7, 10), slice(0, 12))))
    predicted = labels_of((1, SQUARE), (1, (slice(7, 10), slice(0, 12))))
    assert score_frame(given, predicted, [1]) == [(1, 1)]
    assert score_frame(labels_of((1, SQUARE)), predicted, [1])[0][0] == 16 / 52
