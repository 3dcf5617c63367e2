"""Small COCO files made of rectangles, for the tests of the evaluation and the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from rotoscope.video.rle import encode_mask

HW = (100, 120)


def rectangle(x: int, y: int, width: int, height: int, *, hw: tuple[int, int] = HW) -> dict[str, Any]:
    """The run lengths of a rectangle."""
    mask = np.zeros(hw, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return dict(encode_mask(mask))


def annotation(image_id: object, category_id: object, box: tuple[int, int, int, int], **fields: Any) -> dict[str, Any]:
    shape = {"bbox": list(box), "segmentation": rectangle(*box), "area": box[2] * box[3]}
    return {"id": 1, "image_id": image_id, "category_id": category_id, "iscrowd": 0, **shape, **fields}


def detection(image_id: object, category_id: object, box: tuple[int, int, int, int], score: float = 0.5, **fields: Any) -> dict[str, Any]:
    return {
        "image_id": image_id, "category_id": category_id, "bbox": list(box), "segmentation": rectangle(*box), "score": score, **fields
    }  # fmt: skip


def instances(*annotations: dict[str, Any], image_ids: tuple[object, ...] = (1, 2)) -> dict[str, Any]:
    """The content of an instances file with two classes, 3 (cat) and 7 (dog)."""
    images = [{"id": image_id, "height": HW[0], "width": HW[1], "file_name": f"{image_id}.jpg"} for image_id in image_ids]
    return {"images": images, "annotations": list(annotations), "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]}


def two_images() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Detections and annotations: both cats are found, one of them late; of two dogs one is found, behind a false alarm."""
    truth = instances(
        annotation(1, 3, (10, 10, 20, 20)),
        annotation(1, 7, (50, 10, 40, 60)),
        annotation(2, 3, (5, 5, 40, 40)),
        annotation(2, 7, (60, 60, 30, 30)),
    )
    found = [
        detection(1, 3, (10, 10, 20, 20), 0.9),
        detection(1, 3, (80, 80, 10, 10), 0.6),
        detection(2, 3, (5, 5, 40, 40), 0.5),
        detection(1, 7, (0, 0, 10, 10), 0.8),
        detection(1, 7, (50, 10, 40, 60), 0.7),
    ]
    return found, truth


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
