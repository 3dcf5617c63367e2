"""The table of YOLACT's variants, and what their released weights are called."""

from collections.abc import Mapping
from dataclasses import replace

from rotoscope.models.yolact.classes import COCO_CLASSES, LITE_CLASSES, PASCAL_CLASSES
from rotoscope.models.yolact.config import YolactConfig

_BASE = YolactConfig(COCO_CLASSES, square_priors=True)

_OCTAVE = tuple(2 ** (third / 3) for third in range(3))  # YOLACT++, section 5.3: three scales to the octave
_PLUS = replace(_BASE, square_priors=False, scales=tuple(tuple(side * factor for factor in _OCTAVE) for (side,) in _BASE.scales), mask_iou=True)


def _scales(*sides: int) -> tuple[tuple[float, ...], ...]:
    """One scale for each level."""
    return tuple((float(side),) for side in sides)


VARIANTS: Mapping[str, YolactConfig] = {
    "yolact-base": _BASE,
    "yolact-im400": replace(_BASE, image_size=400, scales=_scales(17, 34, 69, 139, 279)),  # the base's, scaled and cut to integers
    "yolact-im700": replace(_BASE, image_size=700, scales=_scales(30, 61, 122, 244, 488)),  # the same
    "yolact-resnet50": replace(_BASE, backbone="resnet50"),
    "yolact-darknet53": replace(_BASE, backbone="darknet53"),
    "yolact-pascal": replace(_BASE, class_names=PASCAL_CLASSES, backbone="resnet50", scales=_scales(32, 64, 128, 256, 512), square_priors=False),
    "yolact-plus-resnet50": replace(_PLUS, backbone="resnet50", deformable_interval=1),
    "yolact-plus-base": replace(_PLUS, deformable_interval=3),
    "yolact-lite": YolactConfig(
        LITE_CLASSES,
        backbone="efficientnet-lite0",
        image_size=352,
        scales=_scales(16, 32, 64, 128, 256),
        width=128,
        separable=True,
        suppression="cross-class",  # it learnt from images that do not say which class, so both may claim an object
    ),  # ours; scales as the base's, relative to its size, rounded to powers of two
}
"""What `build` knows, by registry name."""

OFFICIAL_FILES: Mapping[str, str] = {
    "yolact-base": "yolact_base_54_800000.pth",
    "yolact-im700": "yolact_im700_54_800000.pth",
    "yolact-resnet50": "yolact_resnet50_54_800000.pth",
    "yolact-darknet53": "yolact_darknet53_54_800000.pth",
    "yolact-plus-resnet50": "yolact_plus_resnet50_54_800000.pth",
    "yolact-plus-base": "yolact_plus_base_54_800000.pth",
}
"""What the official repository calls its weights (commit of 2020 and later); none are released for `yolact-im400` and `yolact-pascal`."""
