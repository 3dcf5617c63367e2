"""The settings of a training of a detector, and those that each configuration of YOLACT stands for (YOLACT's sheet, section 4)."""

from dataclasses import dataclass

from rotoscope.errors import InputError
from rotoscope.training.detection.settings import ClassLoss, LossSettings
from rotoscope.training.processes import world_size
from rotoscope.training.recipe import Recipe
from rotoscope.training.schedules import PolynomialRate, Rate, SteppedRate, WarmedUp

_LEAST_FOR_NORMS = 6
"""Images of a process from which on the encoder's batch normalisation learns (official code)."""
_NAMELESS_PRIOR = (0.3, 0.7)
"""How likely people and other things are in photographs of things: a guess, for images that do not say what they show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YolactRecipe(Recipe):
    """The settings of a training of YOLACT, YOLACT++ or `yolact-lite`.

    Attributes:
        model: its name in the registry.
        sizes: sides of the pictures; each batch has one of them. None takes that of the configuration.
        rate: of learning, the highest.
        least_rate: where a rate that falls evenly ends; see `PolynomialRate`.
        falls_at: the steps at which the rate falls to a tenth. With none it falls evenly.
        warm_up: steps in which the rate rises, from a tenth where it falls in steps.
        encoder_factor: the rate of the encoder over that of the rest.
        weight_decay: of weights.
        decays_all: whether norms and biases decay too (official).
        scaled_for: the samples of a step that `steps`, `rate` and `falls_at` are meant for. With another number, over all processes, the rate is
            multiplied and the steps are divided accordingly (official), once; 0 leaves all as it is.
        frozen_norms: whether the encoder's batch normalisation never changes; None: in batches of fewer than 6 for a process (official).
        encoder: a file with ImageNet weights of the encoder; none takes those that ship, if there are.
        frozen_blocks: how many of the first blocks of EfficientNet-Lite0 stay as they are, the stem with them.
        class_loss, negatives_per_positive, lone_negatives, max_masks: see `LossSettings`.
        least_side: pixels of a picture; objects of which less is seen are dropped. The official code drops none.
        layers: for images with masks but no classes: objects of others that may be laid into a picture.
        telling_share: of the pictures that are made from images with several objects or a known class.
        held_out: share of such images that training never sees.

    Raises:
        InputError: a size, rate or share that is out of its range.
    """

    model: str
    sizes: tuple[int, ...] | None = None
    rate: float = 1e-3
    least_rate: float = 1e-5
    falls_at: tuple[int, ...] = ()
    warm_up: int = 500
    encoder_factor: float = 1.0
    weight_decay: float = 5e-4
    decays_all: bool = True
    scaled_for: int = 8
    frozen_norms: bool | None = None
    encoder: str | None = None
    frozen_blocks: int = 0
    class_loss: ClassLoss = "mined"
    negatives_per_positive: float = 3.0
    lone_negatives: int = 16
    max_masks: int = 100
    least_side: float = 4.0
    layers: int = 2
    telling_share: float = 0.4
    held_out: float = 0.02

    def __post_init__(self) -> None:
        super(YolactRecipe, self).__post_init__()
        if self.sizes is not None and (not self.sizes or min(self.sizes) < 32):
            message = f"sizes={self.sizes} are no sides of pictures; give one or more of 32 pixels or more"
            raise InputError(message)
        if not self.rate > 0 or not 0 <= self.held_out < 1 or not 0 <= self.telling_share <= 1:
            shares = f"held_out={self.held_out:g} from 0 to less than 1, telling_share={self.telling_share:g} from 0 to 1"
            message = f"rate={self.rate:g} must be above 0, {shares}"
            raise InputError(message)
        self._rescale(self.batch_size * self.accumulate * world_size())

    def _rescale(self, samples: int) -> None:
        """Make rate and steps those of this number of samples."""
        if self.scaled_for in (0, samples):
            return
        factor = samples / self.scaled_for
        changes = {
            "rate": self.rate * factor,
            "steps": max(1, int(self.steps // factor)),
            "falls_at": tuple(int(step // factor) for step in self.falls_at),
            "scaled_for": samples,
        }
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    @property
    def freezes_norms(self) -> bool:
        """See `frozen_norms`."""
        return self.batch_size < _LEAST_FOR_NORMS if self.frozen_norms is None else self.frozen_norms

    def losses(self, *, has_unnamed: bool) -> LossSettings:
        """The settings of the losses; `has_unnamed`: some objects have no stated class."""
        return LossSettings(
            class_loss=self.class_loss,
            negatives_per_positive=self.negatives_per_positive,
            lone_negatives=self.lone_negatives,
            max_masks=self.max_masks,
            class_prior=_NAMELESS_PRIOR if has_unnamed else (),
        )

    def rate_of(self, *, encoder: bool) -> Rate:
        """The rate of the encoder or of the rest, over the steps."""
        base = self.rate * (self.encoder_factor if encoder else 1.0)
        if not self.falls_at:
            least = self.least_rate * base / self.rate
            return PolynomialRate(base, least, self.steps, warm_up=min(1.0, self.warm_up / self.steps))
        return WarmedUp(SteppedRate(base, self.falls_at), base / 10, self.warm_up)


_LITE = YolactRecipe(
    model="yolact-lite", steps=20_000, batch_size=8, optimiser="adamw", clip_norm=20.0, average_decay=0.998, sizes=(224, 256, 288, 320), warm_up=120,
    encoder_factor=0.3, weight_decay=0.02, decays_all=False, scaled_for=0, frozen_blocks=3, save_every=200, picture_every=200,
)  # fmt: skip
"""Ours: a schedule that a laptop's processor can follow."""


def recipe_of(model: str) -> YolactRecipe:
    """The recipe of a configuration: 54 epochs of COCO (Pascal: 120,000 steps), SGD, batches of 8."""
    if model == "yolact-lite":
        return _LITE
    is_pascal = model == "yolact-pascal"
    return YolactRecipe(
        model=model,
        steps=120_000 if is_pascal else 800_000,
        falls_at=(60_000, 100_000) if is_pascal else (280_000, 600_000, 700_000, 750_000),
        batch_size=8,
        optimiser="sgd",
        max_masks=300 if model == "yolact-im700" else 100,
        save_every=10_000,
    )
