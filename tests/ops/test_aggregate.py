import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rotoscope.ops.aggregate import aggregate, average, join_objects, merge_groups


def distributions(sizes: list[int]) -> list[torch.Tensor]:
    return [torch.randn(1 + size, 3, 4).softmax(dim=0) for size in sizes]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=4))
def test_merged_groups_hold_every_object_once_and_are_finite(sizes):
    merged = merge_groups(distributions(sizes))
    assert merged.shape == (1 + sum(sizes), 3, 4)
    assert bool(torch.isfinite(merged).all())


def test_objects_of_certain_groups_keep_their_pixels():
    groups = [torch.zeros(3, 1, 3), torch.zeros(2, 1, 3)]
    groups[0][1, 0, 0] = groups[0][0, 0, 1] = groups[0][0, 0, 2] = 1  # the first pixel is the first object's
    groups[1][0, 0, 0] = groups[1][1, 0, 1] = groups[1][0, 0, 2] = 1  # the second is the third object's, the last nobody's
    assert merge_groups(groups).argmax(dim=0).tolist() == [[1, 3, 0]]


def test_the_order_of_groups_only_orders_the_objects():
    first, second = distributions([2, 3])
    one, other = merge_groups([first, second]), merge_groups([second, first])
    assert torch.allclose(one[0], other[0])
    assert torch.allclose(one[1:3], other[4:6])


def test_averaging_gives_a_distribution_and_leaves_its_inputs():
    first, second = distributions([2, 2])
    kept = first.clone()
    assert torch.allclose(average([first, second]), (first + second) / 2)
    assert torch.equal(first, kept)
    assert torch.equal(average([first]), first)


@settings(max_examples=20, deadline=None)
@given(how=st.sampled_from(["softmax", "maximum", "winner-take-all"]), objects=st.integers(1, 5), seed=st.integers(0, 99))
def test_guesses_of_single_objects_become_one_distribution_whose_winner_is_the_best_guess(how, objects, seed):
    guesses = torch.rand(1 + objects, 5, 6, generator=torch.Generator().manual_seed(seed))
    guesses[:, 0, 0] = 0  # nobody claims it
    guesses[:, 0, 1] = 1  # everybody does
    joined = aggregate(guesses, how)
    assert torch.allclose(joined.sum(dim=0), torch.ones(5, 6), atol=1e-5)
    assert bool((joined >= 0).all())
    assert torch.equal(joined.argmax(dim=0), guesses.argmax(dim=0))


def test_the_softmax_weighs_guesses_by_their_odds():
    guesses = torch.tensor([0.2, 0.5, 0.8]).view(3, 1, 1)
    odds = torch.tensor([0.25, 1.0, 4.0])
    torch.testing.assert_close(aggregate(guesses).flatten(), odds / odds.sum())


@pytest.mark.parametrize(("how", "expected"), [("maximum", [0.25, 0.25, 0.5]), ("winner-take-all", [0.0, 0.0, 1.0])])
def test_the_alternatives_scale_the_guesses_or_keep_the_winner_alone(how, expected):
    torch.testing.assert_close(aggregate(torch.tensor([0.4, 0.4, 0.8]).view(3, 1, 1), how).flatten(), torch.tensor(expected))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.booleans(), st.one_of(st.none(), st.floats(0.01, 0.99)))
def test_joined_objects_are_a_distribution(count, hard, background):
    probs = torch.rand(count, 3, 4).round(decimals=1)  # with zeros and ones
    joined = join_objects(probs, background=background, hard=hard)
    assert joined.shape == (1 + count, 3, 4)
    assert torch.allclose(joined.sum(dim=0), torch.ones(3, 4), atol=1e-5)


def test_an_object_alone_wins_where_it_is_more_probable_than_not():
    probs = torch.rand(1, 30, 40)
    assert torch.equal(join_objects(probs)[1] > 0.5, probs[0] > 0.5)


def test_the_largest_channel_takes_nearly_all_when_joined_hard():
    probs = torch.tensor([0.2, 0.7, 0.6]).view(3, 1, 1)
    assert join_objects(probs, hard=True).flatten().tolist() == [0, 0, 1, 0]
