"""Mask files: whatever people draw with, the right ids, and a note where something was guessed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import HW
from numpy.typing import NDArray
from PIL import Image

from rotoscope.errors import MaskError
from rotoscope.video.masks import read_label_folder, read_labels, read_stored_labels
from rotoscope.video.palette import palette, palette_bytes
from rotoscope.video.write import write_labels


def two_objects(first: int = 1, second: int = 2) -> NDArray[np.int32]:
    ids = np.zeros(HW, dtype=np.int32)
    ids[5:30, 5:25] = first
    ids[15:40, 30:60] = second
    return ids


def blob() -> NDArray[np.uint8]:
    """A disk with smooth edges, 0 to 255."""
    big = np.zeros((8 * HW[0], 8 * HW[1]), np.uint8)
    cv2.circle(big, (250, 190), 130, 255, -1)
    return cv2.resize(big, HW[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)


def loaded(path: Path, **options: object) -> tuple[NDArray[np.int32], str]:
    """The ids, and all notes as one text."""
    labels = read_labels(path, **options)  # type: ignore[arg-type]
    assert labels.labels.dtype == torch.int32
    return labels.labels.numpy(), " | ".join(labels.notes)


def save_palette(path: Path, ids: NDArray[np.int32], colours: bytes | None = None) -> Path:
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette(colours or palette_bytes())
    image.save(path)
    return path


def save(path: Path, pixels: NDArray[np.generic], **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


@given(ids=st.lists(st.sampled_from([0, 1, 2, 7, 254, 255, 256, 300, 65535]), min_size=12, max_size=12).filter(any))
@settings(deadline=None, max_examples=30)
def test_what_was_written_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, ids: list[int]) -> None:
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    labels = np.array(ids).reshape(3, 4)
    write_labels(path, labels)
    assert (read_stored_labels(path) == labels).all()


def test_an_empty_stored_map_is_fine_but_a_picture_is_not(tmp_path: Path) -> None:
    write_labels(tmp_path / "mask.png", torch.zeros(HW, dtype=torch.int32))
    assert not read_stored_labels(tmp_path / "mask.png").any()
    with pytest.raises(MaskError, match="is a colour image, not a label map"):
        read_stored_labels(save(tmp_path / "rgb.png", np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize("ids", [two_objects(), two_objects(3, 200), two_objects(7, 7), two_objects(1, 129)])
def test_indices_are_ids_whatever_the_palette(tmp_path: Path, ids: NDArray[np.int32]) -> None:
    for colours in (None, np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes()):
        got, notes = loaded(save_palette(tmp_path / "mask.png", ids, colours))
        assert (got == ids).all()
        assert notes == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_values_are_ids(tmp_path: Path, dtype: type[np.generic]) -> None:
    for ids in (two_objects(), two_objects(3, 200), two_objects(0, 1)):
        got, notes = loaded(save(tmp_path / "mask.png", ids.astype(dtype)))
        assert (got == ids).all()
        assert notes == ""


def test_ids_above_255_come_from_16_bits(tmp_path: Path) -> None:
    got, _ = loaded(save(tmp_path / "mask.png", two_objects(255, 40000).astype(np.uint16)))
    assert (got == two_objects(255, 40000)).all()


def test_arrays_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mask.npy"
    for array, expected in (
        (two_objects(3, 900), two_objects(3, 900)),
        (two_objects().astype(np.float32), two_objects()),
        (two_objects() > 0, two_objects(1, 1)),
        (two_objects(0, 255).astype(np.uint8), two_objects(0, 1)),
    ):
        np.save(path, array)
        got, notes = loaded(path)
        assert (got == expected).all()
        assert notes == ""
    np.save(path, two_objects(0, 1) * 0.7)
    got, notes = loaded(path)
    assert (got == two_objects(0, 1)).all()
    assert "cut at 0.5" in notes


@pytest.mark.parametrize("top", [255, 65535])
def test_black_and_white_is_object_1(tmp_path: Path, top: int) -> None:
    ids = two_objects(0, 1)
    masks = [(ids * top).astype(np.uint8 if top == 255 else np.uint16)]
    if top == 255:
        masks += [np.repeat(masks[0][:, :, None], 3, axis=2), ids > 0]
    for pixels in masks:
        got, notes = loaded(save(tmp_path / "mask.png", pixels))
        assert (got == ids).all()
        assert notes == ""
    got, _ = loaded(save_palette(tmp_path / "mask.png", two_objects(0, 255)))
    assert (got == ids).all()


def test_colours_of_the_palette_are_its_ids(tmp_path: Path) -> None:
    ids = two_objects(2, 9)
    ids[0, 0] = 4  # an object of one pixel
    got, notes = loaded(save(tmp_path / "mask.png", palette()[ids]))
    assert (got == ids).all()
    assert notes == ""


def test_other_flat_colours_are_numbered_in_their_order_with_a_note(tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), (255, 200, 0), (10, 250, 10)], np.uint8)
    got, notes = loaded(save(tmp_path / "mask.png", colours[two_objects(1, 2)]))
    assert (got == two_objects(2, 1)).all()
    assert "not those of the DAVIS palette; #0afa0a is object 1, #ffc800 is object 2" in notes
    got, notes = loaded(save(tmp_path / "mask.png", colours[two_objects(1, 2).clip(1)]))
    assert sorted(np.unique(got)) == [1, 2]
    assert "there is no background" in notes


def test_smooth_gray_edges_are_cut_at_half_with_a_note(tmp_path: Path) -> None:
    for pixels in (blob(), np.repeat(blob()[:, :, None], 3, axis=2)):
        got, notes = loaded(save(tmp_path / "mask.png", pixels))
        assert (got == (blob() >= 128)).all()
        assert "smooth edges" in notes
        assert "cut at half" in notes


def test_a_blurred_mask_without_pure_white_is_cut_at_half(tmp_path: Path) -> None:
    blurred = (blob() * 0.97).astype(np.uint8)
    blurred[blurred > 240] = np.random.default_rng(0).integers(236, 248, (blurred > 240).sum())
    got, notes = loaded(save(tmp_path / "mask.png", blurred))
    assert (got == (blurred >= 128)).all()
    assert "cut at half" in notes


def test_a_mask_saved_as_jpeg_is_cut_at_half_with_a_note(tmp_path: Path) -> None:
    got, notes = loaded(save(tmp_path / "mask.jpg", (two_objects(0, 1) * 255).astype(np.uint8), quality=60))
    assert (got == two_objects(0, 1)).all()
    assert "cut at half" in notes
    _, notes = loaded(save(tmp_path / "mask.jpg", (two_objects(0, 1) * 40).astype(np.uint8)))
    assert "lossy compression may have changed the ids" in notes


@pytest.mark.parametrize("colours", [palette()[:3], np.array([(0, 0, 0), (10, 10, 250), (255, 200, 0)], np.uint8)])
def test_blended_edges_go_to_the_nearest_colour_with_a_note(tmp_path: Path, colours: NDArray[np.uint8]) -> None:
    sharp = two_objects(2, 1)
    large = cv2.resize(colours[sharp], (8 * HW[1], 8 * HW[0]), interpolation=cv2.INTER_NEAREST)
    smooth = cv2.resize(np.roll(large, 3, axis=(0, 1)), HW[::-1], interpolation=cv2.INTER_AREA)
    got, notes = loaded(save(tmp_path / "mask.png", smooth))
    assert set(np.unique(got)) == {0, 1, 2}
    assert (got != sharp).sum() <= 4  # it moved by less than half a pixel; where three colours meet, the blend may be nearest to any
    assert "blended colours" in notes


def test_a_palette_mask_saved_as_jpeg_keeps_its_ids(tmp_path: Path) -> None:
    ids = two_objects(1, 2).repeat(6, axis=0).repeat(6, axis=1)
    got, notes = loaded(save(tmp_path / "mask.jpg", palette()[ids], quality=85))
    assert set(np.unique(got)) == {0, 1, 2}
    assert (got != ids).mean() < 0.01
    assert "blended colours" in notes


def test_transparent_pixels_are_background(tmp_path: Path) -> None:
    ids = two_objects(1, 2)
    rgba = np.dstack([palette()[ids.clip(1)], (ids > 0) * 255]).astype(np.uint8)
    got, notes = loaded(save(tmp_path / "mask.png", rgba))
    assert (got == ids).all()
    assert notes == ""
    black = np.dstack([np.zeros((*HW, 3)), blob()]).astype(np.uint8)
    got, notes = loaded(save(tmp_path / "mask.png", black))
    assert (got == (blob() >= 128)).all()
    assert "half-transparent" in notes
    opaque = np.dstack([palette()[ids], np.full(HW, 255)]).astype(np.uint8)
    assert (loaded(save(tmp_path / "mask.png", opaque))[0] == ids).all()


@pytest.mark.parametrize("kind", ["indexed", "gray", "colour", "array"])
def test_label_255_beside_ids_is_ignored_with_a_note(tmp_path: Path, kind: str) -> None:
    ids = two_objects(1, 2)
    ids[4, 4:26] = ids[14, 30:60] = 255
    path = tmp_path / ("mask.npy" if kind == "array" else "mask.png")
    if kind == "indexed":
        save_palette(path, ids)
    elif kind == "gray":
        save(path, ids.astype(np.uint8))
    elif kind == "colour":
        save(path, palette()[ids])
    else:
        np.save(path, ids)
    got, notes = loaded(path)
    assert (got == np.where(ids == 255, 0, ids)).all()
    assert "52 pixels were taken as background" in notes


def test_fifty_objects_are_read(tmp_path: Path) -> None:
    ids = np.repeat(np.repeat(np.arange(60).reshape(6, 10), 2, axis=0), 2, axis=1).clip(0, 50)
    for path in (save(tmp_path / "gray.png", ids.astype(np.uint8)), save(tmp_path / "rgb.png", palette()[ids])):
        got, notes = loaded(path)
        assert (got == ids).all()
        assert notes == ""


@pytest.mark.parametrize("object_id", [1, 5, 200])
def test_an_object_may_be_one_pixel_or_the_whole_frame(tmp_path: Path, object_id: int) -> None:
    one, whole = np.zeros(HW, np.uint8), np.full(HW, object_id, np.uint8)
    one[7, 9] = object_id
    for ids in (one, whole):
        for path in (save(tmp_path / "gray.png", ids), save(tmp_path / "rgb.png", palette()[ids])):
            assert (loaded(path)[0] == ids).all()


def test_one_pixel_in_a_colour_of_its_own_is_an_object(tmp_path: Path) -> None:
    rgb = np.zeros((*HW, 3), np.uint8)
    rgb[7, 9] = (255, 0, 0)
    got, _ = loaded(save(tmp_path / "mask.png", rgb))
    assert got[7, 9] == got.sum() == 1


def test_a_mask_of_another_size_is_refused_or_resized(tmp_path: Path) -> None:
    path = save_palette(tmp_path / "mask.png", two_objects(1, 2))
    with pytest.raises(MaskError, match=r"mask\.png is 64x48 but the frame is 128x96; .*--resize-mask"):
        read_labels(path, hw=(96, 128))
    got, notes = loaded(path, hw=(96, 128), resize=True)
    assert (got == np.repeat(np.repeat(two_objects(1, 2), 2, axis=0), 2, axis=1)).all()
    assert "it is 64x48 but the frame is 128x96; it was resized" in notes
    assert loaded(path, hw=HW, resize=True)[1] == ""


def test_an_object_lost_in_resizing_is_an_error(tmp_path: Path) -> None:
    ids = two_objects(1, 1)
    ids[0, 1] = 6
    with pytest.raises(MaskError, match=r"loses the objects \[6\]"):
        read_labels(save_palette(tmp_path / "mask.png", ids), hw=(12, 16), resize=True)


def test_files_that_are_no_masks_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photo = cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), HW[::-1], interpolation=cv2.INTER_CUBIC)
    (tmp_path / "text.png").write_text("words")
    np.save(tmp_path / "fractions.npy", np.full(HW, 3.7))
    np.save(tmp_path / "infinite.npy", np.full(HW, np.inf))
    np.save(tmp_path / "volume.npy", np.zeros((2, *HW), np.uint8))
    np.save(tmp_path / "negative.npy", two_objects(-1, 2))
    np.save(tmp_path / "objects.npy", np.array([None, "run me"]))
    np.save(tmp_path / "large.npy", two_objects(1, 70000))
    for path, wrong in (
        (tmp_path / "missing.png", "there is no image"),
        (tmp_path / "missing.npy", "there is no mask"),
        (tmp_path / "text.png", "is not an image"),
        (save(tmp_path / "photo.png", photo), "looks like a photograph"),
        (save(tmp_path / "photo.jpg", photo), "looks like a photograph"),
        (save(tmp_path / "gray_photo.jpg", photo[:, :, 0]), "looks like a photograph"),
        (save(tmp_path / "noise.png", rng.integers(0, 256, (*HW, 3)).astype(np.uint8)), "looks like a photograph"),
        (save(tmp_path / "empty.png", np.zeros(HW, np.uint8)), "is empty"),
        (save(tmp_path / "empty_rgb.png", np.zeros((*HW, 3), np.uint8)), "is empty"),
        (save(tmp_path / "clear.png", np.zeros((*HW, 4), np.uint8)), "is empty"),
        (tmp_path / "fractions.npy", r"holds fractions from 3.7 to 3.7"),
        (tmp_path / "infinite.npy", "not finite"),
        (tmp_path / "volume.npy", r"holds uint8 \[2, 48, 64\]"),
        (tmp_path / "negative.npy", "holds the values -1 to 2"),
        (tmp_path / "objects.npy", "is not a readable .npy array"),
        (tmp_path / "large.npy", "object ids go from 1 to 65535"),
        (tmp_path, "is not an image"),
    ):
        with pytest.raises(MaskError, match=wrong) as caught:
            read_labels(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_many_flat_colours_are_no_mask(tmp_path: Path) -> None:
    tiles = np.arange(24 * 32).reshape(24, 32)
    rgb = np.stack([tiles // 100 * 30, tiles // 10 % 10 * 25, tiles % 10 * 25], axis=-1).repeat(3, axis=0).repeat(3, axis=1).astype(np.uint8)
    with pytest.raises(MaskError, match="768 colours"):
        read_labels(save(tmp_path / "mask.png", rgb))


def test_a_folder_of_masks_says_which_frame_each_is_for(tmp_path: Path) -> None:
    for name in ("00000.png", "00030.png", "frame_7.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    found = read_label_folder(tmp_path)
    assert {index: path.name for index, path in found.items()} == {0: "00000.png", 7: "frame_7.png", 30: "00030.png"}


def test_a_folder_of_masks_follows_the_names_of_the_frames(tmp_path: Path) -> None:
    for name in ("img10.png", "img30.npy"):
        (tmp_path / name).touch()
    found = read_label_folder(tmp_path, frame_names=("img10", "img20", "img30"))
    assert {index: path.name for index, path in found.items()} == {0: "img10.png", 2: "img30.npy"}
    with pytest.raises(MaskError, match="name it like a frame of the clip"):
        read_label_folder(tmp_path, frame_names=("img10", "img20"))


def test_a_folder_of_masks_that_says_too_little_or_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="there is no folder of masks"):
        read_label_folder(tmp_path / "missing")
    with pytest.raises(MaskError, match="holds no masks"):
        read_label_folder(tmp_path)
    (tmp_path / "first.png").touch()
    with pytest.raises(MaskError, match=r"name it by its frame's number, such as 00030\.png, or write --mask FRAME=FILE"):
        read_label_folder(tmp_path)
    (tmp_path / "first.png").rename(tmp_path / "a1.png")
    (tmp_path / "b01.png").touch()
    with pytest.raises(MaskError, match=r"a1\.png and .*b01\.png are both for frame 1; keep one"):
        read_label_folder(tmp_path)


@pytest.mark.real_data
def test_a_real_annotation_is_read_and_written_to_the_same_ids(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "multi-open" / "Annotations" / "longboard" / "00000.png"
    got, notes = loaded(path)
    assert notes == ""
    assert set(np.unique(got)) == {0, 1, 2, 3, 4, 5}
    write_labels(tmp_path / "again.png", got)
    assert (read_stored_labels(tmp_path / "again.png") == got).all()
    assert (loaded(save(tmp_path / "rgb.png", palette()[got]))[0] == got).all()
