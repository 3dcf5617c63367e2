"""Video object segmentation: one mask in, masks for every frame out.

Example:
    >>> import rotoscope
    >>> [spec.name for spec in rotoscope.list_models()][:3]
    ['mast-lite', 'mast', 'rgmp']

`import rotoscope` is quick: a name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

from rotoscope._version import __version__

if TYPE_CHECKING:
    from rotoscope.errors import (
        CheckpointError,
        InputError,
        MaskError,
        MemoryBudgetError,
        MissingExtraError,
        OutputError,
        PropagationError,
        RotoscopeError,
        TrainingError,
        VideoError,
    )
    from rotoscope.jobs.detect import DetectResult, detect
    from rotoscope.jobs.discover import discover
    from rotoscope.jobs.track import TrackResult, track
    from rotoscope.models.registry import list_models, load, load_detector
    from rotoscope.tracking.discover import Discovered
    from rotoscope.tracking.interactive import InteractiveSession
    from rotoscope.tracking.propagate import propagate
    from rotoscope.types import Detections, Frame, Masks, Propagator, Tracker
    from rotoscope.video.masks import read_labels
    from rotoscope.video.read import read_video
    from rotoscope.video.write import write_labels

_HOMES = {
    "rotoscope.errors": (
        "CheckpointError",
        "InputError",
        "MaskError",
        "MemoryBudgetError",
        "MissingExtraError",
        "OutputError",
        "PropagationError",
        "RotoscopeError",
        "TrainingError",
        "VideoError",
    ),
    "rotoscope.jobs.detect": ("DetectResult", "detect"),
    "rotoscope.jobs.discover": ("discover",),
    "rotoscope.jobs.track": ("TrackResult", "track"),
    "rotoscope.models.registry": ("list_models", "load", "load_detector"),
    "rotoscope.tracking.discover": ("Discovered",),
    "rotoscope.tracking.interactive": ("InteractiveSession",),
    "rotoscope.tracking.propagate": ("propagate",),
    "rotoscope.types": ("Detections", "Frame", "Masks", "Propagator", "Tracker"),
    "rotoscope.video.masks": ("read_labels",),
    "rotoscope.video.read": ("read_video",),
    "rotoscope.video.write": ("write_labels",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CheckpointError",
    "DetectResult",
    "Detections",
    "Discovered",
    "Frame",
    "InputError",
    "InteractiveSession",
    "MaskError",
    "Masks",
    "MemoryBudgetError",
    "MissingExtraError",
    "OutputError",
    "PropagationError",
    "Propagator",
    "RotoscopeError",
    "TrackResult",
    "Tracker",
    "TrainingError",
    "VideoError",
    "__version__",
    "detect",
    "discover",
    "list_models",
    "load",
    "load_detector",
    "propagate",
    "read_labels",
    "read_video",
    "track",
    "write_labels",
]


def __getattr__(name: str) -> object:
    """The public name, imported on first use (PEP 562)."""
    if name not in _HOME_OF:
        message = f"module 'rotoscope' has no attribute '{name}'"
        raise AttributeError(message)
    value: object = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
