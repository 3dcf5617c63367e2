"""`rotoscope correct` through the command line: what cannot be done, and being stopped."""

import errno
import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import torch
from clip_fixtures import HEIGHT, NUM_FRAMES, WIDTH, Smear, write_mask
from correct_fixtures import blank_session, content_of, labels_in, state_of, texts
from session_parts import DiscMaker

from rotoscope.cli.__main__ import main
from rotoscope.jobs import correct as correct_job
from rotoscope.jobs.project import export as export_job
from rotoscope.models import registry
from rotoscope.types import Masks

# what cannot be done


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("", "there is no project"),
        ("--undo", "there is no project"),
        ("--list", "there is no project"),
        ("--clip CLIP --undo", "there is no project"),
        ("--clip CLIP --export out", "there is no project"),
        ("--clip CLIP --click 10", "'--click 10': write x,y or x,y,1"),
        ("--clip CLIP --click 32,3", "a click on frame 0 for object 1 lies outside 0,0,32,24"),
        ("--clip CLIP --click 5,5 --region 10,0,32,24", "lies outside 10,0,32,24"),
        ("--clip CLIP --click 5,5 --click 5,5,0", "contradict each other"),
        ("--clip CLIP --frame 12 --click 5,5", "frame 12 was marked, but clip has frames 0 to 11"),
        ("--clip CLIP --frame 12 --erase all", "frame 12 was marked"),
        ("--clip CLIP --frame x --click 5,5", "'--frame x': give a whole number from 0 on"),
        ("--clip CLIP --object 0 --click 5,5", "'--object 0'"),
        ("--clip CLIP --object 70000 --erase all", "[70000] are out of range"),
        ("--clip CLIP --frame 3", "--frame says what marks are about, and there is none"),
        ("--clip CLIP --frame=3 --undo", "--frame says what marks are about"),
        ("--clip CLIP --box 5,5,5,9", "box 5,5,5,9 is empty"),
        ("--clip CLIP --box 50,5,60,9", "all of a box on frame 0"),
        ("--clip CLIP --brush 5", "'--brush 5': write x,y or x0,y0,x1,y1,..., a point or a line"),
        ("--clip CLIP --brush all", "'--brush all'"),
        ("--clip CLIP --erase 1,2,3", "a point or a line, or all"),
        ("--clip CLIP --brush 400,400", "meets no pixel of the 32x24 frame"),
        ("--clip CLIP --brush 5,5 --radius 0", "positive radius"),
        ("--clip CLIP --brush 5,5 --radius big", "'--radius big': write a number of pixels"),
        ("--clip CLIP --region 1,2,3 --click 5,5", "'--region 1,2,3': write x0,y0,x1,y1"),
        ("--clip CLIP --region 0,0,5,5 --click 2,2", "make it larger"),
        ("--clip CLIP --region 0,0,20,20 --brush 2,2", "end it before with --region none"),
        ("--clip CLIP --mask nowhere.png", "nowhere.png"),
        ("--clip CLIP --mask SMALL", "is 9x9 but the frame is 32x24"),
        ("--clip CLIP --mask EMPTY", "is empty"),
        ("--clip CLIP --scribbles nowhere.json", "nowhere.json is not a readable scribble file"),
        ("--clip CLIP --scribbles NOLINES", "holds no lines"),
        ("--clip nowhere.mp4 --click 5,5", "nowhere.mp4"),
        ("--clip 0 --click 5,5", "0 is a live source"),
        ("--clip rtsp://127.0.0.1:9/none --click 5,5", "is a live source, whose frames come only once"),
        ("--clip CLIP --click 5,5 --undo", "marks and --undo exclude each other"),
        ("--clip CLIP --undo --redo", "--undo and --redo exclude each other"),
        ("--clip CLIP --remove-object 1 --export out", "--remove-object and --export exclude each other"),
        ("--clip CLIP --rename 1=a --undo", "--rename and --undo exclude each other"),
        ("--clip CLIP --export a -o b", "--output and --export exclude each other"),
        ("--clip CLIP --rename dancer", "'--rename dancer': write ID=NAME"),
        ("--clip CLIP --rename 1=", "'--rename 1=': write ID=NAME"),
        ("--clip CLIP --max-memory plenty --click 5,5", "write it like 512MB"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2_and_begins_no_project(
    correct, clip_folder, tmp_path, project, capsys, more, message
) -> None:
    for name, labels in (("SMALL", np.ones((9, 9))), ("EMPTY", np.zeros((HEIGHT, WIDTH)))):
        write_mask(tmp_path / f"{name}.png", labels)
    (tmp_path / "NOLINES").write_text(json.dumps({"scribbles": [[]]}))
    names = {"CLIP": clip_folder, "SMALL": tmp_path / "SMALL.png", "EMPTY": tmp_path / "EMPTY.png", "NOLINES": tmp_path / "NOLINES"}
    assert correct(*(names.get(word, word) for word in more.split())) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert not project.exists()


@pytest.mark.parametrize("more", ["--undo 0", "--undo=x", "--remove-object 0", "--remove-object a", "--suggest 0", "--overlay gif"])
def test_numbers_that_are_none_are_wrong_usage(correct, capsys, more) -> None:
    assert correct(*more.split()) == 2
    assert "Usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--object 3 --click 5,5,0", "only negative strokes for object 3"),
        ("--object 3 --erase 5,5", "object 3 does not exist; there are [1]"),
        ("--object 3 --erase all", "object 3 does not exist; there are [1]"),
        ("--rename 3=a", "object 3 does not exist"),
        ("--remove-object 3", "object 3 does not exist"),
        ("--redo", "1 steps cannot be taken with --redo: there are 0"),
        ("--erase 10,12 --model sam", "no model 'sam'"),
    ],
)
def test_what_does_not_fit_the_project_changes_nothing(begun, capsys, monkeypatch, more, message) -> None:
    before = state_of(begun, capsys)
    if "--model" in more:
        monkeypatch.undo()  # the real table of models
    assert begun(*more.split()) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert state_of(begun, capsys) == before


def test_a_correction_that_fails_leaves_those_before_it(begun, capsys) -> None:
    assert begun("--frame", "3", "--click", "5,5", "--frame", "4", "--object", "2", "--click", "5,5,0") == 2
    assert "what the command did before that is kept; see --list, and --undo" in capsys.readouterr().err
    assert state_of(begun, capsys)["pending_frames"] == [3]


def test_missing_weights_are_named(correct, clip_folder, project, capsys, monkeypatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(registry, "find_weights", lambda _: registry.WeightsStatus(None))
    assert correct("--clip", clip_folder, "--click", "10,12") == 2
    said = capsys.readouterr().err
    assert "'s2m-lite' ships no weights" in said
    assert "--interaction-weights" in said
    assert not project.exists()


def test_a_project_is_worked_on_by_one_process_at_a_time(begun, project, capsys) -> None:
    with blank_session(project):
        assert begun("--click", "5,5") == 2
        assert "another process works on the project" in capsys.readouterr().err
    assert begun("--click", "5,5") == 0


def test_a_newer_rotoscopes_project_is_left_alone(begun, project, capsys) -> None:
    with closing(sqlite3.connect(project / "events.sqlite")) as database:
        database.execute("PRAGMA user_version=7")
    before = sorted((path.name, path.stat().st_size) for path in project.iterdir())
    for more in ("--click 5,5", "--list", "--undo"):
        assert begun(*more.split()) == 2
        assert "made by a newer Rotoscope" in capsys.readouterr().err
    assert sorted((path.name, path.stat().st_size) for path in project.iterdir()) == before


def test_a_damaged_log_is_recovered_and_said(begun, project, capsys) -> None:
    state_of(begun, capsys)  # each opening makes a copy of what is there
    for damage in (b"x" * 5000, b""):
        (project / "events.sqlite").write_bytes(damage)
        assert begun("--list") == 0
        said = capsys.readouterr()
        assert "warning: the log" in said.err
        assert len(said.err.strip().splitlines()) == 1
        assert "1  frame 0: object 1 marked" in said.out
    assert begun("--undo") == 0


def test_damaged_masks_are_said(begun, project, capsys) -> None:
    for path in (project / "masks").rglob("*.masks"):
        path.write_bytes(b"damaged")
    assert begun("--list") == 0
    said = capsys.readouterr()
    assert "masks of frames [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] were damaged" in said.err
    assert "12 of them without masks" in said.out


def test_a_clip_that_was_moved_is_asked_for_and_checked(begun, clip_folder, tmp_path, capsys) -> None:
    moved = clip_folder.rename(tmp_path / "moved")
    assert begun("--click", "5,5") == 2
    assert "was " + str(clip_folder) + ", which is not there any more; say where it is now with --clip CLIP" in capsys.readouterr().err
    for more in ("--list", "--undo", "--redo", "--suggest 2", "--rename 1=a"):
        assert begun(*more.split()) == 0
    other = tmp_path / "other"
    shutil.copytree(moved, other)
    (other / "00011.png").unlink()
    capsys.readouterr()
    assert begun("--click", "5,5", "--clip", other) == 2
    assert "is a project about 12 frames of 32x24, but the clip has 11 of 32x24" in capsys.readouterr().err
    assert begun("--clip", moved) == 0
    assert begun("--frame", "3", "--click", "5,5") == 0


def test_a_project_moved_together_with_its_clip_finds_it(begun, clip_folder, project, tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for path in (clip_folder, project):
        path.rename(tmp_path / "elsewhere" / path.name)
    assert main(["correct", str(tmp_path / "elsewhere" / "work"), "--frame", "3", "--click", "5,5"]) == 0


def test_a_project_that_does_not_know_its_clip_asks_for_it(begun, clip_folder, project, capsys) -> None:
    for content in (None, "{}", "no json"):
        (project / "clip.json").unlink() if content is None else (project / "clip.json").write_text(content)
        assert begun("--click", "5,5") == 2
        assert "it is not known which clip the project" in capsys.readouterr().err
    assert begun("--list") == 0
    assert "clip: not known" in capsys.readouterr().out
    assert begun("--click", "5,5", "--clip", clip_folder) == 0


def test_a_folder_with_other_files_is_not_made_a_project(correct, clip_folder, project, capsys) -> None:
    project.mkdir()
    (project / "thesis.txt").touch()
    assert correct("--clip", clip_folder, "--click", "5,5") == 2
    assert "holds other files and no project" in capsys.readouterr().err
    assert [path.name for path in project.iterdir()] == ["thesis.txt"]


def test_a_full_disk_is_one_line_and_loses_nothing(begun, capsys, monkeypatch, tmp_path) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = state_of(begun, capsys)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert begun("--frame", "3", "--click", "25,5") == 2
        said = capsys.readouterr().err.strip()
        assert "the disk is full" in said
        assert len(said.splitlines()) == 1
    assert state_of(begun, capsys) == before
    with monkeypatch.context() as patch:
        patch.setattr(export_job, "write_labels", lambda *_: full(0))
        assert begun("--export", tmp_path / "out") == 2
        assert "the disk is full" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is False
    assert begun("--export", tmp_path / "out") == 0


def test_a_model_that_breaks_down_is_exit_code_1_and_what_was_done_stays(begun, capsys, monkeypatch) -> None:
    real = Smear.predict
    broken = lambda self, frame: Masks(torch.full((2, HEIGHT, WIDTH), torch.nan), (1,)) if frame.index == 8 else real(self, frame)  # noqa: E731
    monkeypatch.setattr(Smear, "predict", broken)
    assert begun("--frame", "5", "--click", "25,5") == 1
    said = capsys.readouterr().err.strip()
    assert "frame 8" in said
    assert len(said.splitlines()) == 1
    assert state_of(begun, capsys)["pending_frames"] == [5]
    monkeypatch.setattr(Smear, "predict", real)
    assert begun() == 0
    assert state_of(begun, capsys)["pending_frames"] == []


# stopping


def interrupt_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> None:
    """Send Ctrl-C in the middle of so-manieth call of a function."""
    real, count = getattr(owner, name), [0]

    def interrupting(*arguments, **settings):
        count[0] += 1
        if count[0] == call:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **settings)

    monkeypatch.setattr(owner, name, interrupting)


def test_an_interrupted_propagation_keeps_what_is_done_and_goes_on(begun, tmp_path, capsys, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, Smear, "predict", 3)
        assert begun("--frame", "5", "--click", "25,5", "-o", tmp_path / "out") == 130
    said = capsys.readouterr()
    assert "stopped; what is done is kept in" in said.err
    assert "masks, overlay and summary.json" not in said.out
    assert not (tmp_path / "out").exists()
    state = state_of(begun, capsys)
    assert (state["pending_frames"], texts(state)[2:]) == ([5], ["frame 5: object 1 marked", "masks carried on to 3 frames"])
    assert begun("-o", tmp_path / "out") == 0
    assert (labels_in(tmp_path / "out", 5)[5, 25], len(content_of(tmp_path / "out"))) == (1, NUM_FRAMES)


def test_an_interrupt_while_masks_are_made_finishes_the_stroke_at_hand(begun, capsys, monkeypatch) -> None:
    interrupt_at(monkeypatch, DiscMaker, "make", 1)
    assert begun("--frame", "3", "--click", "25,5", "--frame", "4", "--click", "25,5", "--json") == 130
    said = capsys.readouterr()
    assert "the corrections so far are kept" in said.err
    assert json.loads(said.out.splitlines()[-1])["stopped_in"] == "correcting"
    assert state_of(begun, capsys)["pending_frames"] == [3]


def test_an_interrupt_while_results_are_written_leaves_whole_files(begun, tmp_path, capsys, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, export_job, "result_of", 4)
        assert begun("--export", tmp_path / "out") == 130
    assert f"--export {tmp_path / 'out'}" in capsys.readouterr().err
    assert len(content_of(tmp_path / "out")) == 4
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is False
    assert begun("--export", tmp_path / "out") == 0
    assert len(content_of(tmp_path / "out")) == NUM_FRAMES


def test_an_interrupt_while_masks_are_taken_over_leaves_a_project_that_can_go_on(correct, tracked, capsys, monkeypatch) -> None:
    from rotoscope.jobs.folder import FinishedRun

    with monkeypatch.context() as patch:
        interrupt_at(patch, FinishedRun, "masks_of", 4)
        assert correct("--from", tracked) == 130
    assert "begin again in another folder" in capsys.readouterr().err
    assert state_of(correct, capsys)["pending_frames"] == [2]
    assert correct() == 0
    assert state_of(correct, capsys)["frames_without_masks"] == []


def test_a_job_may_be_stopped_by_not_asking_for_more(begun, project) -> None:
    from rotoscope.jobs.project.corrections import Absent

    request = correct_job.CorrectRequest(project, corrections=(Absent(5, 1),))
    with correct_job.CorrectRun(request) as run:
        steps = run.steps()
        assert next(steps).stage == "correcting"
        assert next(steps).stage == "propagating"
        steps.close()
        assert run.session.pending_frames == [5]
