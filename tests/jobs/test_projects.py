"""What the folder of a project says without being opened."""

from pathlib import Path

import pytest
import torch
from session_parts import HW, NUM_FRAMES, open_session

from rotoscope.errors import InputError
from rotoscope.jobs.folder import read_finished
from rotoscope.jobs.project.folder import UnseenFrames, is_project, noted_clip, remember_clip, remembered_clip, steps_of, unseen_frames


def test_every_kind_of_step_has_words(tmp_path: Path) -> None:
    with open_session(project=tmp_path / "p") as session:
        session.add_object(name="dog")
        session.add_points(0, 1, [[8, 8]])
        session.accept(0)
        session.add_mask(3, 2, torch.ones(HW, dtype=torch.bool))
        list(session.propagate())
        session.remove_object(2)
        session.reset_frame(0)
        session.reset()
    assert [step.text for step in steps_of(tmp_path / "p")] == [
        "object 1 is dog",
        "frame 0: object 1 marked",
        "frame 0 accepted",
        "frame 3: object 2 painted",
        f"masks carried on to {NUM_FRAMES - 2} frames",
        "object 2 removed",
        "frame 0 reset",
        "all reset",
    ]


def test_steps_follow_undo_and_redo_as_the_session_does(tmp_path: Path) -> None:
    with open_session(project=tmp_path / "p") as session:
        for name in "abc":
            session.add_object(name=name)
        session.undo()
        session.undo()
        session.redo()
        steps = steps_of(tmp_path / "p")
        assert [(step.text[-1], step.is_undone) for step in steps] == [("a", False), ("b", False), ("c", True)]
        session.add_object(name="d")  # what was undone is gone
        assert [(step.text[-1], step.is_undone) for step in steps_of(tmp_path / "p")] == [("a", False), ("b", False), ("d", False)]
        while session.can_undo:
            session.undo()
        assert [step.is_undone for step in steps_of(tmp_path / "p")] == [True, True, True]


def test_the_clip_of_a_project_is_known_by_its_size_and_its_place(tmp_path: Path) -> None:
    folder, clip = tmp_path / "p", tmp_path / "clip.mp4"
    assert not is_project(folder)
    assert unseen_frames(folder) is None
    open_session(project=folder).close()
    assert is_project(folder)
    frames = unseen_frames(folder)
    assert frames is not None
    assert (len(frames), frames[0].hw, frames[-1].index, [frame.index for frame in frames[2:4]]) == (NUM_FRAMES, HW, NUM_FRAMES - 1, [2, 3])
    with pytest.raises(IndexError):
        frames[NUM_FRAMES]
    assert noted_clip(folder) is None
    clip.touch()
    remember_clip(folder, clip)
    assert (noted_clip(folder), remembered_clip(folder)) == (str(clip), clip)
    clip.unlink()
    with pytest.raises(InputError, match=r"was .*clip\.mp4, which is not there any more"):
        remembered_clip(folder)


def test_a_project_whose_log_is_lost_is_still_one_and_tells_no_size(tmp_path: Path) -> None:
    open_session(project=tmp_path / "p").close()
    remember_clip(tmp_path / "p", tmp_path)
    (tmp_path / "p" / "events.sqlite").unlink()
    assert is_project(tmp_path / "p")
    assert unseen_frames(tmp_path / "p") is None
    open_session(project=tmp_path / "p").close()  # its own files are no strangers


def test_unseen_frames_take_no_memory() -> None:
    frame = UnseenFrames(10**6, (4320, 7680))[-1]
    assert frame.hw == (4320, 7680)
    assert frame.image.untyped_storage().nbytes() == 1


@pytest.mark.parametrize("content", ["", "[]", '{"frames": 3}', '{"frames": [], "video": "a", "height": 1, "width": 1, "complete": true}'])
def test_a_summary_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match=r"holds no finished run|did not come to its end"):
        read_finished(tmp_path)
