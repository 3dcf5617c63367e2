"""The script that gives clips without masks some to train on."""

from pathlib import Path

import numpy as np
import pseudo_label
import pytest
import torch
from looking import detections_of
from PIL import Image
from session_parts import RepeatPass, RepeatTracker, blank_clip

from rotoscope.datasets.clips import Footage, read_clips
from rotoscope.datasets.davis import read_label_map
from rotoscope.types import Detections, Frame, Masks

HW = (24, 40)


def block(top: int, left: int, height: int = 8, width: int = 10) -> torch.Tensor:
    mask = torch.zeros(HW, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


class OneLook:
    """Finds the same in every frame, surer in one of them."""

    def __init__(self, seen: list[tuple[torch.Tensor, float]], best_frame: int = 0) -> None:
        self.seen, self.best_frame = seen, best_frame

    def detect(self, frame: Frame) -> Detections:
        doubt = 0.0 if frame.index == self.best_frame else 0.2
        return detections_of([(mask, score - doubt, 0) for mask, score in self.seen], frame.hw)


class ForgetfulTracker(RepeatTracker):
    """Repeats what it is given, but loses object 2 after the frame that it began with."""

    def start(self, *, max_memory_bytes: int | None = None, features: object = None) -> "ForgetfulPass":
        return ForgetfulPass(self)


class ForgetfulPass(RepeatPass):
    def predict(self, frame: Frame) -> Masks:
        labels = super().predict(frame).labels()
        assert self.last is not None
        return Masks.from_labels(torch.where(labels == 2, 0, labels), self.last.object_ids)


def test_the_best_detections_of_a_frame_are_its_objects_and_none_lies_on_a_better_one():
    seen = [(block(0, 0), 0.9), (block(1, 1), 0.8), (block(12, 20), 0.7), (block(12, 0, 1, 1), 0.6), (block(0, 25), 0.1)]
    best, labels = pseudo_label.first_labels(blank_clip()[0], OneLook(seen), least_score=0.3)
    assert best == pytest.approx(0.9)
    assert labels.unique().tolist() == [0, 1, 2]  # neither the second one's twin, nor the dot, nor the doubtful one
    assert torch.equal(labels == 2, block(12, 20))


def test_what_both_ways_agree_on_is_kept_and_what_is_lost_is_left_out():
    frames = blank_clip(5)
    labels = (block(0, 0) * 1 + block(12, 20) * 2).to(torch.int32)
    kept = pseudo_label.there_and_back(frames, labels, RepeatTracker(), 0.7)
    assert all((one == labels.numpy()).all() for one in kept.values())
    kept = pseudo_label.there_and_back(frames, labels, ForgetfulTracker(), 0.7)
    assert {int(value) for one in kept.values() for value in np.unique(one)} == {0, 1}


def test_where_the_ways_differ_the_mask_says_void():
    class Late(ForgetfulPass):
        def predict(self, frame: Frame) -> Masks:
            return super().predict(frame) if frame.index == 4 else RepeatPass.predict(self, frame)

    class LateTracker(RepeatTracker):
        def start(self, *, max_memory_bytes: int | None = None, features: object = None) -> RepeatPass:
            return Late(self)

    labels = (block(0, 0) * 1 + block(12, 20) * 2).to(torch.int32)
    kept = pseudo_label.there_and_back(blank_clip(5), labels, LateTracker(), 0.0)
    assert set(np.unique(kept[0][block(12, 20).numpy()])) == {255}
    assert set(np.unique(kept[4])) == {0, 1}


@pytest.mark.parametrize("start", [0, 3, 6])
def test_a_clip_is_labelled_both_ways_from_the_frame_with_the_best_detection(start):
    frames = blank_clip(9)
    labels = pseudo_label.label_clip(frames, OneLook([(block(4, 4), 0.9)], start), RepeatTracker(), least_score=0.3, least_agreement=0.7)
    assert sorted(labels) == list(range(9))
    assert all((one == block(4, 4).numpy()).all() for one in labels.values())


def test_nothing_found_gives_no_clip():
    assert pseudo_label.label_clip(blank_clip(9), OneLook([]), RepeatTracker(), least_score=0.3, least_agreement=0.7) == {}


def test_what_is_written_is_read_as_clips_to_train_on(tmp_path):
    paths = []
    for index in range(3):
        path = tmp_path / "frames" / f"{index:05d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((*HW, 3), index, dtype=np.uint8)).save(path)
        paths.append(path)
    labels = {index: block(4, 4).numpy().astype(np.uint8) for index in range(3)}
    pseudo_label.write_clip(tmp_path / "out", Footage("set/one", tuple(paths)), labels)
    pseudo_label.write_clip(tmp_path / "out", Footage("set/one", tuple(paths)), labels)  # a second time as well
    (found,) = read_clips(tmp_path / "out")
    assert [clip.name for clip in found.clips] == ["set-one"]
    assert (read_label_map(found.clips[0].annotation_paths[2]) == labels[2]).all()
    assert Path(found.clips[0].frame_paths[0]).resolve() == paths[0].resolve()
