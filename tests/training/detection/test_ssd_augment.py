"""SSD's augmentation beyond parity, which is in tests/parity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.datasets.detection.samples import ShownObjects, mask_box
from rotoscope.training.detection.ssd_augment import Picture, SsdSettings, augmented, resized

SETTINGS = SsdSettings(size=40)


def shown(hw: tuple[int, int], boxes: list[tuple[int, int, int, int]], *, num_crowds: int = 0) -> ShownObjects:
    masks = np.zeros((len(boxes), *hw), dtype=np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    rgb = np.random.default_rng(0).integers(0, 255, (*hw, 3)).astype(np.uint8)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return ShownObjects(rgb, masks, corners, np.arange(len(boxes)), num_crowds)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.lists(st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.05, 1)] * 2), max_size=4),
    st.integers(0, 4),
)
def test_every_picture_has_its_size_and_its_boxes_lie_around_its_masks(seed, hw, shares, crowds):
    height, width = hw
    boxes = [
        (int(x * width), int(y * height), int(x * width) + max(1, int(w * (1 - x) * width)), int(y * height) + max(1, int(h * (1 - y) * height)))
        for x, y, w, h in shares
    ]
    picture = augmented(Picture.of(shown(hw, boxes, num_crowds=min(crowds, len(boxes)))), SETTINGS, np.random.RandomState(seed))
    assert picture.rgb.shape == (40, 40, 3)
    assert picture.rgb.dtype == np.float32
    assert np.isfinite(picture.rgb).all()
    count = len(picture.boxes)
    assert picture.masks.shape == (count, 40, 40)
    assert len(picture.class_ids) == len(picture.is_crowd) == count
    assert ((picture.boxes[:, 2:] - picture.boxes[:, :2]) > SETTINGS.least_side).all()
    assert (picture.boxes >= 0).all()
    assert (picture.boxes <= 40 + 1e-6).all()
    for mask, box in zip(picture.masks.astype(np.bool_), picture.boxes, strict=True):
        if mask.any():
            scale = 40 / min(height, width)  # a pixel of the image may be many of the picture
            assert np.abs(np.asarray(mask_box(mask)) - box).max() <= max(2.0, 4 * scale)


@pytest.mark.parametrize("seed", range(12))
def test_an_image_without_objects_is_cropped_too(seed):
    picture = augmented(Picture.of(shown((30, 50), [])), SETTINGS, np.random.RandomState(seed))
    assert picture.masks.shape == (0, 40, 40)


@pytest.mark.parametrize("seed", range(12))
def test_crowds_come_last_and_a_crop_shows_an_object_if_there_is_one(seed):
    picture = augmented(
        Picture.of(shown((30, 50), [(2, 2, 20, 20), (30, 5, 48, 28)], num_crowds=1)), SsdSettings(size=64), np.random.RandomState(seed)
    )
    assert picture.is_crowd.tolist() in ([False], [False, True])


def test_small_objects_are_dropped_at_the_size_of_the_picture():
    picture = Picture.of(shown((40, 80), [(0, 0, 8, 20), (0, 0, 20, 20)]))
    assert resized(picture, SETTINGS).class_ids.tolist() == [1]  # 8 of 80 pixels are 4 of 40
    assert resized(picture, SsdSettings(size=40, least_side=3.9)).class_ids.tolist() == [0, 1]


def test_more_objects_than_channels_of_an_image_are_resized():
    masks = resized(Picture.of(shown((16, 16), [(0, 0, 8, 8)] * 600)), SETTINGS).masks
    assert masks.shape == (600, 40, 40)
    assert masks[0].sum() == pytest.approx(400, rel=0.05)
    assert (masks == masks[0]).all()
