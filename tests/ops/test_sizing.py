import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rotoscope.ops.sizing import border_between, border_to_multiple, resize_cubic, resize_labels, resize_linear, scaled_size, working_size


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4320), st.integers(1, 4320), st.booleans(), st.one_of(st.none(), st.integers(200, 1040)))
def test_sizes_fit_the_stride_and_the_limit(height, width, corners, long_edge):
    for side in working_size((height, width), stride=16, corners=corners, long_edge=long_edge):
        assert side % 16 == (1 if corners else 0)
        assert side >= 16
        if long_edge is not None:
            assert side <= long_edge + 9


def test_a_480p_frame_gets_the_official_size():
    assert working_size((480, 854), stride=16, corners=True, long_edge=1040) == (481, 849)
    assert working_size((480, 854), stride=16, corners=False, long_edge=1040) == (480, 848)
    assert working_size((2160, 3840), stride=16, corners=True, long_edge=1040) == (577, 1041)
    assert working_size((16, 16), stride=16, corners=True) == (17, 17)


def test_limits_never_enlarge_and_scales_do():
    assert working_size((97, 97), stride=16, corners=True, short_edge=624, long_edge=1040) == (97, 97)
    assert working_size((97, 97), stride=16, corners=True, scale=2.0) == (193, 193)


def test_resizing_to_the_same_size_changes_nothing():
    image, labels = torch.rand(2, 3, 5, 7), torch.randint(0, 9, (5, 7))
    assert torch.equal(resize_cubic(image, (5, 7)), image)
    assert torch.equal(resize_labels(labels, (5, 7)), labels)


def test_resized_labels_are_labels_and_reach_every_cell():
    labels = torch.arange(6).view(2, 3)
    assert resize_labels(labels, (4, 6)).tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert resize_labels(labels, (1, 1)).tolist() == [[0]]


@pytest.mark.parametrize("hw", [(9, 11), (3, 4)])
def test_cubic_resizing_keeps_a_constant_and_any_leading_axes(hw):
    assert torch.allclose(resize_cubic(torch.full((3, 5, 7), 0.5), hw), torch.full((3, *hw), 0.5))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000))
def test_a_border_that_is_always_wanted_adds_a_multiple_to_what_is_one(height, width):
    left, right, top, bottom = border_to_multiple((height, width), 32, always=True)
    for side, before, after in ((height, top, bottom), (width, left, right)):
        assert (side + before + after) % 32 == 0
        assert 0 <= after - before <= 1
        assert 0 < before + after <= 32


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 3.0), st.booleans())
def test_scaled_sizes_are_multiples_that_hold_the_scaled_frame(rows, columns, scale, always):
    hw = (32 * rows, 32 * columns)
    for side, scaled in zip(hw, scaled_size(hw, scale, multiple=32, always=always), strict=True):
        assert scaled % 32 == 0
        assert int(side * scale) <= scaled <= max(int(side * scale), 1) + 32
    assert scaled_size(hw, 1.0, multiple=32, always=always) == hw


def test_linear_resizing_keeps_constants_and_leaves_what_fits():
    image = torch.full((2, 3, 8, 10), 0.25)
    assert torch.allclose(resize_linear(image, (5, 21)), torch.full((2, 3, 5, 21), 0.25))
    assert resize_linear(image, (8, 10)) is image
    assert resize_linear(image[0], (4, 5)).shape == (3, 4, 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([8, 16, 32]))
def test_a_border_centres_the_frame_and_can_be_cut_again(height, width, stride):
    border = border_to_multiple((height, width), stride)
    maps = torch.rand(2, height, width)
    padded = border.add(maps)
    assert padded.shape[1] % stride == padded.shape[2] % stride == 0
    assert padded.shape[1] - height < stride
    assert padded.shape[2] - width < stride
    assert border.right - border.left in (0, 1)
    assert border.bottom - border.top in (0, 1)
    assert torch.equal(border.cut(padded), maps)
    assert torch.allclose(padded.sum(), maps.sum())


def test_a_frame_that_fits_gets_no_border():
    maps = torch.rand(3, 32, 48)
    assert tuple(border_to_multiple((32, 48), 16)) == (0, 0, 0, 0)
    assert border_to_multiple((32, 48), 16).add(maps) is maps
    assert tuple(border_between((480, 854), (480, 864))) == (5, 5, 0, 0)
