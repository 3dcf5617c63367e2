import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.ops.color import imagenet_normalised, lab_to_rgb, quantise, rgb_to_lab, rgb_to_lab_tabulated


def opencv_lab(image: Tensor) -> Tensor:
    """Lab of bytes, by OpenCV's floating-point path."""
    return torch.from_numpy(cv2.cvtColor(image.permute(1, 2, 0).numpy().astype(np.float32) / 255, cv2.COLOR_RGB2Lab)).permute(2, 0, 1)


def test_tabulated_lab_is_opencvs_to_the_last_bit() -> None:
    """On 200,000 colours drawn at random, and on all of those in steps of 15."""
    steps = torch.arange(0, 256, 15)
    regular = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")).view(3, 1, -1).to(torch.uint8)
    for image in (torch.randint(0, 256, (3, 400, 500), dtype=torch.uint8), regular):
        assert torch.equal(rgb_to_lab_tabulated(image), opencv_lab(image))


def test_every_node_of_the_table_is_opencvs() -> None:
    from rotoscope.ops import color

    axis = np.arange(33, dtype=np.float32) / 32
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(1, -1, 3)
    lab = torch.from_numpy(cv2.cvtColor(nodes, cv2.COLOR_RGB2Lab)[0]).double()
    steps = (lab + torch.tensor([0, 128, 128])) / torch.tensor([100, 256, 256]) * 16384
    assert torch.equal(color._table().long(), steps.round().long())


def test_the_formula_is_near_the_table_but_not_it() -> None:
    image = torch.randint(0, 256, (3, 100, 100), dtype=torch.uint8)
    difference = (rgb_to_lab(image / 255) - rgb_to_lab_tabulated(image)).abs().max()
    assert 0.05 < float(difference) < 0.5


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [((0, 0, 0), (0, 0, 0)), ((1, 1, 1), (100, 0, 0)), ((1, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 1), (32.30, 79.19, -107.86))],
)
def test_known_colours(rgb: tuple[float, ...], lab: tuple[float, ...]) -> None:
    """sRGB's white and primaries, as tabulated by colour calculators for D65."""
    found = rgb_to_lab(torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1)).flatten()
    assert torch.allclose(found, torch.tensor(lab, dtype=torch.float64), atol=0.05)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_rgb_to_lab_and_back(rgb: list[float]) -> None:
    image = torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1)
    assert torch.allclose(lab_to_rgb(rgb_to_lab(image)), image, atol=1e-6)


def test_colours_that_rgb_cannot_show_are_clipped() -> None:
    rgb = lab_to_rgb(torch.tensor([50.0, 127, -127]).view(3, 1, 1))
    assert float(rgb.min()) >= 0
    assert float(rgb.max()) <= 1


def test_lab_has_finite_gradients_everywhere() -> None:
    image = torch.linspace(0, 1, 48, dtype=torch.float64).view(3, 4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(rgb_to_lab(image).sum(), image)
    assert bool(torch.isfinite(gradient).all())


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 64), st.floats(-2, 2))
def test_quantised_levels_cover_the_range(levels: int, value: float) -> None:
    level = int(quantise(torch.tensor([value]), levels, -1.0, 1.0))
    assert 0 <= level < levels
    if -0.99 < value < 0.99:
        width = 2 / levels
        assert -1 + level * width - 1e-5 <= value <= -1 + (level + 1) * width + 1e-5


def test_the_mean_of_imagenet_becomes_zero() -> None:
    image = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    assert float(imagenet_normalised(image).abs().max()) < 0.01
