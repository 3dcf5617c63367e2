"""The classes of the data sets that released weights were trained on, in the order of the network's outputs."""

COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant", "stop sign",
    "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop",
    "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""Lin et al., "Microsoft COCO", ECCV 2014: the 80 things of the 2014 and 2017 releases."""

_COCO_UNUSED = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))  # ids of COCO's 90 that no annotation has

COCO_IDS = tuple(number for number in range(1, 91) if number not in _COCO_UNUSED)
"""The category id that annotation files give each of `COCO_CLASSES`."""

COCO_INDEX = {coco_id: index for index, coco_id in enumerate(COCO_IDS)}
"""From the category id of an annotation to the index in `COCO_CLASSES`."""

PASCAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Everingham et al., "The Pascal Visual Object Classes challenge", IJCV 2010; category ids count from 1 in this order."""

LITE_CLASSES = ("person", "object")
"""Of `yolact-lite`: people, and any other thing."""
