import pytest
import torch

from rotoscope.errors import MaskError
from rotoscope.ops.confidence import agreement, scored
from rotoscope.types import Masks


def masks(*shares: float) -> Masks:
    """One pixel for each object, which it has with that probability; the rest is the background's."""
    probs = torch.zeros(1 + len(shares), 1, len(shares))
    for place, share in enumerate(shares):
        probs[1 + place, 0, place], probs[0, 0, place] = share, 1 - share
    return Masks(probs, tuple(range(1, 1 + len(shares))))


def test_scores_are_read_off_between_the_knots():
    assert scored(masks(0.75, 1.0), (0.0, 0.2, 0.6)).confidence() == pytest.approx((0.4, 0.6))


def test_an_object_without_pixels_has_no_confidence_whatever_the_knots():
    assert scored(masks(0.3, 0.8), (0.5, 0.9)).confidence() == pytest.approx((0.0, 0.82))


def test_without_knots_the_masks_stay_as_they_are():
    plain = masks(0.75)
    assert scored(plain, ()) is plain
    assert plain.confidence() == pytest.approx((0.75,))


def test_scores_follow_their_objects():
    chosen = scored(masks(0.75, 1.0), (0.0, 0.2, 0.6)).select([2, 9])
    assert chosen.scores == pytest.approx((0.6, 0.0))


def test_as_many_scores_as_objects():
    with pytest.raises(MaskError, match="2 scores for 1 object"):
        Masks(masks(0.9).probs, (1,), (0.5, 0.5))


def test_a_figure_of_a_model_own_takes_the_place_of_the_mean_probability() -> None:
    assert scored(masks(0.3, 0.8), (), figures=(0.2, 0.4)).confidence() == pytest.approx((0.0, 0.4))  # the first object has no pixels
    assert scored(masks(0.75, 1.0), (0.0, 0.2, 0.6), figures=(0.25, 0.75)).confidence() == pytest.approx((0.1, 0.4))


def test_agreement_is_the_soft_overlap_of_each_object() -> None:
    one = torch.tensor([[[0.5, 0.0]], [[0.5, 0.0]], [[0.0, 1.0]]])
    other = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    assert agreement(one, other) == pytest.approx((0.5, 1.0))
    assert agreement(other, one) == agreement(one, other)
    nothing = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    assert agreement(nothing, nothing) == (0.0,)


def test_factors_lower_the_raw_figures() -> None:
    masks = Masks(torch.tensor([0.2, 0.8]).view(2, 1, 1).expand(2, 4, 4), (1,))
    assert scored(masks, (), factors=(0.5,)).scores == pytest.approx((0.4,))
    assert scored(masks, (0.0, 0.5, 1.0), factors=(0.25,)).scores == pytest.approx((0.2,))
    assert scored(masks, (), (0.6,), factors=(0.5,)).scores == pytest.approx((0.3,))
