"""Pictures of what was found: masks, boxes, labels, and files for single objects."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rotoscope.errors import MaskError
from rotoscope.video import draw
from rotoscope.video.draw import DrawnObject, draw_objects, enlargement, tint, write_cutout, write_mask

RED, GREEN = (200, 0, 0), (0, 200, 0)


def square(hw: tuple[int, int], x: int, y: int, side: int, text: str = "dog 0.50", colour: tuple[int, int, int] = RED) -> DrawnObject:
    mask = np.zeros(hw, np.bool_)
    mask[y : y + side, x : x + side] = True
    return DrawnObject(mask, (x, y, x + side, y + side), text, colour)


def test_masks_boxes_and_labels_are_drawn_and_nothing_else() -> None:
    picture = np.full((300, 400, 3), 100, np.uint8)
    drawn = draw_objects(picture, [square((300, 400), 100, 120, 80)], 0.5)
    assert drawn.shape == picture.shape
    assert (picture == 100).all()
    assert drawn[160, 140].tolist() == [150, 50, 50]  # tinted
    assert (drawn[120, 110:180] == RED).all()  # the first row of the box
    assert (drawn[199, 110:180] == RED).all()  # the last
    label = drawn[100:119, 100:170]
    assert (label == RED).all(axis=2).any()  # the label's ground
    assert (label.min(axis=2) > 200).any()  # white letters
    untouched = drawn.copy()
    untouched[95:201, 99:181] = 100
    assert (untouched == 100).all()


def test_labels_stay_inside_the_picture_and_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    real = draw._inside
    monkeypatch.setattr(draw, "_inside", lambda shape, corner, hw: places.append((real(shape, corner, hw), hw)) or real(shape, corner, hw))
    hw = (300, 400)
    corner, same = square(hw, 380, 0, 20), square(hw, 380, 0, 20, colour=GREEN)
    drawn = draw_objects(np.zeros((*hw, 3), np.uint8), [corner, same])
    assert all(min(x0, y0) >= 0 and x1 <= 400 and y1 <= 300 for (x0, y0, x1, y1), _ in places)
    red, green = ((drawn == colour).all(axis=2) for colour in (RED, GREEN))
    assert red[:20, 340:380].sum() > 200  # the first has its place
    assert green[21:45, 340:380].sum() > 200  # the second comes below it


def test_letters_can_be_read_on_dark_and_on_light_colours() -> None:
    light = draw_objects(np.zeros((300, 400, 3), np.uint8), [square((300, 400), 100, 120, 80, colour=(255, 255, 0))])
    assert (light[100:119, 100:170].max(axis=2) < 60).any()
    assert draw._ink_on((128, 0, 0)) == (255, 255, 255)
    assert draw._ink_on((128, 128, 128)) == (255, 255, 255)
    assert draw._ink_on((192, 192, 0)) == (0, 0, 0)


def test_small_pictures_are_enlarged_until_labels_can_be_read() -> None:
    assert [enlargement(hw) for hw in ((1, 1), (24, 32), (100, 255), (100, 256), (50, 20_000))] == [256, 8, 2, 1, 1]
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    assert np.array_equal(draw_objects(picture, []), picture.repeat(8, axis=0).repeat(8, axis=1))
    drawn = draw_objects(picture, [square((24, 32), 8, 12, 6)])
    assert (drawn[96, 64 + 2 : 64 + 46] == RED).all()


@given(
    hw=st.sampled_from([(1, 1), (1, 300), (300, 1), (3, 7), (20, 2000), (30, 40)]),
    box=st.tuples(*[st.floats(-50, 2500, width=32) for _ in range(4)]),
    text=st.text(max_size=40),
    covered=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_any_box_and_text_can_be_drawn(hw: tuple[int, int], box: tuple[float, float, float, float], text: str, covered: bool) -> None:
    drawn = draw_objects(np.zeros((*hw, 3), np.uint8), [DrawnObject(np.full(hw, covered), box, text, RED)] * 3)
    assert drawn.shape == (hw[0] * enlargement(hw), hw[1] * enlargement(hw), 3)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(MaskError, match=r"the mask is \[4, 5\] but the picture is \[6, 7\]"):
        tint(torch.zeros(3, 6, 7, dtype=torch.uint8), [square((4, 5), 0, 0, 2)])


def test_masks_and_cutouts_are_files(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    disc = cv2.circle(np.zeros((20, 30), np.uint8), (12, 9), 5, 1, cv2.FILLED).astype(bool)
    write_mask(tmp_path / "mask.png", disc)
    with Image.open(tmp_path / "mask.png") as mask:
        assert np.array_equal(np.asarray(mask), disc * 255)
    assert write_cutout(tmp_path / "cut.png", torch.from_numpy(picture).permute(2, 0, 1), disc)
    with Image.open(tmp_path / "cut.png") as cutout:
        rgba = np.asarray(cutout)
    assert np.array_equal(rgba[:, :, 3], disc[4:15, 7:18] * 255)
    assert np.array_equal(rgba[:, :, :3], picture[4:15, 7:18] * disc[4:15, 7:18, None])
    assert not write_cutout(tmp_path / "none.png", picture, np.zeros((20, 30), np.bool_))
    assert not (tmp_path / "none.png").exists()
