"""Sets of images with masks, as the field lays them out on disk: which layout a folder has, and the images in it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rotoscope._files import natural_key
from rotoscope.datasets.coco import read_coco
from rotoscope.datasets.davis import abridged, image_paths
from rotoscope.datasets.stills import Convention, StillImage
from rotoscope.datasets.training_index import has_index, read_image_index
from rotoscope.errors import InputError


@dataclass(frozen=True, slots=True)
class StillSet:
    """Images with masks from one folder.

    Attributes:
        layouts: how they lie there, such as "DUTS".
        stills: those that have a mask, of distinct names.
        num_without_mask: how many images have none and are left out.
    """

    layouts: tuple[str, ...]
    stills: tuple[StillImage, ...]
    num_without_mask: int

    def __str__(self) -> str:
        left_out = f", {self.num_without_mask} without a mask left out" if self.num_without_mask else ""
        return f"{len(self.stills)} images with masks ({', '.join(self.layouts)}){left_out}"


def read_stills(root: Path) -> StillSet:
    """The images with masks of a folder that has one of the layouts, or whose folders have.

    Raises:
        InputError: there is no such folder, it has none of the layouts (the message lists them), no image has a mask, or two have one name.
    """
    if not root.is_dir():
        message = f"there is no folder {root}; give one that holds images and their masks"
        raise InputError(message)
    found = _read_layout(root)
    sets = [found] if found else [one for folder in _folders(root) if (one := _read_layout(folder))]
    if not sets:
        is_empty = not any(root.iterdir())
        message = f"{root} {'is empty' if is_empty else 'holds no images with masks in a layout that is known'}; known are\n{_known()}"
        raise InputError(message)
    joined = StillSet(
        layouts=tuple(dict.fromkeys(layout for one in sets for layout in one.layouts)),
        stills=tuple(still for one in sets for still in one.stills),
        num_without_mask=sum(one.num_without_mask for one in sets),
    )
    _check(root, joined)
    return joined


@dataclass(frozen=True, slots=True)
class _Layout:
    """A way to lay out images and masks.

    Attributes:
        name: what it is known by.
        looks_like: the paths, for messages.
        is_here: whether a folder has it.
        read: the images with masks, and how many have none.
    """

    name: str
    looks_like: str
    is_here: Callable[[Path], bool]
    read: Callable[[Path], tuple[list[StillImage], int]]


def _beside(name: str, images: str, masks: str, convention: Convention, source: str = "") -> _Layout:
    """Images in one folder and masks of the same names in another; sets without a name of their own take that of their folder."""

    def read(root: Path) -> tuple[list[StillImage], int]:
        set_name = source or root.resolve().name
        return _paired(image_paths(root / images), image_paths(root / masks), set_name, convention)

    def is_here(root: Path) -> bool:
        return (root / images).is_dir() and (root / masks).is_dir()

    return _Layout(name, f"{images}/NAME.jpg, {masks}/NAME.png", is_here, read)


def _read_side_by_side(root: Path) -> tuple[list[StillImage], int]:
    paths = image_paths(root / "Imgs")
    images = (path for path in paths if path.suffix.lower() != ".png")
    return _paired(images, (path for path in paths if path.suffix.lower() == ".png"), "MSRA10K", "shade")


def _read_aot(root: Path) -> tuple[list[StillImage], int]:
    stills: list[StillImage] = []
    without_mask = 0
    for folder in _folders(root / "JPEGImages"):
        some, missing = _paired(image_paths(folder), image_paths(root / "Annotations" / folder.name), folder.name, "ids")
        stills += some
        without_mask += missing
    return stills, without_mask


def _has_aot(root: Path) -> bool:
    return any(image_paths(root / "Annotations" / folder.name) for folder in _folders(root / "JPEGImages"))


def _instance_files(root: Path) -> list[Path]:
    return sorted((root / "annotations").glob("instances_*.json"))


def _read_instances(root: Path) -> tuple[list[StillImage], int]:
    """The training part, or where there is none, all parts."""
    files = _instance_files(root)
    stills: list[StillImage] = []
    without_mask = 0
    for path in [path for path in files if "train" in path.stem] or files:
        part = path.stem.removeprefix("instances_")
        some, missing = read_coco(path, [root / part, root / "images" / part, root / "images"], name=f"COCO/{part}")
        stills += some
        without_mask += missing
    return stills, without_mask


_LAYOUTS = (
    _Layout(
        "index",
        "index.json with 'items', images/NAME.webp, masks/NAME.png",
        lambda root: has_index(root, "items"),
        lambda root: read_image_index(root),
    ),
    _beside("DUTS", "DUTS-TR-Image", "DUTS-TR-Mask", "shade", "DUTS-TR"),
    _beside("ECSSD", "images", "ground_truth_mask", "shade", "ECSSD"),
    _Layout("MSRA10K", "Imgs/NAME.jpg, Imgs/NAME.png", lambda root: bool(image_paths(root / "Imgs")), _read_side_by_side),
    _Layout("COCO", "annotations/instances_PART.json, PART/NAME.jpg", lambda root: bool(_instance_files(root)), _read_instances),
    _beside("VOC", "JPEGImages", "SegmentationObject", "ids", "VOC2012"),
    _Layout("AOT", "JPEGImages/SET/NAME.jpg, Annotations/SET/NAME.png", _has_aot, _read_aot),
    _beside("images and masks", "images", "masks", "painted"),
)


def _read_layout(root: Path) -> StillSet | None:
    layout = next((layout for layout in _LAYOUTS if layout.is_here(root)), None)
    if layout is None:
        return None
    stills, without_mask = layout.read(root)
    if not stills:
        message = f"{root} has the layout of {layout.name} ({layout.looks_like}), but none of its {without_mask} images has a mask"
        raise InputError(message)
    return StillSet((layout.name,), tuple(stills), without_mask)


def _paired(images: Iterable[Path], masks: Iterable[Path], source: str, convention: Convention) -> tuple[list[StillImage], int]:
    mask_of = {path.stem: path for path in masks}
    paths = list(images)
    stills = [StillImage(f"{source}/{path.stem}", path, mask_of[path.stem], source, "", convention) for path in paths if path.stem in mask_of]
    return stills, len(paths) - len(stills)


def _folders(root: Path) -> list[Path]:
    return sorted((path for path in root.iterdir() if path.is_dir()), key=natural_key) if root.is_dir() else []


def _known() -> str:
    return "\n".join(f"  {layout.name}: {layout.looks_like}" for layout in _LAYOUTS)


def _check(root: Path, joined: StillSet) -> None:
    twice = [name for name, count in Counter(still.name for still in joined.stills).items() if count > 1]
    if twice:
        message = f"{root} holds {len(twice)} names that belong to several images ({abridged(twice)}); keep one of each"
        raise InputError(message)
