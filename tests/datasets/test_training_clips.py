import json
from pathlib import Path

import pytest
from davis_roots import SQUARE, given_frames, labels_of, write_root
from PIL import Image

from rotoscope.datasets.clips import read_clips, read_footage
from rotoscope.datasets.davis import read_davis
from rotoscope.datasets.youtube_vos import read_youtube_vos
from rotoscope.errors import InputError

ONE = [labels_of((255, SQUARE))] * 3


def write_frames(folder: Path, count: int, *, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (12, 10), (index, 0, 0)).save(folder / f"{index:05d}{suffix}")


def write_youtube_vos(root: Path, *, clips: tuple[str, ...] = ("0a", "0b")) -> Path:
    """Frames 0 to 10 of each clip, of which 0, 5 and 10 are annotated; object 2 comes at frame 5."""
    for name in clips:
        write_frames(root / "train" / "JPEGImages" / name, 11)
        masks = root / "train" / "Annotations" / name
        masks.mkdir(parents=True)
        for index in (0, 5, 10):
            second = [(2, (slice(7, 9), slice(8, 11)))] if index else []
            Image.fromarray(labels_of((1, SQUARE), *second)).save(masks / f"{index:05d}.png")
    (root / "train" / "meta.json").write_text(json.dumps({"videos": {name: {"objects": {}} for name in clips}}))
    return root


def davis(root: Path) -> None:
    write_root(root, dict.fromkeys(("bear", "dog", "blackswan"), given_frames()))
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "train.txt").write_text("bear\ndog\n")
    (root / "ImageSets" / "2017" / "val.txt").write_text("blackswan\n")


def bl30k(root: Path) -> None:
    for part in ("a", "b"):
        write_root(root / part, {f"{part}1": given_frames()}, resolution="")


def own(root: Path) -> None:
    write_root(root, {"many": given_frames(), "one": ONE, "single": given_frames()[:1]}, resolution="")
    (root / "Annotations" / "many" / "00003.png").unlink()


LAYOUTS = {
    davis: ("DAVIS", ["bear", "dog"], 12, "2 clips with 10 annotated frames (DAVIS)"),
    write_youtube_vos: ("YouTube-VOS", ["0a", "0b"], 3, "2 clips with 6 annotated frames (YouTube-VOS)"),
    bl30k: ("BL30K", ["a1", "b1"], 10, "2 clips with 10 annotated frames (BL30K)"),
    own: ("clips and masks", ["many", "one"], 10, "2 clips with 7 annotated frames (clips and masks), 1 of one frame left out"),
}


@pytest.mark.parametrize("build", LAYOUTS)
def test_each_layout_of_clips_is_known(build, tmp_path: Path) -> None:
    build(tmp_path)
    (found,) = read_clips(tmp_path)
    layout, names, max_gap, text = LAYOUTS[build]
    assert (found.layout, [clip.name for clip in found.clips], found.max_gap, str(found)) == (layout, names, max_gap, text)
    for clip in found.clips:
        assert [path.stem for path in clip.frame_paths] == [path.stem for path in clip.annotation_paths]
        assert all(path.is_file() for path in (*clip.frame_paths, *clip.annotation_paths))


def test_sets_side_by_side_are_all_found(tmp_path: Path) -> None:
    davis(tmp_path / "DAVIS")
    write_youtube_vos(tmp_path / "YouTubeVOS")
    assert [(one.layout, one.repeats) for one in read_clips(tmp_path)] == [("DAVIS", 5), ("YouTube-VOS", 1)]


def test_a_folder_of_its_own_may_hold_masks_of_0_and_255(tmp_path: Path) -> None:
    own(tmp_path)
    masks = tmp_path / "Annotations" / "one"
    Image.new("L", (12, 10)).save(masks / "00000.png")
    (masks / "00001.png").write_bytes(b"broken")
    (found,) = read_clips(tmp_path)
    assert [(clip.name, clip.merged) for clip in found.clips] == [("many", False), ("one", True)]
    for path in masks.iterdir():
        Image.new("L", (12, 10)).save(path)
    assert not read_clips(tmp_path)[0].clips[1].merged


def test_davis_gives_its_training_clips_only_when_asked(tmp_path: Path) -> None:
    davis(tmp_path)
    assert [clip.name for clip in read_davis(tmp_path)] == ["blackswan"]
    assert [clip.name for clip in read_davis(tmp_path, subset="train")] == ["bear", "dog"]


def test_a_folder_without_clips_is_told_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is empty: it holds no clips with masks") as caught:
        read_clips(tmp_path)
    assert all(layout in str(caught.value) for layout in ("DAVIS", "train/meta.json", "BL30K", "JPEGImages/CLIP"))
    with pytest.raises(InputError, match="there is no folder"):
        read_clips(tmp_path / "nowhere")
    write_root(tmp_path, {"single": given_frames()[:1]}, resolution="")
    with pytest.raises(InputError, match="none of its 1 clips has two frames with masks"):
        read_clips(tmp_path)


def test_youtube_vos_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no YouTube-VOS root"):
        read_youtube_vos(tmp_path)
    meta = write_youtube_vos(tmp_path) / "train" / "meta.json"
    assert [clip.name for clip in read_youtube_vos(tmp_path / "train")] == ["0a", "0b"]
    meta.write_text('{"videos": {"0a": {}, "0c": {}}}')
    with pytest.raises(InputError, match=r"lists 1 clips with no annotated frame in .* \(0c\)"):
        read_youtube_vos(tmp_path)
    meta.write_text("[]")
    with pytest.raises(InputError, match=r"is not the meta.json of YouTube-VOS"):
        read_youtube_vos(tmp_path)


def test_footage_is_any_folder_of_frames_and_any_video(tmp_path: Path) -> None:
    davis(tmp_path / "DAVIS")
    write_frames(tmp_path / "walk", 3)
    write_frames(tmp_path / "single", 1)
    write_frames(tmp_path / ".cache", 3)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "park.MP4").touch()
    found = {one.name: (len(one.frame_paths), one.video) for one in read_footage(tmp_path)}
    frames = {f"DAVIS/JPEGImages/480p/{name}": (5, None) for name in ("bear", "blackswan", "dog")}
    assert found == frames | {"walk": (3, None), "more/park": (0, tmp_path / "more" / "park.MP4")}
    assert [one.name for one in read_footage(tmp_path / "walk")] == ["walk"]
    assert read_footage(tmp_path / "more" / "park.MP4")[0].video is not None


def test_an_index_says_which_clips_there_are(tmp_path: Path) -> None:
    for name in ("a", "b", "unlisted"):
        write_frames(tmp_path / name, 2, suffix=".webp")
    (tmp_path / "index.json").write_text(json.dumps({"clips": [{"name": "b"}, {"name": "a"}]}))
    assert [one.name for one in read_footage(tmp_path)] == ["b", "a"]
    (tmp_path / "index.json").write_text(json.dumps({"clips": [{"name": "c"}]}))
    with pytest.raises(InputError, match=r"lists 1 clips that are not in .* \(c\)"):
        read_footage(tmp_path)


def test_a_folder_without_footage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is empty: it holds no clips; it must hold folders of two frames"):
        read_footage(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        read_footage(tmp_path / "nowhere")


@pytest.mark.real_data
def test_the_real_training_clips_are_found(shared_data: Path) -> None:
    found = read_footage(shared_data / "train_clips")
    assert len(found) == 61
    stated = json.loads((shared_data / "train_clips" / "index.json").read_text())["clips"]
    assert [len(one.frame_paths) for one in found] == [clip["frames"] for clip in stated]
