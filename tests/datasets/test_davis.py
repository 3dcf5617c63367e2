from pathlib import Path

import numpy as np
import pytest
from davis_roots import HW, SQUARE, given_frames, labels_of, write_labels, write_root
from PIL import Image

from rotoscope._files import natural_key
from rotoscope.datasets.davis import abridged, read_davis, read_label_map
from rotoscope.errors import InputError, MaskError

ONE = [labels_of((255, SQUARE))] * 3


@pytest.mark.parametrize("resolution", ["480p", "Full-Resolution", ""])
def test_a_root_is_read_with_and_without_its_resolution_folder(tmp_path: Path, resolution: str) -> None:
    root = write_root(tmp_path, {"b": given_frames(), "a": given_frames()}, resolution=resolution)
    clips = read_davis(root, with_frames=True)
    assert [clip.name for clip in clips] == ["a", "b"]
    assert [path.name for path in clips[0].frame_paths] == [f"{i:05d}.jpg" for i in range(5)]
    assert [path.name for path in clips[0].annotation_paths] == [f"{i:05d}.png" for i in range(5)]


def test_images_are_not_needed_for_scoring(tmp_path: Path) -> None:
    write_labels(tmp_path / "Annotations" / "480p" / "dog", ONE)
    assert read_davis(tmp_path)[0].frame_paths == ()
    with pytest.raises(InputError, match=r"no JPEGImages.480p; the frames are needed"):
        read_davis(tmp_path, with_frames=True)


@pytest.mark.parametrize(("frames", "merged"), [(ONE, True), (given_frames(), False)])
def test_the_convention_is_seen_from_the_first_annotation(tmp_path: Path, frames: list[np.ndarray], merged: bool) -> None:
    write_root(tmp_path, {"dog": frames})
    assert read_davis(tmp_path)[0].merged is merged
    assert read_davis(tmp_path, year="2016")[0].merged is True


def test_a_mask_of_0_and_255_is_not_davis_2017(tmp_path: Path) -> None:
    write_root(tmp_path, {"dog": ONE})
    with pytest.raises(InputError, match="--year 2016"):
        read_davis(tmp_path, year="2017")


def test_clips_are_those_asked_for_then_those_listed_then_all(tmp_path: Path) -> None:
    root = write_root(tmp_path, dict.fromkeys(("a", "b", "c"), given_frames()))
    for year, names in (("2016", "a\n"), ("2017", "b\nc\n\n")):
        (root / "ImageSets" / year).mkdir(parents=True)
        (root / "ImageSets" / year / "val.txt").write_text(names)
    assert [clip.name for clip in read_davis(root)] == ["b", "c"]
    assert [clip.name for clip in read_davis(root, year="2016")] == ["a"]
    assert [clip.name for clip in read_davis(root, clips=["c", "a", "c"])] == ["c", "a"]
    (root / "ImageSets" / "2017" / "val.txt").write_text("b\nd\n")
    with pytest.raises(InputError, match=r"clips d are not in .*val.txt lists them.*there are: a, b, c"):
        read_davis(root)


def test_a_clip_that_does_not_exist_lists_those_that_do(tmp_path: Path) -> None:
    write_root(tmp_path, dict.fromkeys(("bear", "dog"), ONE))
    with pytest.raises(InputError, match=r"clips cat, cow are not in .*; there are: bear, dog"):
        read_davis(tmp_path, clips=["cat", "dog", "cow"])
    with pytest.raises(InputError, match=r"no clip was named; there are: bear, dog"):
        read_davis(tmp_path, clips=[])


def test_a_folder_that_is_no_root_says_what_a_root_is(tmp_path: Path) -> None:
    root = write_root(tmp_path / "davis", {"dog": ONE})
    with pytest.raises(InputError, match=r"absent does not exist; give a DAVIS root"):
        read_davis(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no Annotations folder.*did you mean .*davis\?"):
        read_davis(root / "Annotations" / "480p")
    (tmp_path / "empty" / "Annotations" / "480p").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no clips"):
        read_davis(tmp_path / "empty")


def test_frames_and_annotations_must_pair_up(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"dog": given_frames()})
    annotations, images = root / "Annotations" / "480p" / "dog", root / "JPEGImages" / "480p" / "dog"
    (annotations / "00003.png").unlink()
    with pytest.raises(InputError, match=r"clip 'dog': 1 of 5 frames have no annotation \(00003\)"):
        read_davis(root, with_frames=True)
    for index in (2, 3):
        (images / f"{index:05d}.jpg").unlink()
    with pytest.raises(InputError, match=r"clip 'dog': 1 annotated frames have no image \(00002\)"):
        read_davis(root, with_frames=True)
    (annotations / "00002.png").unlink()
    write_labels(annotations.parent / "cat", ONE)
    with pytest.raises(InputError, match=r"clip 'cat': 3 annotated frames have no image"):
        read_davis(root, clips=["cat"], with_frames=True)
    Image.new("RGB", HW[::-1]).save(images / "00000.png")
    with pytest.raises(InputError, match="two images of the same name"):
        read_davis(root, clips=["dog"], with_frames=True)


def test_frames_of_another_resolution_are_refused(tmp_path: Path) -> None:
    root = write_root(tmp_path, {"dog": ONE})
    first = root / "JPEGImages" / "480p" / "dog" / "00000.jpg"
    Image.new("RGB", (24, 20)).save(first)
    with pytest.raises(InputError, match="frames are 24x20 but annotations are 12x10"):
        read_davis(root, with_frames=True)
    first.write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"00000.jpg cannot be read as an image"):
        read_davis(root, with_frames=True)


def test_a_clip_whose_first_annotation_is_empty_is_refused(tmp_path: Path) -> None:
    write_root(tmp_path, {"dog": [labels_of(), *ONE]})
    with pytest.raises(InputError, match=r"clip 'dog': the first annotation.*holds no object"):
        read_davis(tmp_path)


@pytest.mark.parametrize("mode", ["P", "L", "1", "I;16", "RGB", "RGBA", "LA"])
def test_label_maps_are_read_from_every_mode_that_holds_them(tmp_path: Path, mode: str) -> None:
    mask = np.zeros(HW, dtype=np.uint8)
    mask[SQUARE] = 7 if mode == "P" else 255
    values = mask.astype(np.uint16) * 3 if mode == "I;16" else mask
    image = Image.fromarray(mask).convert("1") if mode == "1" else Image.fromarray(values)
    if mode == "P":
        image.putpalette([5] * 768)
    elif mode in ("RGB", "RGBA", "LA"):
        image = image.convert(mode)
    image.save(tmp_path / "mask.png")
    read = read_label_map(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as stored:
        assert stored.mode == mode
    np.testing.assert_array_equal(read, values)
    assert read.dtype.kind == "u"


def test_a_coloured_or_broken_mask_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("RGB", HW[::-1], (128, 0, 0)).save(path)
    with pytest.raises(MaskError, match=r"mask.png holds colours \(mode RGB\); save it as an indexed PNG"):
        read_label_map(path)
    write_labels(tmp_path / "good", ONE)
    path.write_bytes((tmp_path / "good" / "00000.png").read_bytes()[:60])
    with pytest.raises(MaskError, match=r"mask.png cannot be read as a mask"):
        read_label_map(path)
    with pytest.raises(MaskError, match="cannot be read"):
        read_label_map(tmp_path / "absent.png")


def test_names_sort_by_their_numbers() -> None:
    names = ["10.png", "2.png", "frame12.png", "frame3.png", "1a.png"]
    assert [path.name for path in sorted(map(Path, names), key=natural_key)] == ["1a.png", "2.png", "10.png", "frame3.png", "frame12.png"]


def test_long_lists_are_abridged() -> None:
    assert abridged(["a", "b"]) == "a, b"
    assert abridged(list("abcdefg"), most=3) == "a, b, c, and 4 more"


def test_the_open_clips_are_read(shared_data: Path) -> None:
    clips = read_davis(shared_data / "davis2016-open", with_frames=True)
    assert len(clips) == 10
    assert all(clip.merged and len(clip.frame_paths) == len(clip.annotation_paths) for clip in clips)
    assert not read_davis(shared_data / "multi-open", with_frames=True)[0].merged
