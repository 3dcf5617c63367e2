import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.errors import InputError
from rotoscope.training.detection.matching import ANY_OBJECT, BACKGROUND, NEUTRAL, match_priors
from rotoscope.training.detection.settings import LossSettings
from rotoscope.training.detection.truth import ANY_CLASS, Truth, boxes_around

SETTINGS = LossSettings()
NOTHING = torch.zeros(0, 4)


def truth(boxes: list[list[float]], class_ids: list[int], crowds: torch.Tensor = NOTHING) -> Truth:
    return Truth(torch.tensor(boxes).view(-1, 4), torch.tensor(class_ids, dtype=torch.int64), torch.ones(len(boxes), 8, 8), crowds)


def grid(side: int) -> torch.Tensor:
    """Priors side by side, each a cell of a grid."""
    axis = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack((x, y, torch.full_like(x, 1 / side), torch.full_like(x, 1 / side)), dim=-1).view(-1, 4)


def test_a_prior_on_an_object_finds_it_and_the_others_are_background():
    matches = match_priors(grid(4), truth([[0.25, 0.0, 0.5, 0.25]], [6]), SETTINGS)
    assert matches.targets.tolist() == [0, 7] + [0] * 14
    assert matches.is_positive.nonzero().tolist() == [[1]]


def test_a_partial_overlap_counts_for_nothing():
    matches = match_priors(grid(2), truth([[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.23]], [0, 1]), SETTINGS)
    assert matches.targets.tolist() == [1, 2, BACKGROUND, BACKGROUND]  # the second object claims the only prior that it overlaps
    both = match_priors(torch.cat((grid(2), grid(2))), truth([[0.5, 0.0, 1.0, 0.23]], [1]), SETTINGS)
    assert both.targets[[1, 5]].tolist() == [2, NEUTRAL]


def test_each_object_gets_a_prior_however_small_it_is():
    tiny = [[0.1, 0.1, 0.1001, 0.1001], [0.9, 0.9, 0.9001, 0.9001]]
    matches = match_priors(grid(4), truth(tiny, [0, 1]), SETTINGS)
    assert matches.is_positive.sum() == 2


def test_objects_that_want_the_same_prior_get_different_ones():
    matches = match_priors(grid(4), truth([[0.0, 0.0, 0.25, 0.25]] * 3, [0, 1, 2]), SETTINGS)
    assert sorted(matches.targets[matches.is_positive].tolist()) == [1, 2, 3]


def test_more_objects_than_priors_leave_some_without():
    matches = match_priors(grid(1), truth([[0.0, 0.0, 1.0, 1.0], [0.2, 0.2, 0.8, 0.8]], [3, 4]), SETTINGS)
    assert matches.targets.tolist() == [4]


def test_without_objects_all_is_background():
    assert match_priors(grid(3), truth([], []), SETTINGS).targets.eq(BACKGROUND).all()


def test_what_lies_in_a_crowd_counts_for_nothing_unless_it_finds_an_object():
    crowd = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    matches = match_priors(grid(4), truth([[0.0, 0.0, 0.25, 0.25]], [0], crowd), SETTINGS)
    assert matches.targets[[0, 1, 4, 5]].tolist() == [1, NEUTRAL, NEUTRAL, NEUTRAL]
    assert matches.targets[[2, 3, 10]].eq(BACKGROUND).all()


def test_an_image_of_crowds_alone_has_no_positives():
    matches = match_priors(grid(4), truth([], [], torch.tensor([[0.0, 0.0, 1.0, 1.0]])), SETTINGS)
    assert matches.targets.eq(NEUTRAL).all()


def test_an_object_of_no_stated_class_is_positive():
    matches = match_priors(grid(2), truth([[0.0, 0.0, 0.5, 0.5]], [ANY_CLASS]), SETTINGS)
    assert matches.targets.tolist() == [ANY_OBJECT, 0, 0, 0]
    assert matches.is_positive.tolist() == [True, False, False, False]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.01, 0.5)] * 2), max_size=6), st.integers(2, 6))
def test_every_object_has_a_prior_of_its_own_and_owners_are_objects(boxes, side):
    found = truth([[x, y, x + width, y + height] for x, y, width, height in boxes], list(range(len(boxes))))
    matches = match_priors(grid(side), found, SETTINGS)
    assert set(matches.targets[matches.is_positive].tolist()) == {1 + index for index in range(min(len(boxes), side * side))} or side * side < len(
        boxes
    )
    assert (matches.targets[matches.is_positive] == matches.truth_indices[matches.is_positive] + 1).all()


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(InputError, match="in this order"):
        LossSettings(positive_overlap=0.3)
    with pytest.raises(InputError, match="max_masks=0"):
        LossSettings(max_masks=0)


def test_boxes_are_tight_and_zero_where_nothing_is():
    masks = torch.zeros(2, 4, 8, dtype=torch.bool)
    masks[0, 1:3, 2:7] = True
    assert boxes_around(masks).tolist() == [[0.25, 0.25, 0.875, 0.75], [0, 0, 0, 0]]
    assert boxes_around(masks[:0]).shape == (0, 4)
