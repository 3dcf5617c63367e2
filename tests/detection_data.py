"""Small data sets for detectors: squares on a dark ground, in the layouts of COCO and of YOLO."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SQUARES = ((4, 6, 24, 30), (30, 10, 44, 40))  # x0, y0, x1, y1 in an image of 56 x 48
WIDTH, HEIGHT = 56, 48


def write_images(folder: Path, names: list[str]) -> None:
    """Images with a red and a green square; all are the same."""
    rgb = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for channel, (x0, y0, x1, y1) in enumerate(SQUARES):
        rgb[y0:y1, x0:x1, channel] = 220
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, "png")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded.getvalue())


def square(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """Its corners."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def instances(num_images: int = 3, **changes: Any) -> dict[str, Any]:
    """The content of an instances file: images 1, 2, ... with a square of each of two categories, but for the last, which shows none."""
    images = [{"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in range(1, num_images + 1)]
    annotations = [
        {
            "id": 10 * number + index,
            "image_id": number,
            "category_id": (7, 3)[index],
            "segmentation": [square(*corners)],
            "bbox": [corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]],
            "area": 1.0,
            "iscrowd": 0,
        }
        for number in range(1, num_images)
        for index, corners in enumerate(SQUARES)
    ]
    categories = [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}]
    return {"images": images, "annotations": annotations, "categories": categories, **changes}


def write_coco(root: Path, content: dict[str, Any] | None = None, *, part: str = "train2017") -> Path:
    """A COCO root with its images; the path of the instances file."""
    content = content or instances()
    write_images(root / part, [image["file_name"] for image in content["images"]])
    path = root / "annotations" / f"instances_{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_yolo(root: Path, *, lines: list[str] | None = None) -> Path:
    """A YOLO root of two images, the second without objects; the path of its index."""
    write_images(root / "images" / "train", ["a.png", "b.png"])
    labels = root / "labels" / "train"
    labels.mkdir(parents=True, exist_ok=True)
    made = [
        f"{index} " + " ".join(f"{value / (HEIGHT if place % 2 else WIDTH):.6f}" for place, value in enumerate(square(*corners)))
        for index, corners in enumerate(SQUARES)
    ]
    (labels / "a.txt").write_text("\n".join(made if lines is None else lines) + "\n")
    index = root / "data.yaml"
    index.write_text("path: .\ntrain: images/train\nnames:\n  0: red\n  1: green\n")
    return index
