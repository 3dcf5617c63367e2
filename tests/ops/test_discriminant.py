import pytest
import torch

from rotoscope.ops.discriminant import Moments, discriminant, moments_of


def test_moments_are_the_weighted_mean_and_covariance() -> None:
    samples, weights = torch.randn(3, 500, dtype=torch.float64), torch.rand(500, dtype=torch.float64)
    moments = moments_of(samples, weights)
    assert torch.allclose(moments.covariance, torch.cov(samples, aweights=weights, correction=0))
    assert torch.allclose(moments.mean, (samples * weights).sum(1) / weights.sum())


def test_blending_equals_taking_the_samples_together() -> None:
    samples = torch.randn(3, 40)
    whole = moments_of(samples, torch.ones(40))
    blended = moments_of(samples[:, :10], torch.ones(10)).blend(moments_of(samples[:, 10:], torch.ones(30)), 0.75)
    assert torch.allclose(whole.mean, blended.mean, atol=1e-5)
    assert torch.allclose(whole.second, blended.second, atol=1e-5)


def test_it_is_the_log_odds_of_gaussians_of_one_covariance() -> None:
    spread = torch.tensor([[1.0, 0.6], [0.6, 2.0]])
    means = torch.tensor([[0.0, 0.0], [2.0, 1.0], [-1.0, 3.0]])
    classes = [Moments(mean, spread + torch.outer(mean, mean)) for mean in means]
    weights, biases = discriminant(classes[0], classes[1:], shrinkage=1e-9)
    x = torch.tensor([0.7, -0.2])
    density = [torch.distributions.MultivariateNormal(mean, spread).log_prob(x) for mean in means]
    assert torch.allclose(weights @ x + biases, torch.stack([density[1] - density[0], density[2] - density[0]]), atol=1e-4)


@pytest.mark.parametrize("count", [1, 5])
def test_fewer_samples_than_dimensions_give_finite_weights(count: int) -> None:
    one = moments_of(torch.randn(20, count), torch.ones(count))
    weights, biases = discriminant(moments_of(torch.randn(20, count), torch.ones(count)), [one], shrinkage=2e-3)
    assert bool(torch.isfinite(weights).all())
    assert bool(torch.isfinite(biases).all())


def test_samples_that_are_all_the_same_give_finite_weights() -> None:
    same = moments_of(torch.ones(4, 9), torch.ones(9))
    weights, biases = discriminant(same, [same], shrinkage=2e-3)
    assert torch.equal(weights, torch.zeros(1, 4))
    assert float(biases) == 0
