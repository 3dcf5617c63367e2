from pathlib import Path

import numpy as np
import pytest
from clip_fixtures import SmearTracker
from davis_roots import SQUARE, given_frames, labels_of, write_root
from PIL import Image

from rotoscope.datasets.davis import AnnotatedClip, read_davis, read_label_map
from rotoscope.errors import InputError, OutputError
from rotoscope.evaluation.davis import find_predictions, score_clips
from rotoscope.evaluation.run import TrackedFrame, first_masks, frames_per_second, track_clips


@pytest.fixture
def clips(tmp_path: Path) -> list[AnnotatedClip]:
    root = write_root(tmp_path / "davis", {"a": given_frames(), "b": given_frames()[:3]})
    return read_davis(root, with_frames=True)


def test_each_clip_is_tracked_from_its_first_annotation(clips: list[AnnotatedClip], tmp_path: Path) -> None:
    done = list(track_clips(clips, SmearTracker(), tmp_path / "out"))
    assert [(frame.clip, frame.frame_index) for frame in done] == [("a", i) for i in range(5)] + [("b", i) for i in range(3)]
    written = [read_label_map(tmp_path / "out" / "a" / f"{i:05d}.png") for i in range(5)]
    np.testing.assert_array_equal(written[0], given_frames()[0])
    np.testing.assert_array_equal(written[1], np.roll(given_frames()[0], 1, axis=1))
    scores = list(score_clips(find_predictions(clips, tmp_path / "out")))
    assert [scores.j.per_frame[0] for scores in scores[0].objects] == [1, 1]
    assert scores[0].objects[0].j.per_frame[1] == 12 / 20


def test_stopping_leaves_what_was_done(clips: list[AnnotatedClip], tmp_path: Path) -> None:
    frames = track_clips(clips, SmearTracker(), tmp_path / "out")
    for _ in range(2):
        next(frames)
    frames.close()
    assert sorted(path.name for path in (tmp_path / "out" / "a").iterdir()) == ["00000.png", "00001.png"]


def test_results_that_are_there_are_never_overwritten(clips: list[AnnotatedClip], tmp_path: Path) -> None:
    list(track_clips(clips[1:], SmearTracker(), tmp_path / "out"))
    before = (tmp_path / "out" / "b" / "00001.png").stat().st_mtime_ns
    with pytest.raises(InputError, match=r"holds results for b already; choose another folder, or score those with --predictions"):
        next(track_clips(clips, SmearTracker(), tmp_path / "out"))
    assert (tmp_path / "out" / "b" / "00001.png").stat().st_mtime_ns == before
    assert not (tmp_path / "out" / "a").exists()


def test_an_output_that_is_a_file_is_refused_before_any_work(clips: list[AnnotatedClip], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="cannot be a folder for results"):
        next(track_clips(clips, SmearTracker(), tmp_path / "out"))


def test_the_given_masks_follow_the_convention(tmp_path: Path) -> None:
    labels = labels_of((4, SQUARE), (255, (slice(7, 9), slice(8, 11))))
    root = write_root(tmp_path, {"a": [labels] * 3})
    many, merged = (first_masks(read_davis(root, year=year)[0]) for year in ("2017", "2016"))
    assert many.object_ids == (4,)
    assert int((many.labels() == 4).sum()) == 16
    assert merged.object_ids == (1,)
    assert int(merged.labels().sum()) == 16 + 6


def test_speed_counts_predicted_frames_and_all_time() -> None:
    frames = [TrackedFrame("a", 0, 1.0), TrackedFrame("a", 1, 0.5), TrackedFrame("a", 2, 0.5), TrackedFrame("b", 0, 0.0), TrackedFrame("b", 1, 0.0)]
    assert frames_per_second(frames) == 1.5
    assert frames_per_second([]) == 0


def test_masks_of_the_run_are_indexed_and_of_the_size_of_the_frames(clips: list[AnnotatedClip], tmp_path: Path) -> None:
    list(track_clips(clips[1:], SmearTracker(), tmp_path / "out"))
    with Image.open(tmp_path / "out" / "b" / "00002.png") as mask:
        assert (mask.mode, mask.size) == ("P", (12, 10))
