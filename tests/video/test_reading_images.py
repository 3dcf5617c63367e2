"""One test for each kind of image that people have, and that is no plain 8-bit RGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from rotoscope.errors import VideoError
from rotoscope.video.folders import check_picture, read_picture
from rotoscope.video.read import open_clip

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def stored(path: Path, image: Image.Image, **options: object) -> np.ndarray:
    image.save(path, **options)
    return read_picture(path)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"])
def test_every_colour_space_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.new("LAB", (9, 6), (140, 150, 110)) if mode == "LAB" else Image.fromarray(RGB).convert(mode if mode != "PA" else "P").convert(mode)
    read = stored(tmp_path / "image.tif", image)
    assert (read.shape, read.dtype) == ((6, 9, 3), np.uint8)
    if mode != "LAB":
        assert np.abs(read.astype(int) - np.asarray(image.convert("RGB"))).max() <= 2  # TIFF keeps YCbCr rounded


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 20))])
def test_transparent_palettes_lose_their_transparency_in_silence(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(RGB).quantize(8)
    assert np.array_equal(stored(tmp_path / "image.png", image, transparency=transparency), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_16_bits_are_rounded_down_to_8(tmp_path: Path, name: str) -> None:
    deep = RGB[:, :, 0].astype(np.uint16) * 256 + 200
    assert np.array_equal(stored(tmp_path / name, Image.fromarray(deep)), RGB[:, :, :1].repeat(3, axis=2))


def test_32_bits_beyond_16_are_white(tmp_path: Path) -> None:
    assert (stored(tmp_path / "image.tif", Image.fromarray(np.full((6, 9), 2**20, np.int32))) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["image.png", "image.tif", "image.webp"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = stored(tmp_path / name, Image.fromarray(RGB), exif=exif, **({"lossless": True} if name.endswith("webp") else {}))
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(read, np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    assert read.shape[:2] == ((6, 9) if orientation < 5 else (9, 6))


def test_16_bits_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert stored(tmp_path / "image.png", Image.fromarray(RGB[:, :, 0].astype(np.uint16)), exif=exif).shape == (9, 6, 3)


@pytest.mark.parametrize(("name", "exif"), [("a.png", b"garbage"), ("a.webp", b"Exif\0\0garbage"), ("a.jpg", b"Exif\0\0garbagegarbage")])
def test_damaged_exif_data_spoils_nothing(tmp_path: Path, name: str, exif: bytes) -> None:
    assert stored(tmp_path / name, Image.fromarray(RGB), exif=exif).shape == (6, 9, 3)


@pytest.mark.parametrize("orientation", [0, 9, 77, "six"])
def test_an_orientation_that_there_is_not_turns_nothing(tmp_path: Path, orientation: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "getexif", lambda _: {0x0112: orientation})
    assert np.array_equal(stored(tmp_path / "a.png", Image.fromarray(RGB)), RGB)


@pytest.mark.parametrize("hw", [(1, 1), (50, 20_000), (3000, 1)])
def test_sizes_may_be_extreme(tmp_path: Path, hw: tuple[int, int]) -> None:
    assert stored(tmp_path / "image.png", Image.new("RGB", hw[::-1], (1, 2, 3))).shape == (*hw, 3)


def test_of_several_pictures_in_a_file_the_first_is_taken(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    read = stored(tmp_path / "image.tif", image, save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert np.array_equal(read, RGB)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_a_file_that_breaks_off_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(VideoError, match=rf"image\.{suffix} is not an image that can be read, or it is damaged"):
        read_picture(path)


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(VideoError, match=r"has too many pixels to be decoded .*shrink it first"):
        read_picture(tmp_path / "image.png")


def test_a_file_is_known_to_be_an_image_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RGB).save(path)
    check_picture(path)
    path.write_bytes(path.read_bytes()[:60])
    check_picture(path)  # it is one, though cut short
    path.write_bytes(b"none")
    with pytest.raises(VideoError, match="is not an image"):
        check_picture(path)


def test_a_photo_without_a_suffix_is_opened_as_a_video_of_one_frame(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / "photo", "JPEG", exif=exif)
    (frame,) = open_clip(tmp_path / "photo").frames()  # PyAV has no name for the EXIF data that FFmpeg attaches to it
    assert (frame.hw, frame.image[0, 5, 5].item()) == ((48, 64), pytest.approx(90, abs=2))
