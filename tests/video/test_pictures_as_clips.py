"""Folders of images, single images, and arrays as clips."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import HW, cut_short, number_of, numbered_picture
from PIL import Image

from rotoscope._files import natural_key
from rotoscope.errors import InputError, VideoError
from rotoscope.video.read import Clip, open_clip, read_video


def put(folder: Path, name: str, number: int = 0, hw: tuple[int, int] = HW) -> Path:
    path = folder / name
    Image.fromarray(numbered_picture(number, hw)).save(path)
    return path


def test_a_folder_is_read_in_natural_order_whatever_the_gaps(tmp_path: Path) -> None:
    for number in (10, 2, 1, 100, 9):
        put(tmp_path, f"img{number}.jpg", number)
    clip = open_clip(tmp_path)
    assert isinstance(clip, Clip)
    frames = list(clip.frames())
    assert [number_of(frame) for frame in frames] == [1, 2, 9, 10, 100]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.name for frame in frames] == list(clip.frame_names) == ["img1", "img2", "img9", "img10", "img100"]
    assert (clip.num_frames, clip.hw, clip.fps, clip.is_live, clip.name, frames[0].time_seconds) == (5, HW, None, False, tmp_path.name, None)
    assert [number_of(frame) for frame in clip.frames(1, 4, reverse=True)] == [10, 9, 2]


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8, unique=True))
@settings(deadline=None, max_examples=20)
def test_numbers_sort_as_numbers_with_or_without_zeros_in_front(numbers: list[int]) -> None:
    names = [Path(f"frame_{number:0{1 + number % 6}d}.png") for number in numbers]
    assert [int(path.stem[6:]) for path in sorted(names, key=natural_key)] == sorted(numbers)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "tiff", "TIF", "PNG"])
def test_every_kind_of_image_is_a_clip_of_one_frame(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path, f"still.{suffix}", 77)
    clip = open_clip(path)
    (frame,) = clip.frames()
    assert (clip.num_frames, clip.name, frame.name, number_of(frame)) == (1, "still", "still", 77)


def test_other_files_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves behind")
    assert open_clip(tmp_path).num_frames == 1


def first_pixel(path: Path) -> list[int]:
    frame = next(open_clip(path).frames())
    assert frame.image.dtype == torch.uint8
    return frame.image[:, 0, 0].tolist()


def test_unusual_stills_become_rgb_bytes(tmp_path: Path) -> None:
    gray, deep, cmyk, clear, indexed = (tmp_path / name for name in ("gray.png", "deep.png", "cmyk.jpg", "clear.png", "indexed.png"))
    Image.new("L", (8, 4), 90).save(gray)
    Image.fromarray(np.full((4, 8), 0x5A80, np.uint16)).save(deep)
    Image.new("CMYK", (8, 4), (0, 255, 255, 0)).save(cmyk)
    Image.new("RGBA", (8, 4), (10, 20, 30, 40)).save(clear)
    Image.new("RGB", (8, 4), (200, 100, 0)).quantize(4).save(indexed)
    assert first_pixel(gray) == first_pixel(deep) == [90, 90, 90]
    assert first_pixel(cmyk) == pytest.approx([255, 0, 0], abs=4)
    assert first_pixel(clear) == [10, 20, 30]
    assert first_pixel(indexed) == pytest.approx([200, 100, 0], abs=2)
    deep_rgb = tmp_path / "deep_rgb.png"
    cv2.imwrite(str(deep_rgb), np.full((4, 8, 3), (0x0A00, 0x1400, 0x1E00), np.uint16))
    assert first_pixel(deep_rgb) == [30, 20, 10]


def test_a_photo_taken_with_the_camera_on_its_side_is_upright(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise to see it upright
    Image.fromarray(numbered_picture(5)).save(path, exif=exif)
    clip = open_clip(path)
    assert clip.hw == HW[::-1]
    expected = np.rot90(numbered_picture(5), -1)
    assert np.abs(next(clip.frames()).image.permute(1, 2, 0).numpy().astype(int) - expected).mean() < 4


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path, f"{number}.png", number)
    cut_short(tmp_path / "1.png", 0.5)
    frames = open_clip(tmp_path).frames()
    assert next(frames).index == 0
    with pytest.raises(VideoError, match=r"1\.png is not an image that can be read, or it is damaged"):
        next(frames)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    put(tmp_path, "0.png")
    put(tmp_path, "1.png", hw=(50, 64))
    with pytest.raises(VideoError, match=r"1\.png: frame 1 is 64x50 but the clip began with 64x48"):
        list(read_video(tmp_path))


def test_a_folder_without_usable_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="holds no images"):
        open_clip(tmp_path)
    put(tmp_path, "00000.png")
    put(tmp_path, "00000.jpg")
    with pytest.raises(VideoError, match="holds 2 images named 00000"):
        open_clip(tmp_path)


def test_images_that_cannot_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((4, 8), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(VideoError, match="floating-point values; save it with 8 or 16 bits"):
        open_clip(tmp_path / "float.tiff")
    with pytest.raises(VideoError, match=r"there is no image .*missing\.png"):
        open_clip(tmp_path / "missing.png")
    path = put(tmp_path, "locked.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(VideoError, match="may not be read"):
        open_clip(path)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(VideoError, match="cannot be read: Permission denied"):
        open_clip(tmp_path)


@pytest.mark.parametrize("kind", ["numpy", "torch", "channels first", "read-only", "reversed"])
def test_arrays_are_clips(kind: str) -> None:
    pictures = np.stack([numbered_picture(number) for number in range(4)])
    source: np.ndarray | torch.Tensor = pictures
    if kind == "torch":
        source = torch.from_numpy(pictures)
    elif kind == "channels first":
        source = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    elif kind == "read-only":
        pictures.flags.writeable = False
    elif kind == "reversed":
        source = pictures[::-1].copy()[::-1]
    clip = open_clip(source)
    assert (clip.num_frames, clip.hw, clip.name) == (4, HW, "frames")
    assert [(frame.index, number_of(frame)) for frame in clip.frames(1)] == [(1, 1), (2, 2), (3, 3)]
    assert [number_of(frame) for frame in clip.frames(reverse=True)] == [3, 2, 1, 0]


@pytest.mark.parametrize(
    "pictures",
    [
        np.zeros((2, 4, 5, 3)),
        np.zeros((4, 5, 3), np.uint8),
        np.zeros((2, 4, 5, 4), np.uint8),
        np.zeros((0, 4, 5, 3), np.uint8),
        torch.zeros(2, 3, 4, 5),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(pictures: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(VideoError, match=r"give (RGB as uint8|at least one)"):
        open_clip(pictures)


def test_a_negative_start_is_refused_for_images_too(tmp_path: Path) -> None:
    put(tmp_path, "0.png")
    with pytest.raises(InputError, match="counted from 0"):
        open_clip(tmp_path).frames(-2)
