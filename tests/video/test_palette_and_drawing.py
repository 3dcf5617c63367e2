"""The palette, overlays, contact sheets and image files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_clips import HW, numbered_picture
from PIL import Image

from rotoscope.errors import InputError, MaskError, OutputError
from rotoscope.video.draw import contact_sheet, overlay, write_image
from rotoscope.video.palette import colour_of, palette, palette_bytes

GOLDEN = Path(__file__).parent / "data" / "davis_palette.txt"


def test_the_palette_is_that_of_davis() -> None:
    expected = bytes.fromhex(GOLDEN.read_text(encoding="ascii").replace("\n", ""))
    assert palette_bytes() == expected
    assert not palette().flags.writeable


def test_ids_beyond_the_palette_share_its_colours_but_never_black() -> None:
    assert colour_of(1) == (128, 0, 0)
    assert colour_of(255) == (224, 224, 192)
    assert colour_of(256) == colour_of(1)
    assert colour_of(0) == (0, 0, 0)
    assert all(colour_of(object_id) != (0, 0, 0) for object_id in (*range(1, 1000), 65535))


def square() -> np.ndarray:
    labels = np.zeros(HW, np.int32)
    labels[10:30, 20:50] = 3
    return labels


def test_an_overlay_tints_objects_and_nothing_else() -> None:
    picture = np.full((*HW, 3), 100, np.uint8)
    drawn = overlay(picture, square(), 0.5)
    assert drawn.shape == (*HW, 3)
    assert drawn.dtype == np.uint8
    assert (drawn[square() == 0] == 100).all()
    assert drawn[20, 35].tolist() == [114, 114, 50]  # half of (128, 128, 0)
    assert (drawn[10, 20:50] == (128, 128, 0)).all()  # the outline is inside
    assert (picture == 100).all()


def test_overlays_take_frames_and_leave_out_outlines_on_request() -> None:
    image = torch.from_numpy(numbered_picture(5)).permute(2, 0, 1)
    labels = torch.from_numpy(square())
    plain = overlay(image, labels, 0.0, outline=False)
    assert (plain == numbered_picture(5)).all()
    assert (overlay(image, labels, 1.0, outline=False)[square() == 3] == (128, 128, 0)).all()
    assert (overlay(image, torch.zeros(HW, dtype=torch.int32)) == numbered_picture(5)).all()


def test_touching_objects_are_outlined_against_each_other() -> None:
    labels = np.ones(HW, np.int64)
    labels[:, 32:] = 300
    drawn = overlay(np.zeros((*HW, 3), np.uint8), labels, 0.5)
    assert drawn[20, 31].tolist() == list(colour_of(1))
    assert drawn[20, 32].tolist() == list(colour_of(300))
    assert drawn[20, 0].tolist() == [64, 0, 0]  # the border of the picture is no edge


def test_wrong_overlays_are_refused() -> None:
    picture = np.zeros((*HW, 3), np.uint8)
    with pytest.raises(MaskError, match=r"the labels are \[4, 5\] but the picture is \[48, 64\]"):
        overlay(picture, np.zeros((4, 5), np.int32))
    with pytest.raises(InputError, match=r"alpha is 1\.5"):
        overlay(picture, square(), 1.5)
    with pytest.raises(InputError, match="give RGB bytes"):
        overlay(picture[:, :, 0], square())


def test_a_contact_sheet_has_a_place_for_each_picture() -> None:
    pictures = [np.full((96, 128, 3), 40 * number + 20, np.uint8) for number in range(5)]
    sheet = contact_sheet([(picture, f"frame {number}") for number, picture in enumerate(pictures)], columns=3)
    assert sheet.shape == (2 * (96 + 24 + 4) + 4, 3 * (128 + 4) + 4, 3)
    for number in range(5):
        y, x = number // 3 * 124 + 4, number % 3 * 132 + 4
        assert (sheet[y : y + 96, x : x + 128] == 40 * number + 20).all()
        assert (sheet[y + 96 : y + 120, x : x + 128] < 128).any()  # the caption
    assert (sheet[128:, 268:] == 255).all()


def test_a_contact_sheet_takes_pictures_of_any_size() -> None:
    tiles = [(np.full((540, 960, 3), 9, np.uint8), "wide"), (torch.full((3, 40, 20), 9, dtype=torch.uint8), "slim, naïve")]
    sheet = contact_sheet(tiles, columns=8)
    assert sheet.shape == (270 + 24 + 8, 2 * 484 + 4, 3)
    with pytest.raises(InputError, match="a contact sheet of 0 pictures"):
        contact_sheet([])
    with pytest.raises(InputError, match="in 0 columns"):
        contact_sheet(tiles, columns=0)


def test_pictures_are_written_as_their_suffix_says(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", numbered_picture(3))
    assert (np.asarray(Image.open(tmp_path / "a.png")) == numbered_picture(3)).all()
    write_image(str(tmp_path / "a.JPG"), torch.full((3, 8, 8), 200, dtype=torch.uint8))
    assert np.asarray(Image.open(tmp_path / "a.JPG")) == pytest.approx(np.full((8, 8, 3), 200), abs=2)
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[:, :, 0] = 200
    write_image(tmp_path / "red.png", colour)
    assert np.asarray(Image.open(tmp_path / "red.png"))[0, 0].tolist() == [200, 0, 0]
    with pytest.raises(InputError, match=r"end it in \.png, \.jpg, \.jpeg"):
        write_image(tmp_path / "a.gif", colour)
    with pytest.raises(OutputError, match="could not be written"):
        write_image(tmp_path / "missing" / "a.png", colour)
