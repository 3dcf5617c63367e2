"""`rotoscope correct` through the command line: what it does, and where results go."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from clip_fixtures import NUM_FRAMES, Smear
from correct_fixtures import blank_session, content_of, labels_in, square_file, state_of, texts
from session_parts import DiscMaker

from rotoscope.cli.__main__ import main
from rotoscope.models import registry
from rotoscope.types import Masks

# what it does


def test_a_click_begins_a_project_and_the_masks_are_written_as_track_writes_them(correct, clip_folder, tmp_path, project, capsys) -> None:
    assert correct("--clip", clip_folder, "--click", "10,12", "-o", tmp_path / "out", "--overlay", "vp9") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{project}: 12 frames, all with masks; objects: 1 (object 1)",
        "frames given: 0",
        f"masks, overlay and summary.json are in {tmp_path / 'out'}",
    ]
    assert said.err == ""
    assert (labels_in(tmp_path / "out") == 1).sum() == 49
    assert len(content_of(tmp_path / "out")) == NUM_FRAMES
    assert (tmp_path / "out" / "overlay.webm").stat().st_size > 100
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["complete"]
    assert [frame["given"] for frame in summary["frames"]] == [index == 0 for index in range(NUM_FRAMES)]
    assert summary["frames"][0]["objects"] == {"1": {"area_pixels": 49, "confidence": 1.0}}


def test_a_correction_changes_what_comes_after_it_and_leaves_given_frames_alone(begun, tmp_path, capsys) -> None:
    assert begun("--export", tmp_path / "before") == 0
    assert begun("--frame", "6", "--click", "25,5", "--click", "10,12,0", "-o", tmp_path / "after") == 0
    before, after = (np.stack([labels_in(tmp_path / name, index) for index in range(NUM_FRAMES)]) for name in ("before", "after"))
    assert np.array_equal(before[0], after[0])
    assert after[6, 5, 25] == 1
    assert (after[7:] != before[7:]).any(axis=(1, 2)).all()


def test_each_object_and_frame_named_holds_for_the_marks_after_it(correct, discs, clip_folder, capsys) -> None:
    more = "--object 3 --click 5,5 --click=20,5,0 --object 7 --box 8,8,14,12 --frame 4 --click 6,20"
    assert correct("--clip", clip_folder, *more.split()) == 0
    (first, strokes), (later, done_later) = discs.asked
    assert (first, later) == (0, 4)
    assert [(type(one).__name__, one.object_id) for one in strokes] == [("Clicks", 3), ("Clicks", 3), ("Box", 7)]
    assert [one.object_id for one in done_later] == [7]
    capsys.readouterr()
    expected = ["frame 0: object 3 and object 7 marked", "frame 4: object 7 marked", "masks carried on to 11 frames"]
    assert texts(state_of(correct, capsys))[:2] == expected[:2]


def test_marks_on_a_frame_count_together_over_commands_until_they_are_carried_on(correct, discs, clip_folder, capsys) -> None:
    assert correct("--clip", clip_folder, "--click", "10,12", "--no-propagate") == 0
    assert "11 of them without masks" in capsys.readouterr().out
    assert correct("--click", "25,12", "--no-propagate") == 0
    assert [len(strokes) for _, strokes in discs.asked] == [1, 2]
    assert "not carried on yet: 0" in capsys.readouterr().out
    assert correct() == 0
    assert "all with masks" in capsys.readouterr().out
    assert correct("--click", "5,5") == 0
    assert len(discs.asked[-1][1]) == 1


def test_painted_masks_belong_to_the_object_named_or_to_their_own(correct, clip_folder, tmp_path, capsys) -> None:
    one, two = square_file(tmp_path / "one.png", 1), square_file(tmp_path / "two.png", 3, 4)
    assert correct("--clip", clip_folder, "--mask", two, "--frame", "2", "--object", "9", "--mask", one, "--mask", f"5={one}", "--no-propagate") == 0
    capsys.readouterr()
    assert texts(state_of(correct, capsys)) == [
        "frame 0: object 3 and object 4 painted",
        "frame 2: object 9 painted",
        "frame 5: object 9 painted",
    ]
    folder = tmp_path / "masks"
    folder.mkdir()
    for index in (7, 3):
        shutil.copy(two, folder / f"{index:05d}.png")
    assert correct("--mask", folder, "--no-propagate") == 0
    capsys.readouterr()
    assert state_of(correct, capsys)["given_frames"] == [0, 2, 3, 5, 7]


def test_brush_rubber_and_region(begun, tmp_path) -> None:
    assert begun("--frame", "3", "--radius", "2", "--brush", "4,20,28,20", "--object", "2", "--brush", "4,4", "-o", tmp_path / "painted") == 0
    painted = labels_in(tmp_path / "painted", 3)
    assert [painted[20, x] for x in (5, 16, 27)] == [1, 1, 1]
    assert painted[4, 4] == 2
    assert begun("--frame", "3", "--erase", "16,20", "--radius", "3", "-o", tmp_path / "erased") == 0
    erased = labels_in(tmp_path / "erased", 3)
    assert (erased[20, 16], erased[20, 5], erased[4, 4]) == (0, 1, 2)
    region = ["--region", "16,0,32,24", "--click", "24,12"]
    assert begun("--frame", "3", *region, "-o", tmp_path / "region") == 0
    inside = labels_in(tmp_path / "region", 3)
    assert inside[12, 24] == 1
    assert np.array_equal(inside[:, :16], erased[:, :16])


def test_an_object_can_be_said_to_be_out_of_sight(begun, tmp_path) -> None:
    assert begun("--frame", "5", "--erase", "all", "-o", tmp_path / "out") == 0
    assert not labels_in(tmp_path / "out", 5).any()
    assert not labels_in(tmp_path / "out", 11).any()
    assert labels_in(tmp_path / "out", 0).any()


def test_lines_through_the_background_run_off_the_objects_of_their_frame(begun, discs, tmp_path) -> None:
    path = tmp_path / "lines.json"
    line = [[0.1, 0.1], [0.3, 0.1]]
    path.write_text(
        json.dumps({"scribbles": [[], [{"path": line, "object_id": 0}], [{"path": line, "object_id": 2}, {"path": line, "object_id": 0}]]})
    )
    assert begun("--scribbles", path) == 0
    (first, lines), (second, others) = discs.asked[-2:]
    assert (first, second) == (1, 2)
    assert [(one.object_id, one.positive) for one in lines] == [(1, False)]
    assert [(one.object_id, one.positive) for one in others] == [(2, True), (1, False), (2, False)]


def test_undo_and_redo_go_back_and_forth_to_the_very_bits(begun, tmp_path, capsys) -> None:
    assert begun("-o", tmp_path / "a") == 0
    assert begun("--frame", "6", "--click", "25,5", "-o", tmp_path / "b") == 0
    assert begun("--undo", "2", "-o", tmp_path / "c") == 0
    assert content_of(tmp_path / "c") == content_of(tmp_path / "a")
    assert begun("--redo") == 0
    assert begun("--redo", "-o", tmp_path / "d") == 0
    assert content_of(tmp_path / "d") == content_of(tmp_path / "b") != content_of(tmp_path / "a")
    capsys.readouterr()
    assert begun("--undo=9") == 2
    assert "9 steps cannot be taken with --undo: there are 4" in capsys.readouterr().err
    assert begun("--undo") == 0
    state = state_of(begun, capsys)
    assert [step["is_undone"] for step in state["steps"]] == [False, False, False, True]
    assert (state["given_frames"], state["pending_frames"]) == ([0, 6], [6])
    assert begun("--redo", "2") == 2


def test_objects_are_renamed_and_removed(begun, tmp_path, capsys) -> None:
    assert begun("--object", "2", "--frame", "4", "--click", "25,20", "--rename", "2=small dog") == 0
    assert "objects: 1 (object 1), 2 (small dog)" in capsys.readouterr().out
    assert begun("--remove-object", "1", "-o", tmp_path / "out") == 0
    assert sorted({int(value) for index in range(NUM_FRAMES) for value in np.unique(labels_in(tmp_path / "out", index))}) == [0, 2]
    assert begun("--click", "10,12") == 2
    assert "object 1 was removed" in capsys.readouterr().err
    assert begun("--rename", "1=x") == 2
    assert "object 1 was removed" in capsys.readouterr().err
    assert begun("--undo") == 0
    assert "1 (object 1), 2 (small dog)" in capsys.readouterr().out


def test_the_list_names_what_there_is(begun, clip_folder, capsys) -> None:
    assert begun("--frame", "6", "--click", "25,5", "--no-propagate") == 0
    capsys.readouterr()
    assert begun("--list") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [
        f"clip: {clip_folder}, 32x24",
        "    1  frame 0: object 1 marked",
        "    2  masks carried on to 11 frames",
        "    3  frame 6: object 1 marked",
        "frames given: 0, 6; not carried on yet: 6",
    ]


def test_suggested_frames_are_those_of_the_session(begun, project, clip_folder, capsys) -> None:
    assert begun("--suggest", "3") == 0
    said = capsys.readouterr().out.splitlines()[-1]
    with blank_session(project) as session:
        assert said == f"frames most worth a look: {', '.join(map(str, session.suggest_frames(3)))}"
    assert begun("--frame", "6", "--click", "25,5", "--suggest", "2", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["stage"] for line in lines[:2]] == ["correcting", "propagating"]
    assert {line["frame_index"] for line in lines[1:-1]} == {6, 5, 4, 3, 2, 1, 7, 8, 9, 10, 11}
    assert len(lines[-1]["suggested_frames"]) == 2


def test_the_models_are_loaded_only_when_they_are_needed(begun, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(registry, "load", fail)
    monkeypatch.setattr(registry, "load_mask_maker", fail)
    for more in ("--list", "--suggest 2", "--undo", "--redo", "--rename 1=a", "--erase 9,9 --no-propagate"):
        assert begun(*more.split()) == 0


def test_the_options_reach_the_models(clip_folder, project, monkeypatch, capsys) -> None:
    asked = []

    def noted(kind: str, made: object) -> Callable[..., object]:
        return lambda name, **settings: asked.append((kind, name, settings)) or made

    class Fuser:
        def fuse(self, frame, earlier, newer, *, nearness, change=None) -> Masks:
            return newer

    class Tracker:
        def start(self, *, max_memory_bytes=None, features=None) -> Smear:
            asked.append(("budget", max_memory_bytes))
            return Smear()

    monkeypatch.setattr(registry, "load", noted("track", Tracker()))
    monkeypatch.setattr(registry, "load_mask_maker", noted("interact", DiscMaker()))
    monkeypatch.setattr(registry, "load_fuser", noted("fuse", Fuser()))
    more = "--click 5,5 --model aot-t --weights w --interaction-model s2m --interaction-weights i --fuser fusion --fuser-weights f --device cpu"
    assert main(["correct", str(project), "--clip", str(clip_folder), *more.split(), *["--precision", "bfloat16", "--max-memory", "1MB"]]) == 0
    assert asked[:3] == [
        ("interact", "s2m", {"weights": Path("i"), "device": "cpu"}),
        ("track", "aot-t", {"weights": Path("w"), "device": "cpu", "precision": "bfloat16"}),
        ("fuse", "fusion", {"weights": Path("f"), "device": "cpu"}),
    ]
    assert asked[3] == ("budget", 2**20)


def test_the_real_maker_and_tracker_work_from_the_command_line(clip_folder, project, tmp_path, monkeypatch) -> None:
    from rotoscope.models.s2m_lite import S2mLiteConfig, S2mLiteMaker, S2mLiteNetwork

    maker = S2mLiteMaker(S2mLiteNetwork().eval(), S2mLiteConfig(long_edge=48))
    monkeypatch.setattr(registry, "load_mask_maker", lambda *_, **__: maker)
    more = ["--model", "mast-lite", "--device", "cpu", "--click", "10,12", "--click", "30,20,0", "-o", str(tmp_path / "out")]
    assert main(["correct", str(project), "--clip", str(clip_folder), *more]) == 0
    assert (labels_in(tmp_path / "out")[12, 10], labels_in(tmp_path / "out")[20, 30]) == (1, 0)


# where results go


def test_results_replace_earlier_ones_of_the_same_project_and_nothing_else(begun, clip_folder, first_mask, tmp_path, project, capsys) -> None:
    out = tmp_path / "out"
    assert begun("--export", out, "--overlay", "vp9") == 0
    assert begun("--frame", "6", "--click", "25,5", "-o", out, "--overlay", "none") == 0
    assert not (out / "overlay.webm").exists()  # that of the masks before
    assert main(["track", str(clip_folder), "--mask", str(first_mask), "-o", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert begun("--frame", "7", "--click", "5,5", "-o", tmp_path / "run") == 2
    assert "holds other results; use --overwrite" in capsys.readouterr().err
    assert 7 not in state_of(begun, capsys)["given_frames"]
    assert begun("--export", tmp_path / "run", "--overwrite") == 0
    capsys.readouterr()
    own = tmp_path / "drawn" / "masks" / "clip"
    own.mkdir(parents=True)
    shutil.copy(first_mask, own / "00000.png")
    assert begun("--export", tmp_path / "drawn") == 2
    assert "holds other results" in capsys.readouterr().err
    assert (own / "00000.png").read_bytes() == first_mask.read_bytes()
    assert begun("--export", project / "out") == 2
    assert "is in the project itself" in capsys.readouterr().err
    assert begun("--export", first_mask) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_frames_without_masks_are_left_out_and_the_run_is_not_called_complete(correct, clip_folder, tmp_path) -> None:
    assert correct("--clip", clip_folder, "--frame", "3", "--click", "10,12", "--no-propagate", "-o", tmp_path / "out", "--overlay", "h264") == 0
    assert [path.name for path in (tmp_path / "out" / "masks" / "clip").iterdir()] == ["00003.png"]
    assert (tmp_path / "out" / "overlay.mp4").exists()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["complete"], summary["num_frames"]) == (False, 1)


def test_without_masks_nothing_is_written(correct, clip_folder, tmp_path, capsys) -> None:
    assert correct("--clip", clip_folder, "-o", tmp_path / "out") == 2
    assert "has no masks yet that could be written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# starting from a finished run


def test_a_tracked_clip_is_corrected_where_it_went_wrong(correct, tracked, tmp_path, capsys) -> None:
    assert correct("--from", tracked, "-o", tmp_path / "same") == 0
    assert content_of(tmp_path / "same") == content_of(tracked)
    capsys.readouterr()
    state = state_of(correct, capsys)
    assert (state["given_frames"], state["pending_frames"]) == ([2], [])
    assert texts(state) == ["frame 2: object 1 and object 4 painted", "masks carried on to 11 frames"]
    assert correct("--frame", "8", "--object", "4", "--erase", "all", "-o", tmp_path / "mended") == 0
    assert content_of(tmp_path / "mended")[:3] == content_of(tracked)[:3]
    assert 4 in labels_in(tracked, 10)
    assert 4 not in labels_in(tmp_path / "mended", 10)


def test_marks_may_come_with_the_run_they_correct(correct, tracked, capsys) -> None:
    assert correct("--from", tracked, "--frame", "8", "--click", "20,5", "--json") == 0
    stages = [json.loads(line).get("stage") for line in capsys.readouterr().out.splitlines()]
    assert list(dict.fromkeys(stages)) == ["taking over", "correcting", "propagating", None]


def test_results_of_a_project_can_start_another(begun, tmp_path, capsys) -> None:
    assert begun("--export", tmp_path / "out") == 0
    assert main(["correct", str(tmp_path / "second"), "--from", str(tmp_path / "out"), "--export", str(tmp_path / "again")]) == 2
    assert main(["correct", str(tmp_path / "second"), "--from", str(tmp_path / "out"), "-o", str(tmp_path / "again")]) == 0
    assert content_of(tmp_path / "again") == content_of(tmp_path / "out")


def test_what_is_no_finished_run_of_this_clip_is_refused(correct, tracked, clip_folder, tmp_path, project, capsys) -> None:
    def refusal(*more: object) -> str:
        assert correct(*more) == 2
        said = capsys.readouterr().err.strip()
        assert len(said.splitlines()) == 1
        return said

    assert "holds no finished run" in refusal("--from", tmp_path)
    (tmp_path / "short").mkdir()
    shutil.copy(clip_folder / "00000.png", tmp_path / "short")
    assert "up to frame 11, but the clip has 1 frames of 32x24" in refusal("--from", tracked, "--clip", tmp_path / "short")
    clip_folder.rename(tmp_path / "moved")
    assert "not there from here; say where it is with --clip" in refusal("--from", tracked)
    assert not project.exists()
    (tmp_path / "moved").rename(clip_folder)
    summary = json.loads((tracked / "summary.json").read_text())
    (tracked / "summary.json").write_text(json.dumps({**summary, "complete": False}))
    assert "did not come to its end" in refusal("--from", tracked)
    (tracked / "summary.json").write_text(json.dumps(summary))
    (tracked / "masks" / "clip" / "00004.png").unlink()
    assert "lacks masks that summary.json names" in refusal("--from", tracked)
    assert f"--from {tracked}" in (main(["correct", str(tracked), "--list"]), capsys.readouterr().err)[1]
    assert correct("--clip", clip_folder, "--click", "5,5") == 0
    (tracked / "masks" / "clip" / "00004.png").write_bytes((tracked / "masks" / "clip" / "00005.png").read_bytes())
    assert "holds work already" in refusal("--from", tracked)
