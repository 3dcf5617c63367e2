"""The settings of YOLACT's networks and of how detections are read from them (YOLACT, ICCV 2019; YOLACT++, TPAMI 2020)."""

from dataclasses import dataclass
from typing import Literal, get_args

from rotoscope.errors import InputError

Backbone = Literal["resnet50", "resnet101", "darknet53", "efficientnet-lite0"]
Suppression = Literal["fast", "cross-class", "classic"]

_Colour = tuple[float, float, float]
_IMAGENET: tuple[_Colour, _Colour] = ((123.68, 116.78, 103.94), (58.40, 57.12, 57.38))  # official code, there as blue, green, red
_PIXELS: dict[Backbone, tuple[_Colour, _Colour]] = {
    "resnet50": _IMAGENET,
    "resnet101": _IMAGENET,
    "darknet53": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),  # official code
    "efficientnet-lite0": ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),  # the lite release
}


@dataclass(frozen=True, slots=True)
class YolactConfig:
    """One configuration of YOLACT or YOLACT++.

    Attributes:
        class_names: what the classes are called, in the order of the network's outputs; the background is not among them.
        backbone: the encoder; its strides 8, 16 and 32 feed the pyramid.
        image_size: side, in pixels, to which pictures are resized, and the unit of `scales`.
        scales: for each of the levels P3..P7 the sides of its priors, in pixels of an image of `image_size`.
        ratios: width over height of the priors.
        square_priors: the official bug that released weights of YOLACT (not ++) need: the height of a prior is its width.
        num_prototypes: prototypes, and coefficients of each detection.
        width: channels of the pyramid, of the prototype network and of the head.
        separable: the 3x3 convolutions of the pyramid and of the prototype network are separable and normalised (ours, for processors).
        deformable_interval: every how many-th residual block of stages 2 to 4 (counted within the stage) has a deformable convolution; 0 for none.
        mask_iou: whether a network judges the masks (YOLACT++).
        score_threshold: priors whose best class scores at most this are dropped at once.
        suppression: which non-maximum suppression.
        overlap_threshold: boxes that overlap a better one by more than this are dropped.
        top_k: candidates for each class.
        max_detections: that are returned for a frame at most.
        min_score: detections of a lower score are left out; also those of a lower mask score, where masks are judged.
        only_classes: the names of the classes that are looked for; none means all.
        keep_aspect_ratio: give the network pictures of their own proportions, with as many pixels as the square that they are pressed into
            otherwise. The released weights know squares.
        frames_at_once: that share a pass through the network, at most.

    Raises:
        InputError: a setting that is out of its range, or a class that there is not.
    """

    class_names: tuple[str, ...]
    backbone: Backbone = "resnet101"
    image_size: int = 550
    scales: tuple[tuple[float, ...], ...] = ((24.0,), (48.0,), (96.0,), (192.0,), (384.0,))
    ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    square_priors: bool = False
    num_prototypes: int = 32
    width: int = 256
    separable: bool = False
    deformable_interval: int = 0
    mask_iou: bool = False
    score_threshold: float = 0.05
    suppression: Suppression = "fast"
    overlap_threshold: float = 0.5
    top_k: int = 200
    max_detections: int = 100
    min_score: float = 0.0
    only_classes: tuple[str, ...] = ()
    keep_aspect_ratio: bool = False
    frames_at_once: int = 4

    def __post_init__(self) -> None:
        for name in ("score_threshold", "overlap_threshold", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                message = f"{name} is {getattr(self, name)}; give a number from 0 to 1"
                raise InputError(message)
        for name in ("image_size", "top_k", "max_detections", "frames_at_once"):
            if getattr(self, name) < 1:
                message = f"{name} is {getattr(self, name)}; give 1 or more"
                raise InputError(message)
        if self.suppression not in get_args(Suppression):
            message = f"there is no suppression '{self.suppression}'; there are {', '.join(get_args(Suppression))}"
            raise InputError(message)
        unknown = [name for name in self.only_classes if name not in self.class_names]
        if unknown:
            message = f"the model knows no class {', '.join(unknown)}; it knows {', '.join(self.class_names)}"
            raise InputError(message)

    @property
    def num_classes(self) -> int:
        """Classes without the background."""
        return len(self.class_names)

    @property
    def pixel_mean(self) -> tuple[float, float, float]:
        """What is taken from red, green and blue (0..255) before the network sees them."""
        return _PIXELS[self.backbone][0]

    @property
    def pixel_std(self) -> tuple[float, float, float]:
        """What they are then divided by."""
        return _PIXELS[self.backbone][1]

    @property
    def priors_per_cell(self) -> int:
        """Priors at each position of a level; the same for all levels."""
        return len(self.scales[0]) * len(self.ratios)

    @property
    def only_class_ids(self) -> tuple[int, ...]:
        """Where the names of `only_classes` are among the class names, ascending; empty if all classes are looked for."""
        return tuple(sorted(self.class_names.index(name) for name in set(self.only_classes)))
