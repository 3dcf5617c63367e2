import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.errors import InputError
from rotoscope.jobs.plan import Pass, plan_passes


def visited(passes: list[Pass]) -> set[int]:
    return {index for one_pass in passes for index in range(one_pass.start, one_pass.stop or 0)}


@given(st.integers(1, 40), st.data())
@settings(deadline=None, max_examples=60)
def test_both_directions_cover_every_frame(num_frames: int, data) -> None:
    indices = data.draw(st.sets(st.integers(0, num_frames - 1), min_size=1))
    passes = plan_passes(indices, num_frames)
    assert visited(passes) == set(range(num_frames))
    assert passes[-1].start == min(indices)
    assert not passes[-1].reverse


def test_a_mask_in_the_middle_gives_a_backward_pass_first() -> None:
    assert plan_passes([4], 10) == [Pass(0, 5, reverse=True), Pass(4, 10)]


def test_forward_leaves_out_what_lies_before() -> None:
    assert plan_passes([4, 7], 10, direction="forward") == [Pass(4, 10)]


def test_backward_starts_at_the_last_given_frame() -> None:
    assert plan_passes([4, 7], 10, direction="backward") == [Pass(0, 8, reverse=True)]


def test_a_live_stream_only_goes_forward() -> None:
    assert plan_passes([3], None) == [Pass(3, None)]
    assert Pass(3, None).length is None


def test_a_range_limits_both_ends() -> None:
    assert plan_passes([5], 100, within=slice(2, 9)) == [Pass(2, 6, reverse=True), Pass(5, 9)]


def test_the_rest_of_a_pass_starts_at_the_next_frame() -> None:
    assert Pass(0, 8, reverse=True).rest(3) == Pass(0, 4, reverse=True)
    assert Pass(2, 8).rest(5) == Pass(5, 8)
    assert Pass(2, 8).rest(5).length == 3


@pytest.mark.parametrize(
    ("indices", "within", "message"),
    [
        ([], slice(None), "no mask is given"),
        ([10], slice(None), "frame 10, but the frames to cover are 0 to 9"),
        ([1], slice(5, None), "frame 1, but the frames to cover are 5 to 9"),
        ([1], slice(7, 3), "cover nothing of 10 frames"),
        ([1], slice(30, None), "cover nothing of 10 frames"),
    ],
)
def test_what_cannot_be_planned_is_explained(indices: list[int], within: slice, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_passes(indices, 10, within=within)
