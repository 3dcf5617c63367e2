import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rotoscope.datasets.static_images import StillSet, read_stills
from rotoscope.datasets.stills import StillImage, numbered, read_still
from rotoscope.errors import InputError, MaskError

HW = (6, 8)
SHADE = np.zeros(HW, np.uint8)
SHADE[1:3, 1:5], SHADE[3, 1:5] = 255, 90  # the edge of a mask that was smoothed
IDS = np.zeros(HW, np.uint8)
IDS[0, :], IDS[1:3, 1:4], IDS[4:6, 5:8] = 255, 2, 9


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", HW[::-1], (90, 40, 200)).save(path)


def mask(path: Path, labels: np.ndarray, *, indexed: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels)
    if indexed:
        picture.putpalette([255 - index // 3 % 256 for index in range(768)])
    picture.save(path)


def duts(root: Path) -> None:
    for name in ("a", "b"):
        image(root / "DUTS-TR-Image" / f"{name}.jpg")
        mask(root / "DUTS-TR-Mask" / f"{name}.png", SHADE)
    image(root / "DUTS-TR-Image" / "c.jpg")


def ecssd(root: Path) -> None:
    image(root / "images" / "0001.jpg")
    mask(root / "ground_truth_mask" / "0001.png", SHADE)


def msra(root: Path) -> None:
    image(root / "Imgs" / "1_1.jpg")
    mask(root / "Imgs" / "1_1.png", SHADE)


def voc(root: Path) -> None:
    image(root / "JPEGImages" / "2007_000032.jpg")
    image(root / "JPEGImages" / "2007_000033.jpg")
    mask(root / "SegmentationObject" / "2007_000032.png", IDS, indexed=True)


def aot(root: Path) -> None:
    for part in ("ECSSD", "PASCAL-S"):
        image(root / "JPEGImages" / part / "1.jpg")
        mask(root / "Annotations" / part / "1.png", IDS, indexed=True)


def plain(root: Path) -> None:
    image(root / "images" / "x.png")
    mask(root / "masks" / "x.png", np.stack([255 * SHADED, 0 * SHADE, 0 * SHADE], axis=2))  # painted in red


def index(root: Path) -> None:
    image(root / "images" / "1.webp")
    mask(root / "masks" / "1.png", IDS)
    image(root / "images" / "2.webp")
    items = [{"name": "1", "source": "somebody", "licence": "CC BY 4.0", "objects": 2}, {"name": "2"}]
    (root / "index.json").write_text(json.dumps({"note": "", "items": items}))


def instances(*, name: str = "dog.jpg") -> dict[str, object]:
    square = [1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]
    crowd = {"size": list(HW), "counts": [0, 6, 42]}
    return {
        "images": [{"id": 7, "file_name": name, "license": 3}, {"id": 8, "file_name": "empty.jpg"}],
        "licenses": [{"id": 3, "name": "CC BY"}],
        "annotations": [
            {"image_id": 7, "segmentation": [square], "area": 6, "iscrowd": 0},
            {"image_id": 7, "segmentation": crowd, "area": 6, "iscrowd": 1},
        ],
    }


def coco(root: Path) -> None:
    image(root / "train2017" / "dog.jpg")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(instances()))
    (root / "annotations" / "instances_val2017.json").write_text("not read")


SHADED = (SHADE == 255).astype(np.uint8)
NUMBERED = np.select([IDS == 2, IDS == 9, IDS == 255], [1, 2, 255])
CROWDED = np.zeros(HW, np.uint8)
CROWDED[:, 0], CROWDED[1:3, 1:4] = 255, 1

LAYOUTS = {
    duts: ("DUTS", ["DUTS-TR/a", "DUTS-TR/b"], 1, SHADED),
    ecssd: ("ECSSD", ["ECSSD/0001"], 0, SHADED),
    msra: ("MSRA10K", ["MSRA10K/1_1"], 0, SHADED),
    voc: ("VOC", ["VOC2012/2007_000032"], 1, NUMBERED),
    aot: ("AOT", ["ECSSD/1", "PASCAL-S/1"], 0, NUMBERED),
    plain: ("images and masks", ["mine/x"], 0, SHADED),
    index: ("index", ["mine/1"], 1, NUMBERED),
    coco: ("COCO", ["COCO/train2017/dog"], 1, CROWDED),
}


@pytest.mark.parametrize("build", LAYOUTS)
def test_each_layout_is_known_and_read(build, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    build(root)
    layout, names, without_mask, labels = LAYOUTS[build]
    found = read_stills(root)
    assert found.layouts == (layout,)
    assert [still.name for still in found.stills] == names
    assert found.num_without_mask == without_mask
    rgb, read = read_still(found.stills[0])
    assert rgb.shape == (*HW, 3)
    assert np.array_equal(read, labels)


def test_folders_of_several_layouts_are_joined(tmp_path: Path) -> None:
    for folder, build in (("d", duts), ("e", ecssd), ("m", msra)):
        build(tmp_path / folder)
    found = read_stills(tmp_path)
    assert len(found.stills) == 4
    assert str(found) == "4 images with masks (DUTS, ECSSD, MSRA10K), 1 without a mask left out"
    assert str(read_stills(tmp_path / "m")) == "1 images with masks (MSRA10K)"


def test_a_set_may_state_its_sources_and_licences(tmp_path: Path) -> None:
    for folder, build in (("i", index), ("c", coco)):
        (tmp_path / folder).mkdir()
        build(tmp_path / folder)
    stated = {(still.source, still.licence) for still in read_stills(tmp_path).stills}
    assert stated == {("somebody", "CC BY 4.0"), ("COCO/train2017", "CC BY")}


def test_two_sets_with_the_same_names_are_refused(tmp_path: Path) -> None:
    ecssd(tmp_path / "a")
    ecssd(tmp_path / "b")
    with pytest.raises(InputError, match=r"1 names that belong to several images \(ECSSD/0001\)"):
        read_stills(tmp_path)


@pytest.mark.parametrize("files", [[], ["clip/00000.jpg", "readme.txt"]])
def test_a_folder_without_a_layout_is_told_which_there_are(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="holds no images with masks in a layout" if files else "is empty; known are") as caught:
        read_stills(tmp_path)
    assert all(layout in str(caught.value) for layout in ("DUTS-TR-Image", "Imgs/", "instances_", "SegmentationObject", "masks/NAME.png"))
    with pytest.raises(InputError, match="there is no folder"):
        read_stills(tmp_path / "nowhere")


def test_images_none_of_which_has_a_mask_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "b.png", SHADE)
    with pytest.raises(InputError, match=r"layout of images and masks .* but none of its 1 images has a mask"):
        read_stills(tmp_path)


def test_an_index_must_be_readable_and_complete(tmp_path: Path) -> None:
    index(tmp_path)
    (tmp_path / "images" / "1.webp").unlink()
    with pytest.raises(InputError, match=r"lists 1 images that are not in .*images \(1\)"):
        read_stills(tmp_path)
    (tmp_path / "index.json").write_text('{"items": [{"title": 1}]}')
    with pytest.raises(InputError, match="must hold a list 'items' of objects with a 'name'"):
        read_stills(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_stills(tmp_path)


def test_a_painted_mask_without_an_object_is_no_error(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    mask(tmp_path / "m.png", np.zeros((*HW, 3), np.uint8))
    assert not read_still(StillImage("a", tmp_path / "a.png", tmp_path / "m.png", "mine", convention="painted"))[1].any()


def test_labels_are_numbered_without_gaps() -> None:
    assert numbered(np.array([[0, 7, 255], [3, 300, 7]])).tolist() == [[0, 2, 255], [1, 3, 2]]
    with pytest.raises(MaskError, match="holds 255 objects; at most 254"):
        numbered(np.arange(257).reshape(1, -1))


@pytest.mark.real_data
def test_the_real_images_have_sources_and_licences(shared_data: Path) -> None:
    found = read_stills(shared_data / "train_images")
    assert isinstance(found, StillSet)
    assert len(found.stills) == 12261
    assert all(still.source and still.licence for still in found.stills)
