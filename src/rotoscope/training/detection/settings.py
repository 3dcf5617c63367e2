"""What the losses of a detector are, and how much each counts (YOLACT's sheet, section 4; the defaults are those of the released configurations)."""

from dataclasses import dataclass
from typing import Literal

from rotoscope.errors import InputError

ClassLoss = Literal["mined", "softmax-focal", "sigmoid-focal", "objectness-focal", "objectness"]
Mining = Literal["background", "confidence"]
PrototypeLoss = Literal["none", "sparse", "disjoint"]
MaskCrop = Literal["truth", "predicted", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The settings of the losses.

    Attributes:
        positive_overlap: priors that overlap an object by this or more are to find it.
        negative_overlap: those that overlap every object by less are background; those between count for nothing.
        crowd_share: priors of which more than this lies in a crowd are not background; 1 looks at no crowd.
        box_weight, class_weight, mask_weight, semantic_weight, mask_iou_weight: of the losses B, C, M, S and I.
        class_loss: cross-entropy on positives and the hardest negatives; or focal over a softmax, over sigmoids of each class, or of an objectness;
            or an objectness that learns the overlap, as YOLO's does.
        negatives_per_positive: how many negatives of an image count, for each positive ("mined").
        lone_negatives: how many count in an image without positives. Officially none do, so that such images teach nothing.
        mining: what makes a negative hard: little background, or one confident class.
        is_class_balanced: whether common classes weigh less.
        class_prior: how likely each class is where the truth does not say which; empty: all alike.
        focal_alpha: the weight of positives; that of negatives is 1 - alpha.
        focal_gamma: see Lin et al., "Focal loss", ICCV 2017.
        least_union: of two boxes, relative to the picture, when their overlap is taken as an objectness; officially 0.1, which teaches small
            objects too small an objectness.
        crop: where masks are compared: in the true box, in the predicted one, or everywhere.
        is_area_normalised: whether the loss of a mask is divided by the area of its box.
        least_box_area: prototype pixels that the area is taken for at least. Officially there is no such bound, and the loss of an object of a
            few pixels can be arbitrarily large.
        is_mask_binary: whether true masks, made smaller, are cut at one half.
        is_root_normalised: whether the loss of a mask is divided by the root of its own area.
        balance_weight: of the object against the background within a mask, each normalised by its area; 0 for no such weighting.
        whole_mask_weight: of a second loss of the masks before they are cropped.
        max_masks: of an image that are compared; the loss is scaled up accordingly.
        diversity_weight: of the loss D, which tells objects apart by their coefficients.
        prototype_loss: the loss P: their mean ("sparse"), or whether each pixel has one of its own ("disjoint").
        existence_weight: of the loss E: which classes are in the image.
        least_judged_area: true masks of this many prototype pixels or fewer do not teach the judge of masks (I).
        max_judged: masks of a batch that teach it; none for all.
    """

    positive_overlap: float = 0.5
    negative_overlap: float = 0.4
    crowd_share: float = 0.7
    box_weight: float = 1.5
    class_weight: float = 1.0
    mask_weight: float = 6.125
    semantic_weight: float = 1.0
    mask_iou_weight: float = 25.0
    class_loss: ClassLoss = "mined"
    negatives_per_positive: float = 3.0
    lone_negatives: int = 0
    mining: Mining = "background"
    is_class_balanced: bool = False
    class_prior: tuple[float, ...] = ()
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    least_union: float = 0.0
    crop: MaskCrop = "truth"
    is_area_normalised: bool = True
    least_box_area: float = 1.0
    is_mask_binary: bool = True
    is_root_normalised: bool = False
    balance_weight: float = 0.0
    whole_mask_weight: float = 0.0
    max_masks: int = 100
    diversity_weight: float = 0.0
    prototype_loss: PrototypeLoss = "none"
    existence_weight: float = 0.0
    least_judged_area: float = 25.0
    max_judged: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: the overlaps are in the wrong order, or a count is too small.
        """
        if not 0 <= self.negative_overlap <= self.positive_overlap <= 1:
            message = (
                f"negative_overlap={self.negative_overlap:g} and positive_overlap={self.positive_overlap:g} must lie in this order between 0 and 1"
            )
            raise InputError(message)
        if self.max_masks < 1 or self.negatives_per_positive < 0 or self.lone_negatives < 0:
            message = (
                f"max_masks={self.max_masks}, negatives_per_positive={self.negatives_per_positive:g}, lone_negatives={self.lone_negatives}: "
                "the first must be 1 or more, the others 0 or more"
            )
            raise InputError(message)
