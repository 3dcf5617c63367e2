"""`rotoscope track` with clicks, boxes and lines instead of masks."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rotoscope.cli.__main__ import main
from rotoscope.cli.marks import Mark, interactions_of, marks_in
from rotoscope.errors import InputError, MaskError
from rotoscope.jobs.marks import marked_masks
from rotoscope.models import registry
from rotoscope.types import Box, Clicks, Frame, Interaction, Masks, Scribble
from rotoscope.video.read import open_clip


class Squares:
    """A maker of masks: a square around each positive click, and each box as it is; lines are given a pixel."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[Interaction], Masks]] = []

    def make(self, frame: Frame, interactions: Iterable[Interaction], current: Masks) -> Masks:
        done = list(interactions)
        self.asked.append((frame.index, done, current))
        labels = current.labels().clone()
        for one in done:
            if isinstance(one, Box):
                x0, y0, x1, y1 = one.xyxy.int().tolist()
                labels[y0:y1, x0:x1] = one.object_id
            else:
                points = one.points[one.positive] if isinstance(one, Clicks) else one.path
                for x, y in points.int().tolist():
                    labels[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = one.object_id
        return Masks.from_labels(labels, dict.fromkeys((*current.object_ids, *(one.object_id for one in done))))


@pytest.fixture
def squares(monkeypatch) -> Squares:
    maker = Squares()
    monkeypatch.setattr(registry, "load_mask_maker", lambda *_, **__: maker)
    return maker


def run(clip: Path, output: Path, *more: str) -> int:
    return main(["track", str(clip), "-o", str(output), *more])


def first_labels(output: Path) -> np.ndarray:
    return np.asarray(Image.open(output / "masks" / "clip" / "00000.png"))


def test_a_click_is_enough_to_track(smear, squares, clip_folder, tmp_path, capsys) -> None:
    assert run(clip_folder, tmp_path / "out", "--click", "10,12") == 0
    assert "12 frames at" in capsys.readouterr().out
    labels = first_labels(tmp_path / "out")
    assert sorted(set(labels.ravel().tolist())) == [0, 1]
    assert labels[12, 10] == 1
    assert (labels == 1).sum() == 25


def test_several_marks_of_several_objects_on_several_frames(smear, squares, clip_folder, tmp_path) -> None:
    more = "--object 3 --click 5,5 --click=20,5,0 --object 7 --box 8,8,14,12 --frame 4 --click 6,20 --direction forward"
    assert run(clip_folder, tmp_path / "out", *more.split()) == 0
    (first, done, current), (later, done_later, _) = squares.asked
    assert (first, later) == (0, 4)
    assert [(type(one).__name__, one.object_id) for one in done] == [("Clicks", 3), ("Clicks", 3), ("Box", 7)]
    assert [bool(one.positive) for one in done[:2]] == [True, False]
    assert current.object_ids == ()
    assert [one.object_id for one in done_later] == [7]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["object_ids"] == [3, 7]
    assert [frame["given"] for frame in summary["frames"]] == [index in (0, 4) for index in range(12)]


def test_marks_correct_a_given_mask(smear, squares, clip_folder, first_mask, tmp_path) -> None:
    assert run(clip_folder, tmp_path / "out", "--mask", str(first_mask), "--object", "9", "--click", "3,3") == 0
    assert squares.asked[0][2].object_ids == (1, 4)
    assert set(first_labels(tmp_path / "out").ravel().tolist()) == {0, 1, 4, 9}


def test_lines_come_from_a_file(smear, squares, clip_folder, tmp_path) -> None:
    path = tmp_path / "lines.json"
    lines = [[{"path": [[0.1, 0.1], [0.2, 0.2]], "object_id": 2}, {"path": [[0.9, 0.9]], "object_id": 0}], []]
    path.write_text(json.dumps({"sequence": "clip", "scribbles": lines}))
    assert run(clip_folder, tmp_path / "out", "--scribbles", str(path)) == 0
    done = squares.asked[0][1]
    assert [(type(one), one.object_id, one.positive) for one in done] == [(Scribble, 2, True), (Scribble, 2, False)]


def test_a_run_resumes_only_with_the_same_marks(smear, squares, clip_folder, tmp_path, capsys) -> None:
    assert run(clip_folder, tmp_path / "out", "--click", "10,12") == 0
    assert run(clip_folder, tmp_path / "out", "--click", "10,12", "--resume") == 0
    assert run(clip_folder, tmp_path / "out", "--click", "11,12", "--resume") == 2
    assert "interactions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--click 10", "'--click 10': write x,y or x,y,1"),
        ("--click a,b", "'--click a,b': write x,y"),
        ("--click nan,3", "'--click nan,3': write x,y"),
        ("--click 10,12,2", "x,y,0 for one that is not"),
        ("--box 10,12,30", "'--box 10,12,30': write x0,y0,x1,y1"),
        ("--box 10,12,10,30", "box 10,12,10,30 is empty"),
        ("--box 10,12,inf,30", "write x0,y0,x1,y1"),
        ("--frame 12 --click 10,12", "frame 12 was marked, but clip has frames 0 to 11"),
        ("--frame -1 --click 10,12", "'--frame -1': give a whole number from 0 on"),
        ("--object 0 --click 10,12", "'--object 0': give a whole number from 1 on"),
        ("--object 99999 --click 10,12", "[99999] are out of range"),
        ("--click 10,12 --click 10.4,12.9,0", "pixel 10,12 of frame 0 is said to be on object 1 and off it"),
        ("--object 1 --click 10,12 --object 2 --click 10,12", "pixel 10,12 of frame 0 is said to be on object 1 and on 2"),
        ("--scribbles nowhere.json", "nowhere.json is not a readable scribble file"),
        ("--interaction-model s2n --click 10,12", "there is no model 's2n'"),
        ("--interaction-model mivos --click 10,12", "'mivos' is not made for this"),
        ("", "mark an object with --click x,y"),
    ],
)
def test_marks_that_cannot_be_meant_are_one_line_and_exit_code_2(smear, clip_folder, tmp_path, capsys, more, message) -> None:
    assert run(clip_folder, tmp_path / "out", *more.split()) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_file_without_objects_is_refused(smear, clip_folder, tmp_path, capsys) -> None:
    path = tmp_path / "lines.json"
    path.write_text(json.dumps({"scribbles": [[{"path": [[0.9, 0.9]], "object_id": 0}]]}))
    assert run(clip_folder, tmp_path / "out", "--scribbles", str(path)) == 2
    assert "holds no line through an object" in capsys.readouterr().err


def test_missing_weights_are_named(smear, clip_folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(registry, "find_weights", lambda _: registry.WeightsStatus(None))
    assert run(clip_folder, tmp_path / "out", "--click", "10,12") == 2
    said = capsys.readouterr().err
    assert "'s2m-lite' ships no weights" in said
    assert "--interaction-weights" in said


def test_marks_outside_the_frame_and_only_off_the_object_are_refused_by_the_real_maker(smear, clip_folder, tmp_path, capsys, monkeypatch) -> None:
    from rotoscope.models.s2m_lite import S2mLiteConfig, S2mLiteMaker, S2mLiteNetwork

    maker = S2mLiteMaker(S2mLiteNetwork().eval(), S2mLiteConfig(long_edge=48))
    monkeypatch.setattr(registry, "load_mask_maker", lambda *_, **__: maker)
    assert run(clip_folder, tmp_path / "out", "--click", "4000,12") == 2
    assert "the click at 4000,12 lies outside frame 0" in capsys.readouterr().err
    assert run(clip_folder, tmp_path / "out", "--click", "10,12,0") == 2
    assert "say also where it is" in capsys.readouterr().err


def test_an_object_of_which_nothing_is_found_is_named(clip_folder) -> None:
    class Blind(Squares):
        def make(self, frame, interactions, current) -> Masks:
            return Masks.from_labels(torch.zeros(frame.hw, dtype=torch.int32), [5])

    done = [Box(0, 5, torch.tensor([1.0, 1.0, 9.0, 9.0]))]
    with pytest.raises(MaskError, match="nothing was found of object 5 where frame 0 was marked"):
        marked_masks(open_clip(str(clip_folder)), done, Blind(), {})


def test_an_object_named_once_is_meant_everywhere() -> None:
    assert marks_in(["clip", "--click", "1,2", "--object", "4", "--frame=6"]) == [Mark("--click", "1,2", 4, 6)]
    both = marks_in(["--click", "1,2", "--object", "4", "--box", "1,2,3,4", "--object", "5", "--box=5,6,7,8"])
    assert [mark.object_id for mark in both] == [1, 4, 5]
    assert interactions_of([], "clip") == ()
    with pytest.raises(InputError):
        marks_in(["--object", "x", "--click", "1,2"])


def test_a_camera_cannot_be_marked(smear, squares, clip_folder) -> None:
    from types import SimpleNamespace

    from rotoscope.jobs.marks import check_marks

    done = [Clicks(0, 1, torch.ones(1, 2), torch.tensor([True]))]
    live = SimpleNamespace(is_live=True, name="camera 0", num_frames=None)
    with pytest.raises(InputError, match="live stream, whose frames cannot be marked"):
        check_marks(done, live)
