import errno
from contextlib import suppress
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from session_parts import HW, NUM_FRAMES, DiscMaker, RepeatTracker, blank_clip, open_session, picture_of

import rotoscope
from rotoscope.errors import InputError, MaskError, OutputError, PropagationError
from rotoscope.testing import moving_shapes
from rotoscope.tracking.ensemble import EnsembleTracker
from rotoscope.tracking.interactive import Budget, InteractiveSession
from rotoscope.types import Box, Clicks, Frame, MaskMaker, Masks, Painted, Scribble, Tracker


def square(x: int = 4, y: int = 4, side: int = 8) -> torch.Tensor:
    mask = torch.zeros(HW, dtype=torch.bool)
    mask[y : y + side, x : x + side] = True
    return mask


def pixels(masks: Masks, object_id: int) -> int:
    return int((masks.labels() == object_id).sum())


def run(session: InteractiveSession) -> list[int]:
    return [step.frame.index for step in session.propagate()]


def test_the_stand_ins_keep_the_protocols() -> None:
    assert isinstance(RepeatTracker(), Tracker)
    assert isinstance(DiscMaker(), MaskMaker)


def test_each_kind_of_interaction_marks_its_object() -> None:
    with open_session() as session:
        assert pixels(session.add_points(0, 1, [[8, 8]]), 1) == 49
        assert pixels(session.add_box(1, 2, [3, 3, 9, 8]), 2) == 30
        assert pixels(session.add_scribble(2, 3, [[10, 10], [20, 10]]), 3) == 98
        assert torch.equal(session.add_mask(3, 4, square()).labels() == 4, square())
        assert pixels(session.add_brush(4, 5, [[5.0, 12.0], [35.0, 12.0]], radius_pixels=2.0), 5) > 100
        assert [info.object_id for info in session.objects] == [1, 2, 3, 4, 5]
        assert session.given_frames == [0, 1, 2, 3, 4]


def test_strokes_on_a_frame_count_together_until_they_are_accepted() -> None:
    with open_session() as session:
        session.add_points(0, 1, [[8, 8]])
        masks = session.add_points(0, 1, [[30, 8], [8, 8]], [1, 1])
        assert pixels(masks, 1) == 2 * 49
        session.accept(0)
        assert pixels(session.add_points(0, 1, [[8, 8]], [0]), 1) == 49  # contradicts nothing: the earlier clicks are masks now
        with pytest.raises(InputError, match="no strokes to accept"):
            session.accept(5)


def test_clicks_take_the_place_of_earlier_ones_unless_asked_otherwise() -> None:
    with open_session() as session:
        first = session.add_points(0, 1, [[8, 8]])
        assert pixels(session.add_points(0, 1, [[30, 8], [20, 16]], clear_old_points=False), 1) == 3 * 49
        replaced = session.add_points(0, 1, [[30, 8]])
        assert (int(replaced.labels()[8, 30]), int(replaced.labels()[8, 8])) == (1, 0)
        assert pixels(replaced, 1) == 49
        assert pixels(session.add_points(0, 1, [[30, 8], [36, 8]], [0, 1]), 1) < 49  # the cleared click on 30,8 is not contradicted
        for _ in range(3):
            session.undo()
        assert torch.equal(session.masks(0).probs, first.probs)
        assert pixels(session.add_points(0, 1, [[30, 8]], clear_old_points=False), 1) == 2 * 49  # undo brought the first click back


def test_clearing_clicks_leaves_boxes_lines_other_objects_and_other_frames_alone() -> None:
    with open_session() as session:
        session.add_box(0, 1, [3, 3, 9, 8])
        session.add_scribble(0, 1, [[12, 18]])
        session.add_points(0, 2, [[24, 8]])
        session.add_points(1, 1, [[8, 8]])
        session.add_points(0, 1, [[34, 8]])
        masks = session.add_points(0, 1, [[34, 18]])
        assert [int(masks.labels()[y, x]) for x, y in ((4, 4), (12, 18), (24, 8), (34, 8), (34, 18))] == [1, 1, 2, 0, 1]
        assert pixels(session.add_points(1, 1, [[30, 8]], clear_old_points=False), 1) == 2 * 49


def test_what_was_accepted_or_carried_on_is_not_cleared() -> None:
    with open_session() as session:
        session.add_points(0, 1, [[8, 8]])
        session.accept(0)
        assert pixels(session.add_points(0, 1, [[30, 8]]), 1) == 2 * 49
        run(session)
        assert pixels(session.add_points(0, 1, [[20, 18]]), 1) == 3 * 49


def test_a_negative_click_alone_says_that_the_others_were_cleared() -> None:
    with open_session() as session:
        session.add_points(0, 1, [[8, 8]])
        before = picture_of(session)
        with pytest.raises(InputError, match=r"only negative strokes .*clear_old_points=False"):
            session.add_points(0, 1, [[9, 9]], [0])
        assert picture_of(session) == before


def test_a_cleared_click_stays_cleared_when_the_project_is_opened_again(tmp_path: Path) -> None:
    with open_session(project=tmp_path / "p") as session:
        session.add_points(0, 1, [[8, 8]])
        session.add_points(0, 1, [[30, 8]])
        before = picture_of(session)
    with open_session(project=tmp_path / "p") as session:
        assert picture_of(session) == before
        masks = session.add_points(0, 1, [[20, 18]], clear_old_points=False)
        assert [int(masks.labels()[y, x]) for x, y in ((8, 8), (30, 8), (20, 18))] == [0, 1, 1]


def test_several_objects_may_be_drawn_in_one_step() -> None:
    with open_session() as session:
        lines = [Scribble(0, one, torch.tensor([[10.0 * one, 9.0]])) for one in (1, 2, 3)]
        session.interact(*lines)
        assert [info.object_id for info in session.objects] == [1, 2, 3]
        session.undo()
        assert session.objects == ()


def test_masks_are_carried_both_ways_and_the_given_one_stays_as_it_is() -> None:
    with open_session() as session:
        session.add_mask(3, 7, square())
        first = session.masks(3).probs
        steps = list(session.propagate())
        assert [step.frame.index for step in steps] == [3, 4, 5, 6, 7, 8, 2, 1, 0]
        assert [(step.done, step.total) for step in steps] == [(n, 9) for n in range(1, 10)]
        assert all(torch.equal(session.masks(step.frame.index).probs, step.masks.probs) for step in steps)
        assert torch.equal(session.masks(3).probs, first)
        assert session.pending_frames == []
        assert run(session) == []


def test_a_correction_changes_the_frames_up_to_the_next_given_ones_by_nearness() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=4))
        run(session)
        session.add_mask(8, 1, square(x=24))
        before = {index: session.masks(index).probs for index in range(9)}
        assert run(session) == [8, 7, 6, 5, 4, 3, 2, 1]
        new_part = [float(session.masks(index).probs[1, 8, 28]) for index in range(9)]
        assert new_part == sorted(new_part)
        assert new_part[1] < 0.2
        assert new_part[7] > 0.7
        assert torch.equal(session.masks(0).probs, before[0])


def test_two_corrected_frames_share_the_stretch_between_them() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=4))
        session.add_mask(8, 1, square(x=24))
        assert run(session) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1]
        middle = session.masks(4).probs[1]
        assert abs(float(middle[8, 8]) - float(middle[8, 28])) < 0.1


def test_propagation_may_be_stopped_after_any_frame_and_started_again() -> None:
    with open_session() as session:
        session.add_mask(2, 1, square())
        for step in session.propagate():
            if step.done == 4:
                break
        assert [session.has_masks(index) for index in range(9)] == [False, False, True, True, True, True, False, False, False]
        assert session.pending_frames == [2]
        assert len(run(session)) == 9
        session.undo()
        assert session.has_masks(5)
        session.undo()
        assert [session.has_masks(index) for index in range(9)] == [index == 2 for index in range(9)]


def test_a_round_that_was_stopped_is_fused_with_what_was_before_it() -> None:
    results = []
    for stops in ([9], [3, 5, 9]):
        with open_session() as session:
            session.add_mask(0, 1, square(x=4))
            run(session)
            session.add_mask(8, 1, square(x=24))
            for stop in stops:
                for step in session.propagate():
                    if step.done == stop:
                        break
            results.append(torch.stack([session.masks(index).probs for index in range(9)]))
    assert torch.equal(*results)


def test_one_frame_clips_work() -> None:
    with open_session(frames=blank_clip(1)) as session:
        session.add_mask(0, 1, square())
        assert run(session) == [0]
        assert session.pending_frames == []
        assert session.suggest_frames(3) == []


def test_an_object_that_a_pass_does_not_know_keeps_what_it_had() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=4))
        run(session)
        session.add_mask(5, 2, square(x=24))
        run(session)
        assert pixels(session.masks(3), 2) == 64
        session.add_mask(0, 1, square(x=6))  # speaks of object 1 alone
        run(session)
        assert pixels(session.masks(3), 2) == 64
        assert pixels(session.masks(1), 1) == 64


def test_a_removed_object_is_gone_everywhere_and_undo_brings_it_back() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=4))
        session.add_mask(0, 2, square(x=24))
        run(session)
        before = picture_of(session)
        session.remove_object(2)
        assert all(session.masks(index).object_ids == (1,) for index in range(9))
        with pytest.raises(InputError, match="removed"):
            session.add_points(3, 2, [[5, 5]])
        with pytest.raises(InputError, match="removed"):
            session.remove_object(2)
        assert session.add_object().object_id == 3
        session.undo()
        assert session.undo() == list(range(9))
        assert picture_of(session) == before


def test_a_frame_that_spoke_of_removed_objects_alone_is_no_longer_given() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=4))
        session.add_mask(4, 2, square(x=24))
        session.remove_object(2)
        assert session.given_frames == [0]
        assert run(session) == list(range(9))
        assert pixels(session.masks(4), 1) == 64


def test_objects_can_be_named_coloured_and_numbered() -> None:
    with open_session() as session:
        assert session.add_object(name="dog", colour=(1, 2, 3)).object_id == 1
        assert session.add_object(9).name == "object 9"
        session.rename_object(1, "cat")
        session.recolour_object(1, (250, 0, 5))
        assert (session.objects[0].name, session.objects[0].colour) == ("cat", (250, 0, 5))
        session.undo()
        assert session.objects[0].colour == (1, 2, 3)
        for wrong in ((256, 0, 0), (1, 2), (0, -1, 0)):
            with pytest.raises(InputError, match="whole numbers from 0 to 255"):
                session.recolour_object(1, wrong)
        with pytest.raises(InputError, match="already"):
            session.add_object(9)
        with pytest.raises(InputError, match="does not exist"):
            session.rename_object(4, "x")
        with pytest.raises(MaskError, match="out of range"):
            session.add_object(70000)


def test_names_may_change_while_masks_are_carried_on() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square())
        for step in session.propagate():
            if step.done == 3:
                session.rename_object(1, "dog")
        assert all(session.has_masks(index) for index in range(9))
        assert session.undo() == [3, 4, 5, 6, 7, 8]
        assert session.objects[0].name == "dog"
        session.undo()
        assert session.undo() == [1, 2]
        assert session.given_frames == [0]


@pytest.mark.parametrize("change", ["stroke", "remove", "undo", "again"])
def test_other_changes_end_a_propagation_with_an_error_and_keep_what_was_done(change: str) -> None:
    with open_session() as session:
        session.add_mask(0, 1, square())
        steps = session.propagate()
        next(steps), next(steps), next(steps)
        {
            "stroke": lambda: session.add_points(5, 1, [[5, 5]]),
            "remove": lambda: session.remove_object(1),
            "undo": session.undo,
            "again": lambda: next(session.propagate()),
        }[change]()
        before = picture_of(session)
        with pytest.raises(PropagationError, match="propagate again"):
            next(steps)
        assert picture_of(session) == before


def test_a_model_that_breaks_down_loses_nothing() -> None:
    class Failing(RepeatTracker):
        def start(self, *, max_memory_bytes: int | None = None, features: object = None):
            made = super().start(max_memory_bytes=max_memory_bytes)
            good = made.predict
            made.predict = lambda frame: Masks(torch.full((2, *HW), torch.nan), (1,)) if frame.index == 4 else good(frame)
            return made

    with InteractiveSession(blank_clip(), Failing()) as session:
        session.add_mask(0, 1, square())
        with pytest.raises(PropagationError, match="frame 4"):
            run(session)
        assert [session.has_masks(index) for index in range(6)] == [True, True, True, True, False, False]
        assert session.pending_frames == [0]


def test_the_rubber_takes_from_one_object_or_all_and_from_nothing_else() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=4))
        session.add_mask(0, 2, square(x=12))
        before = session.masks(0)
        after = session.erase(0, [[12.0, 8.0]], object_id=1, radius_pixels=3.0)
        assert pixels(after, 1) < 64
        assert pixels(after, 2) == 64
        changed = (after.probs != before.probs).any(dim=0)
        assert bool((before.labels()[changed] == 1).all())
        assert pixels(session.erase(0, [[12.0, 8.0]], radius_pixels=30.0), 2) == 0
        steps = picture_of(session)
        session.erase(0, [[12.0, 8.0]])
        assert picture_of(session) == steps
        with pytest.raises(InputError, match="does not exist"):
            session.erase(0, [[12.0, 8.0]], object_id=5)


def test_nothing_changes_outside_a_region() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=0, y=0, side=20))
        before = session.masks(0)
        after = session.add_points(0, 1, [[30, 12]], region=(20, 0, 40, 24))
        assert torch.equal(before.probs[:, :, :20], after.probs[:, :, :20])
        assert pixels(after, 1) > pixels(before, 1)
        again = session.add_points(0, 1, [[34, 16]], region=(20, 0, 40, 24), clear_old_points=False)
        assert pixels(again, 1) > pixels(after, 1)  # the same region: they count together
        whole = session.interact(Painted(0, 1, torch.zeros(HW, dtype=torch.bool)), region=(0, 0, 20, 24))
        assert pixels(whole, 1) == pixels(again, 1) - pixels(before, 1)


def test_a_reset_frame_is_as_the_propagation_left_it() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square(x=4))
        run(session)
        before = session.masks(5).probs
        session.add_points(5, 1, [[30, 10]])
        session.add_points(5, 1, [[20, 10]])
        session.reset_frame(5)
        assert torch.equal(session.masks(5).probs, before)
        assert (session.given_frames, session.pending_frames) == ([0], [])
        with pytest.raises(InputError, match="nothing was given for frame 5"):
            session.reset_frame(5)
        session.reset()
        assert (session.objects, session.given_frames, session.masks(5).object_ids) == ((), [], ())
        session.undo()
        assert session.given_frames == [0]


BAD = {
    "a click outside": (lambda s: s.add_points(0, 1, [[40, 3]]), "outside"),
    "a click before the frame": (lambda s: s.add_points(0, 1, [[-0.5, 3]]), "outside"),
    "not a number": (lambda s: s.add_points(0, 1, [[float("nan"), 3]]), "not finite"),
    "an empty list": (lambda s: s.add_points(0, 1, []), "empty"),
    "a line of odd shape": (lambda s: s.add_points(0, 1, [[1, 2, 3]]), "pairs"),
    "too few labels": (lambda s: s.add_points(0, 1, [[1, 2], [3, 4]], [1]), "one for each"),
    "a label of 2": (lambda s: s.add_points(0, 1, [[1, 2]], [2]), "one for each"),
    "only negative clicks": (lambda s: s.add_points(0, 1, [[5, 5]], [0]), "only negative"),
    "only a negative line": (lambda s: s.add_scribble(0, 1, [[5, 5], [9, 9]], positive=False), "only negative"),
    "on and off": (lambda s: s.add_points(0, 1, [[5, 5], [5.4, 5.4]], [1, 0]), "on and off object 1"),
    "two owners": (lambda s: s.interact(*(Clicks(0, n, torch.tensor([[5.0, 5.0]]), torch.tensor([True])) for n in (1, 2))), "objects 1 and 2"),
    "an empty box": (lambda s: s.add_box(0, 1, [5, 5, 5, 9]), "empty"),
    "a box of three": (lambda s: s.add_box(0, 1, [5, 5, 5]), "four numbers"),
    "a box outside": (lambda s: s.add_box(0, 1, [50, 5, 60, 9]), "outside"),
    "a line outside": (lambda s: s.add_scribble(0, 1, [[50, 5], [60, 9]]), "outside"),
    "a mask of another size": (lambda s: s.add_mask(0, 1, torch.ones(3, 4)), "resize the mask"),
    "no such frame": (lambda s: s.add_points(9, 1, [[5, 5]]), "frame 9 does not exist; the clip has frames 0 to 8"),
    "a negative frame": (lambda s: s.add_points(-1, 1, [[5, 5]]), "frame -1 does not exist"),
    "no such frame to paint": (lambda s: s.add_mask(12, 1, square()), "frame 12 does not exist"),
    "no such frame to see": (lambda s: s.masks(9), "does not exist"),
    "no interaction": (lambda s: s.interact(), "one or more"),
    "two frames": (lambda s: s.interact(Painted(0, 1, square()), Painted(1, 1, square())), "same frame"),
    "paint and strokes": (lambda s: s.interact(Painted(0, 1, square()), Box(0, 1, torch.tensor([1.0, 1, 5, 5]))), "one after the other"),
    "a tiny region": (lambda s: s.add_points(0, 1, [[5, 5]], region=(3, 3, 9, 9)), "larger"),
    "a region of three": (lambda s: s.add_points(0, 1, [[5, 5]], region=(3, 3, 9)), "four finite"),
    "a click outside its region": (lambda s: s.add_points(0, 1, [[5, 5]], region=(20, 0, 40, 24)), "outside"),
    "a brush without size": (lambda s: s.add_brush(0, 1, [[5, 5]], radius_pixels=0.0), "positive radius"),
    "a brush off the frame": (lambda s: s.add_brush(0, 1, [[500, 5]]), "meets no pixel"),
    "nothing to carry on": (lambda s: s.propagate(), "mark an object"),
    "nothing to undo": (lambda s: s.undo(), "nothing to undo"),
    "nothing to redo": (lambda s: s.redo(), "nothing to redo"),
    "fewer than no frames": (lambda s: s.suggest_frames(-1), "give 0 or more"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_its_reason_and_changes_nothing(case: str) -> None:
    act, reason = BAD[case]
    with open_session() as session:
        before = picture_of(session)
        with pytest.raises(InputError, match=reason):
            act(session)
        assert picture_of(session) == before


def test_strokes_need_a_mask_maker_and_clips_a_frame() -> None:
    with InteractiveSession(blank_clip(), RepeatTracker()) as session, pytest.raises(InputError, match="mask_maker"):
        session.add_points(0, 1, [[5, 5]])
    with pytest.raises(InputError, match="no frames"):
        InteractiveSession([], RepeatTracker())
    with open_session() as session:
        session.add_mask(0, 1, square())
        with pytest.raises(InputError, match=r"frames \[4\] were not given"):
            session.propagate([4])


def test_a_scribble_of_one_point_is_a_dot_and_one_may_run_out_of_the_frame() -> None:
    with open_session() as session:
        assert pixels(session.add_scribble(0, 1, [[10.0, 10.0]]), 1) == 49
        assert pixels(session.add_scribble(1, 1, [[10.0, 10.0], [100.0, 10.0]]), 1) == 49


@pytest.mark.parametrize(("made", "reason"), [(torch.full((2, *HW), torch.nan), "not finite"), (torch.full((2, 3, 4), 0.5), "keep the size")])
def test_a_mask_maker_that_fails_changes_nothing(made: torch.Tensor, reason: str) -> None:
    class Broken:
        def make(self, frame, interactions, current) -> Masks:
            return Masks(made, (1,))

    with InteractiveSession(blank_clip(), RepeatTracker(), mask_maker=Broken()) as session:
        with pytest.raises(MaskError, match=reason):
            session.add_points(0, 1, [[5, 5]])
        assert not session.can_undo


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["click", "box", "paint", "erase", "propagate", "part", "remove", "rename", "accept", "reset_frame", "undo", "redo", "reset"]
        ),
        st.integers(0, 5),
        st.integers(1, 3),
        st.integers(1, 30),
    ),
    max_size=12,
)


def act(session: InteractiveSession, action: str, frame: int, object_id: int, where: int) -> None:
    def part(limit: int) -> None:
        for step in session.propagate():
            if step.done == limit:
                return

    {
        "click": lambda: session.add_points(frame, object_id, [[where, where % HW[0]]], [where % 4 != 0]),
        "box": lambda: session.add_box(frame, object_id, [where, 2, where + 7, 9]),
        "paint": lambda: session.add_mask(frame, object_id, square(where, where % 12)),
        "erase": lambda: session.erase(frame, [[where, 8.0]], radius_pixels=4.0),
        "propagate": lambda: part(-1),
        "part": lambda: part(where % 4 + 1),
        "remove": lambda: session.remove_object(object_id),
        "rename": lambda: session.rename_object(object_id, f"name {where}"),
        "accept": lambda: session.accept(frame),
        "reset_frame": lambda: session.reset_frame(frame),
        "undo": session.undo,
        "redo": session.redo,
        "reset": session.reset,
    }[action]()


def worked(session: InteractiveSession, actions: list[tuple[str, int, int, int]]) -> list[tuple[object, ...]]:
    """What the session showed before each step that undo can still take back, and at the end; checked on the way."""
    pictures = [picture_of(session)]
    for action in actions:
        given = {index: session.masks(index).probs for index in session.given_frames}
        steps = session._project.steps, session._project.rewinds
        with suppress(InputError):
            act(session, *action)
        if action[0] in ("propagate", "part"):
            assert all(torch.equal(session.masks(index).probs, probs) for index, probs in given.items())
        if (session._project.steps, session._project.rewinds) != steps:
            if action[0] == "undo":
                pictures.pop()
            else:
                pictures.append(picture_of(session))
        assert picture_of(session) == pictures[-1]
    return pictures


@settings(max_examples=15, deadline=None)
@given(ACTIONS, st.booleans())
def test_undo_redo_and_reopening_are_exact_and_given_frames_are_never_altered(tmp_path_factory, actions, kept: bool) -> None:
    folder = tmp_path_factory.mktemp("project") / "p"
    clip = blank_clip(6)
    with open_session(frames=clip, project=folder) as session:
        pictures = worked(session, actions)
        if not kept:
            for expected in reversed(pictures[:-1]):
                session.undo()
                assert picture_of(session) == expected
            assert not session.can_undo
            for expected in pictures[1:]:
                session.redo()
                assert picture_of(session) == expected
    with open_session(frames=clip, project=folder) as session:
        assert picture_of(session) == pictures[-1]
        assert session.warnings == []


def test_memory_for_masks_stays_within_the_budget() -> None:
    frames = blank_clip(30)
    with open_session(frames=frames, budget=Budget(mask_bytes=800)) as small, open_session(frames=frames) as large:
        for session in (small, large):
            session.add_mask(0, 1, square())
            run(session)
        assert 0 < small._project.store.used_bytes <= 800 < large._project.store.used_bytes
        assert all(torch.equal(small.masks(index).probs, large.masks(index).probs) for index in range(30))


def test_a_temporary_session_leaves_nothing_behind() -> None:
    with open_session() as session:
        session.add_mask(0, 1, square())
        folder = session._project.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_a_project_is_locked_while_it_is_open(tmp_path: Path) -> None:
    with open_session(project=tmp_path / "p"), pytest.raises(OutputError, match="another process works on the project"):
        open_session(project=tmp_path / "p")
    with open_session(project=tmp_path / "p") as session:
        assert session.objects == ()


def test_a_project_belongs_to_its_clip_and_its_folder(tmp_path: Path) -> None:
    with open_session(project=tmp_path / "p"):
        pass
    with pytest.raises(InputError, match="9 frames of 40x24, but the clip has 4"):
        open_session(frames=blank_clip(4), project=tmp_path / "p")
    with open_session(project=tmp_path / "p"):
        pass  # the refused opening let go of the lock
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    with pytest.raises(OutputError, match="other files"):
        open_session(project=tmp_path / "other")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        open_session(project=tmp_path / "other" / "thesis.txt")


def test_a_full_disk_stops_the_step_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_session(project=tmp_path / "p") as session:
        session.add_mask(0, 1, square())
        before = picture_of(session)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(OutputError, match="disk is full"):
                session.add_mask(1, 1, square(x=9))
            with pytest.raises(OutputError, match="disk is full"):
                run(session)
        assert picture_of(session) == before
        session._project._log._database.execute("PRAGMA max_page_count=1")
        with pytest.raises(OutputError, match="nothing is lost"):
            session.rename_object(1, "n" * 20000)
        assert picture_of(session) == before
    with open_session(project=tmp_path / "p") as session:
        assert picture_of(session) == before
        assert run(session) == list(range(9))


@pytest.mark.parametrize("name", ["given", "result"])
def test_damaged_masks_are_said_and_their_frames_can_be_made_again(tmp_path: Path, name: str) -> None:
    with open_session(project=tmp_path / "p") as session:
        session.add_mask(0, 1, square())
        run(session)
        session.add_points(5, 1, [[30, 10]])
        key = session._project.state.masks[{"given": 5, "result": 3}[name]]
        session._project.store.path_of(key).write_bytes(b"damaged")
    with open_session(project=tmp_path / "p") as session:
        assert any("were damaged" in line for line in session.warnings)
        assert session.given_frames == ([0] if name == "given" else [0, 5])
        if name == "result":
            with pytest.raises(InputError, match="cannot undo: 1 of the masks"):
                session.undo()
        assert len(list(session.propagate([0]))) == (9 if name == "given" else 5)
    with open_session(project=tmp_path / "p") as session:
        assert session.warnings == []
        assert session.has_masks(3)


def test_an_ensemble_works_too() -> None:
    with InteractiveSession(blank_clip(), EnsembleTracker([RepeatTracker()], mirrored=True)) as session:
        session.add_mask(4, 1, square())
        assert len(run(session)) == NUM_FRAMES
        assert pixels(session.masks(0), 1) == 64


def test_the_default_tracker_follows_corrections_of_a_real_session() -> None:
    images, labels = moving_shapes(num_frames=8, hw=(48, 64), num_objects=2, seed=3)
    clip = [Frame(index, image) for index, image in enumerate(images)]
    with InteractiveSession(clip, rotoscope.load("mast-lite", device="cpu")) as session:
        for index in (3, 7, 0):
            for object_id in (1, 2):
                session.add_mask(index, object_id, labels[index] == object_id)
            list(session.propagate())
        hits = [float((session.masks(index).labels() == labels[index]).float().mean()) for index in range(8)]
    assert min(hits) > 0.9
    assert [hits[index] for index in (0, 3, 7)] == [1.0, 1.0, 1.0]
