"""Which layout a data set for detectors has: COCO's instances, YOLO's folders, or images with label maps."""

from pathlib import Path

from rotoscope.datasets.detection.coco_instances import read_coco_instances
from rotoscope.datasets.detection.samples import DetectionSample, DetectionSet
from rotoscope.datasets.detection.yolo_seg import INDEX_NAMES, read_yolo_seg
from rotoscope.datasets.static_images import read_stills
from rotoscope.errors import InputError

_PREFIX = "instances_"


def read_detection_set(path: Path) -> DetectionSet:
    """The training images of a file or folder.

    - a JSON file, or a folder with `annotations/instances_PART.json` (the training part, or the only one there is), `_annotations.coco.json`,
      `train/_annotations.coco.json`, `annotations.json` or `instances.json`: COCO's instances;
    - a `data.yaml`, or a folder that holds one: YOLO's segmentation;
    - any other folder: images with label maps, see `static_images.read_stills`; what they show are objects of one class.

    Raises:
        InputError: there is nothing of the kind, or see the readers.
    """
    if not path.exists():
        message = f"there is no file or folder {path}; give a COCO JSON, a data.yaml, or a folder that holds one"
        raise InputError(message)
    file = path if path.is_file() else annotation_file(path)
    if file is not None:
        return _of_file(file)
    stills = read_stills(path)
    samples = tuple(DetectionSample(still.name, still.image_path, still=still) for still in stills.stills)
    skipped = {"images without a mask": stills.num_without_mask} if stills.num_without_mask else {}
    return DetectionSet(f"masks: {', '.join(stills.layouts)}", ("object",), samples, skipped)


def annotation_file(root: Path) -> Path | None:
    """The file with the outlines and classes of the training images of a folder; None where there is none.

    Raises:
        InputError: there are several, and none is for training.
    """
    index = next((root / name for name in INDEX_NAMES if (root / name).is_file()), None)
    return _instances_in(root) or index


def _of_file(path: Path) -> DetectionSet:
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_yolo_seg(path)
    if path.suffix.lower() == ".json":
        return read_coco_instances(path, _image_folders(path))
    message = f"{path} is neither a COCO JSON nor a data.yaml; give one of these, or a folder"
    raise InputError(message)


def _instances_in(root: Path) -> Path | None:
    """The instances file of a folder.

    Raises:
        InputError: there are several, and none is for training.
    """
    files = sorted((root / "annotations").glob(f"{_PREFIX}*.json"))
    training = [file for file in files if "train" in file.stem]
    if len(training or files) > 1:
        names = ", ".join(file.name for file in training or files)
        message = f"{root / 'annotations'} holds several instances files ({names}); give the one to train on"
        raise InputError(message)
    if files:
        return (training or files)[0]
    others = ("_annotations.coco.json", "train/_annotations.coco.json", "annotations.json", "instances.json")
    return next((root / name for name in others if (root / name).is_file()), None)


def _image_folders(annotations: Path) -> list[Path]:
    """Where tools put the images of an instances file."""
    part = annotations.stem.removeprefix(_PREFIX)
    beside, above = annotations.parent, annotations.parent.parent
    roots = [above, beside] if beside.name == "annotations" else [beside]
    return [folder for root in roots for folder in (root / part, root / "images" / part, root / "images", root)]
