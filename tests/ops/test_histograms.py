import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.ops.histograms import NUM_BINS, colour_histogram, likeness


def flat(*rgb: int, hw: tuple[int, int] = (8, 10)) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, *hw).clone()


def everything(image: torch.Tensor) -> torch.Tensor:
    return torch.ones(image.shape[1:], dtype=torch.bool)


@given(st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=20)
def test_shares_sum_to_one_and_a_region_is_like_itself(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, 9, 11), generator=random, dtype=torch.uint8)
    region = torch.rand((9, 11), generator=random) < 0.5
    region[0, 0] = True
    histogram = colour_histogram(image, region)
    assert histogram.shape == (NUM_BINS,)
    assert float(histogram.sum()) == pytest.approx(1, abs=1e-5)
    assert float(histogram.min()) >= 0
    assert likeness(histogram, histogram) == pytest.approx(1, abs=1e-5)


def test_only_the_region_counts() -> None:
    image = flat(200, 30, 30)
    image[:, :, 5:] = flat(30, 30, 200)[:, :, 5:]
    left = torch.zeros(8, 10, dtype=torch.bool)
    left[:, :5] = True
    red = colour_histogram(flat(200, 30, 30), everything(image))
    assert likeness(colour_histogram(image, left), red) == pytest.approx(1, abs=1e-5)
    assert likeness(colour_histogram(image, ~left), red) == 0


def test_a_small_change_of_light_is_a_small_change() -> None:
    before, after = (colour_histogram(flat(*rgb), everything(flat(*rgb))) for rgb in ((120, 90, 60), (126, 95, 64)))
    assert likeness(before, after) > 0.85


def test_the_ends_of_the_range_have_their_bins() -> None:
    black, white = (colour_histogram(flat(*rgb), everything(flat(*rgb))) for rgb in ((0, 0, 0), (255, 255, 255)))
    assert float(black.sum()) == pytest.approx(1)
    assert float(white.sum()) == pytest.approx(1)
    assert likeness(black, white) == 0


def test_an_empty_region_has_no_colours_and_is_like_nothing() -> None:
    empty = colour_histogram(flat(9, 9, 9), torch.zeros(8, 10, dtype=torch.bool))
    assert float(empty.sum()) == 0
    assert likeness(empty, empty) == 0


def test_a_large_region_is_thinned_out_evenly() -> None:
    image = flat(200, 30, 30, hw=(300, 400))
    image[:, 150:] = flat(30, 30, 200, hw=(150, 400))
    half = colour_histogram(image, everything(image))
    red, blue = (colour_histogram(flat(*rgb), everything(flat(*rgb))) for rgb in ((200, 30, 30), (30, 30, 200)))
    assert likeness(half, red) == pytest.approx(0.5**0.5, abs=0.01)
    assert likeness(half, blue) == pytest.approx(0.5**0.5, abs=0.01)
