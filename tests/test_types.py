import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.errors import InputError, MaskError
from rotoscope.types import Box, Change, Clicks, Detector, Frame, Fuser, MaskMaker, Masks, Painted, Propagator, Scribble, Tracker

label_maps = st.integers(1, 9).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0, 1, 2, 7, 300, 65535]), min_size=width, max_size=width),
        min_size=1,
        max_size=6,
    )
)


@given(label_maps)
@settings(deadline=None, max_examples=40)
def test_labels_survive_the_way_to_masks_and_back(rows: list[list[int]]) -> None:
    labels = torch.tensor(rows, dtype=torch.int32)
    masks = Masks.from_labels(labels)
    assert torch.equal(masks.labels(), labels)
    assert torch.equal(masks.probs.sum(dim=0), torch.ones(labels.shape))


@given(label_maps, st.permutations([1, 2, 7, 300, 65535]))
@settings(deadline=None, max_examples=40)
def test_selecting_all_objects_in_another_order_keeps_the_labels(rows: list[list[int]], ids: list[int]) -> None:
    masks = Masks.from_labels(torch.tensor(rows, dtype=torch.int32))
    selected = masks.select(ids)
    assert selected.object_ids == tuple(ids)
    assert torch.equal(selected.labels(), masks.labels())


def test_selecting_fewer_objects_gives_the_rest_to_the_background() -> None:
    masks = Masks(torch.tensor([[[0.2]], [[0.5]], [[0.3]]]), (4, 9))
    assert masks.select([9]).probs.flatten().tolist() == pytest.approx([0.7, 0.3])


def test_an_object_with_no_pixels_keeps_its_channel_and_has_no_confidence() -> None:
    masks = Masks.from_labels(torch.tensor([[0, 2]], dtype=torch.int32), [2, 5])
    assert masks.object_ids == (2, 5)
    assert masks.confidence() == (1.0, 0.0)


def test_confidence_is_the_mean_probability_over_the_pixels_an_object_wins() -> None:
    masks = Masks(torch.tensor([[[0.4, 0.3, 0.9]], [[0.6, 0.7, 0.1]]]), (1,))
    assert masks.confidence() == pytest.approx((0.65,))


def test_ties_go_to_the_lower_channel() -> None:
    assert Masks(torch.full((3, 1, 1), 1 / 3), (8, 9)).labels().item() == 0


@pytest.mark.parametrize("ids", [(0,), (-1,), (65536,), (3, 3)])
def test_ids_out_of_range_or_twice_are_refused(ids: tuple[int, ...]) -> None:
    with pytest.raises(MaskError, match="object ids"):
        Masks(torch.zeros(1 + len(ids), 2, 2), ids)


def test_channels_and_ids_must_agree() -> None:
    with pytest.raises(MaskError, match="3 mask channels for 1 objects"):
        Masks(torch.zeros(3, 2, 2), (1,))


def test_a_label_that_is_not_listed_is_named() -> None:
    with pytest.raises(MaskError, match=r"\[6\]"):
        Masks.from_labels(torch.tensor([[6]], dtype=torch.int32), [1])


def test_a_frame_knows_its_size() -> None:
    assert Frame(0, torch.zeros(3, 4, 5, dtype=torch.uint8)).hw == (4, 5)


def test_shapes_are_checked_in_tests() -> None:
    with pytest.raises(TypeError):
        Frame(0, torch.zeros(4, 5, dtype=torch.uint8))


def test_an_empty_box_is_refused() -> None:
    with pytest.raises(InputError, match="is empty"):
        Box(0, 1, torch.tensor([5.0, 5.0, 5.0, 9.0]))


def test_interactions_refuse_what_is_not_finite_or_does_not_exist() -> None:
    with pytest.raises(InputError, match="not finite"):
        Clicks(0, 1, torch.tensor([[float("nan"), 1.0]]), torch.tensor([True]))
    with pytest.raises(InputError, match="counted from 0"):
        Scribble(-1, 1, torch.tensor([[1.0, 1.0]]))
    with pytest.raises(MaskError, match="out of range"):
        Painted(0, 0, torch.zeros(2, 2, dtype=torch.bool))


def test_the_protocols_can_be_checked_at_run_time() -> None:
    for protocol in (Propagator, Tracker, MaskMaker, Fuser, Detector):
        assert not isinstance(object(), protocol)


def test_a_change_is_what_was_added_and_what_was_taken_away() -> None:
    before = Masks.from_labels(torch.tensor([[1, 1, 0, 2]]), [1, 2])
    after = Masks.from_labels(torch.tensor([[0, 1, 1, 2]]), [2, 1, 7])
    change = Change.between(4, before, after)
    assert change.object_ids == (2, 1, 7)
    assert change.maps[1].tolist() == [[[0, 0, 1, 0]], [[1, 0, 0, 0]]]
    assert float(change.maps[[0, 2]].abs().max()) == 0
    assert torch.equal(Change.between(4, None, after).maps[:, 0], after.probs[1:])
