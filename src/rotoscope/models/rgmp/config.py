"""The table of RGMP variants, and what may be set about a pass."""

from dataclasses import dataclass
from typing import Literal

from rotoscope.errors import InputError
from rotoscope.ops.aggregate import Aggregation

_LARGEST_SCALE = 4.0
"""Above this a frame of 480p has 6 million pixels, and a pass needs tens of gigabytes."""


@dataclass(frozen=True, slots=True)
class RgmpConfig:
    """One variant: its network, and how a pass looks at frames; the defaults are the official test settings.

    Attributes:
        name: the registry's.
        encoder: of the picture with its mask.
        width: channels of the decoder.
        scales: sizes at which each frame is seen, relative to its own; the probabilities are averaged. `(1.0,)` is the fast mode.
        align_corners: how the decoder enlarges maps. The released weights were trained with True (PyTorch 0.3.1); a newer PyTorch runs the official
            code with False, which changes 7 to 16 % of the pixels.
        always_pad: add rows and columns up to the next multiple of 32 even where the frame is one already, as officially.
        aggregation: how the guesses of several objects become one; see `ops.aggregate.aggregate`.
        passes_at_once: how many objects (the merged foreground is one more) go through the network together: memory against speed.

    Raises:
        InputError: no scales, or one out of range, or no passes at once.
    """

    name: str
    encoder: Literal["resnet-50", "efficientnet-lite0"] = "resnet-50"
    width: int = 256
    scales: tuple[float, ...] = (0.5, 0.75, 1.0)
    align_corners: bool = True
    always_pad: bool = True
    aggregation: Aggregation = "softmax"
    passes_at_once: int = 4

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= _LARGEST_SCALE for scale in self.scales):
            message = f"scales {list(self.scales)} cannot be used; give one or more above 0 and up to {_LARGEST_SCALE:g}, such as 0.5, 0.75 and 1"
            raise InputError(message)
        if self.passes_at_once < 1:
            message = f"{self.passes_at_once} passes at once lead nowhere; give 1 or more"
            raise InputError(message)


VARIANTS = {
    "rgmp": RgmpConfig("rgmp"),
    "rgmp-lite": RgmpConfig("rgmp-lite", encoder="efficientnet-lite0", width=128),  # ours
}
"""What `build` knows, by registry name."""
