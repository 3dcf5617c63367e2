"""The table of AOT and DeAOT variants, and what may be set about a pass."""

from dataclasses import dataclass
from typing import Literal

from rotoscope.nn.looks import LooksSettings

MAX_OBJECTS = 10
"""Objects that one ID bank can tell apart (AOT, section 4.1); more are followed in groups."""

Encoder = Literal["mobilenet-v2", "resnet-50", "resnet-101", "resnest-101", "swin-b", "efficientnet-lite0"]


@dataclass(frozen=True, slots=True)
class AotConfig:
    """One variant: its network, and how a pass remembers and sizes frames.

    Attributes:
        name: the registry's.
        encoder: of the picture.
        num_layers: of the transformer.
        gated: DeAOT's gated propagation rather than AOT's blocks.
        long_term_gap: every so many frames one is kept for long; None keeps the given ones only (official: 9999).
        long_term_frames: how many frames are kept for long at most, the given ones among them, which always stay; None for no limit (official). Which
            of the others stay: see `memory.LongTermMemory`.
        align_corners: frames of 16n + 1 pixels, whose corner cells lie on the corner pixels; otherwise 16n (Swin).
        long_edge: frames are shrunk until neither side is longer, in pixels (official: 1.3 * 800, rounded to 1040); None for no limit.
        short_edge: the same for the shorter side; None for no limit (official: 624 in multi-scale tests only).
        scale: a factor on the size thereafter.
        looks: a classifier of what the objects look like, learnt while tracking, that is heard beside the network (`nn.looks`); None officially.
        stray_share: parts of an object smaller than this share of its largest part are dropped (`ops.components.without_strays`); 0 for none, as
            officially.
        edge_radius: of the guided filter that moves outlines to the frame's edges (`ops.guided.follow_edges`); 0 for none, as officially.
        edge_smoothness: variance of Lab below which it sees no edge.
        lose_absent_highest_ids: reproduce an official bug: when a mask is given later in a clip, objects that have no pixel in that frame, and
            all of whose successors have none either, are lost for ever.
        compile: let torch.compile make the encoder, the layers and the decoder faster, at the price of minutes at the start.
        calibration: knots of `ops.confidence.scored`, for variants whose confidence was measured.
        precision: arithmetic of the network; bfloat16 is faster on a GPU and changes some outlines (see docs/aot.md).
    """

    name: str
    encoder: Encoder
    num_layers: int
    gated: bool
    long_term_gap: int | None = None
    long_term_frames: int | None = None
    align_corners: bool = True
    long_edge: int | None = 1040
    short_edge: int | None = None
    scale: float = 1.0
    looks: LooksSettings | None = None
    stray_share: float = 0.0
    edge_radius: int = 0
    edge_smoothness: float = 3e-4
    lose_absent_highest_ids: bool = False
    compile: bool = False
    calibration: tuple[float, ...] = ()
    precision: Literal["float32", "bfloat16"] = "float32"


_EVERY_FIFTH = 5
"""Official TEST_LONG_TERM_MEM_GAP of the L variants."""

_LITE_KNOTS = (0.0, 0.292, 0.585, 0.692, 0.701, 0.71, 0.775, 0.867, 0.903, 0.924, 1.0)
"""Of the mean probability times how much the network and the looks agree, from 40 synthetic clips of held-out images (975 masks).

Fitted on either half of the clips, the scores of the other half are off by 0.050 and 0.035 in the mean. Below 0.7, where hardly any mask was, a line
to 0 stands for the fit, so that what is less sure never looks alike.
"""

_TABLE = (
    AotConfig("aot-t", "mobilenet-v2", 1, gated=False),
    AotConfig("aot-s", "mobilenet-v2", 2, gated=False),
    AotConfig("aot-b", "mobilenet-v2", 3, gated=False),
    AotConfig("aot-l", "mobilenet-v2", 3, gated=False, long_term_gap=_EVERY_FIFTH),
    AotConfig("r50-aot-l", "resnet-50", 3, gated=False, long_term_gap=_EVERY_FIFTH),
    AotConfig("r101-aot-l", "resnet-101", 3, gated=False, long_term_gap=_EVERY_FIFTH),
    AotConfig("rs101-aot-l", "resnest-101", 3, gated=False, long_term_gap=_EVERY_FIFTH),
    AotConfig("swinb-aot-l", "swin-b", 3, gated=False, long_term_gap=_EVERY_FIFTH, align_corners=False),
    AotConfig("deaot-t", "mobilenet-v2", 1, gated=True),
    AotConfig("deaot-s", "mobilenet-v2", 2, gated=True),
    AotConfig("deaot-b", "mobilenet-v2", 3, gated=True),
    AotConfig("deaot-l", "mobilenet-v2", 3, gated=True, long_term_gap=_EVERY_FIFTH),
    AotConfig("r50-deaot-l", "resnet-50", 3, gated=True, long_term_gap=_EVERY_FIFTH),
    AotConfig("swinb-deaot-l", "swin-b", 3, gated=True, long_term_gap=_EVERY_FIFTH, align_corners=False),
    # Ours: DeAOT-T on a smaller encoder, for frames like its training's.
    AotConfig(
        "deaot-lite",
        "efficientnet-lite0",
        1,
        gated=True,
        long_term_gap=5,
        long_term_frames=8,
        long_edge=576,
        looks=LooksSettings(surroundings=8),
        stray_share=0.1,
        edge_radius=6,
        calibration=_LITE_KNOTS,
    ),
)

VARIANTS = {config.name: config for config in _TABLE}
"""What `build` knows, by registry name. B and L have the same weights' shapes and differ in `long_term_gap` alone."""
