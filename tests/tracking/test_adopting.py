"""A session that starts from masks made elsewhere."""

from pathlib import Path

import pytest
import torch
from session_parts import HW, NUM_FRAMES, open_session, picture_of

from rotoscope.errors import InputError, MaskError
from rotoscope.types import Masks


def square_masks(x: int, object_id: int = 1, hw: tuple[int, int] = HW) -> Masks:
    labels = torch.zeros(hw, dtype=torch.int32)
    labels[4:12, x : x + 8] = object_id
    return Masks.from_labels(labels)


def made(frames: range = range(NUM_FRAMES)) -> list[tuple[int, Masks]]:
    return [(index, square_masks(index)) for index in frames]


def test_what_was_taken_over_is_as_if_it_had_been_carried_on(tmp_path: Path) -> None:
    with open_session(project=tmp_path / "p") as session:
        assert list(session.adopt({0: square_masks(0), 5: square_masks(5, 7)}, made())) == [0, 5, 1, 2, 3, 4, 6, 7, 8]
        assert [info.object_id for info in session.objects] == [1, 7]
        assert (session.given_frames, session.pending_frames) == ([0, 5], [])
        assert all(torch.equal(session.masks(index).labels(), masks.labels()) for index, masks in made() if index != 5)
        assert list(session.propagate()) == []
        before = picture_of(session)
    with open_session(project=tmp_path / "p") as session:
        assert picture_of(session) == before


def test_a_correction_is_fused_with_what_was_taken_over() -> None:
    with open_session() as session:
        list(session.adopt({0: square_masks(0)}, made()))
        session.add_mask(8, 1, square_masks(30).labels() == 1)
        list(session.propagate())
        near, far = session.masks(7).probs[1], session.masks(1).probs[1]
        assert float(near[8, 33]) > 0.7
        assert float(far[8, 4]) > 0.7


def test_each_given_frame_and_all_results_together_are_steps() -> None:
    with open_session() as session:
        list(session.adopt({2: square_masks(2)}, made()))
        assert session.undo() == [0, 1, 3, 4, 5, 6, 7, 8]
        assert session.pending_frames == [2]
        session.undo()
        assert session.objects == ()


def test_when_it_is_stopped_the_given_frames_are_carried_on_next() -> None:
    with open_session() as session:
        for index in session.adopt({0: square_masks(0)}, made()):
            if index == 3:
                break
        assert session.pending_frames == [0]
        assert [session.has_masks(index) for index in range(5)] == [True, True, True, True, False]
        assert len(list(session.propagate())) == NUM_FRAMES


def test_objects_that_were_never_given_are_left_out() -> None:
    with open_session() as session:
        list(session.adopt({0: square_masks(0)}, [(1, square_masks(3, object_id=9))]))
        assert session.masks(1).object_ids == ()


def test_only_a_fresh_project_takes_masks_over() -> None:
    with open_session() as session:
        session.add_object()
        with pytest.raises(InputError, match="can only start a fresh project"):
            session.adopt({0: square_masks(0)}, [])
    with open_session() as session:
        with pytest.raises(InputError, match="no given masks to start from"):
            session.adopt({}, made())
        with pytest.raises(MaskError, match="masks of frame 0 are 10x20 but the clip is 40x24"):
            next(session.adopt({0: square_masks(0, hw=(20, 10))}, []))
        assert session.objects == ()
        steps = session.adopt({0: square_masks(0)}, [(50, square_masks(0))])
        next(steps)
        with pytest.raises(InputError, match="frame 50 does not exist"):
            next(steps)
