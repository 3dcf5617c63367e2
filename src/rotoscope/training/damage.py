"""How much of a training set may be unreadable: a few files are left out and named, more stop the training."""

import logging
import threading

from rotoscope.datasets.davis import abridged
from rotoscope.errors import InputError

logger = logging.getLogger(__name__)

MAX_DAMAGED_SHARE = 0.01
"""More than this is a damaged set, not a bad day."""


class DamagedFrames:
    """The frames of a set that turned out to be unreadable while it was trained on, over all threads.

    Args:
        num_frames: of the whole set.
    """

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        self._names: set[str] = set()
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Those met so far, in order."""
        return tuple(sorted(self._names))

    def add(self, name: str, error: InputError) -> None:
        """Count a frame, once.

        Raises:
            InputError: more than 1 % of the set are damaged; the message names the first.
        """
        with self._lock:
            if name not in self._names:
                self._names.add(name)
                logger.warning("frame left out (%d of %d so far): %s", len(self._names), self._num_frames, error)
            if len(self._names) > MAX_DAMAGED_SHARE * self._num_frames:
                counted = f"{len(self._names)} of {self._num_frames} frames are damaged, more than {MAX_DAMAGED_SHARE:.0%}"
                message = f"{counted}: {abridged(self.names)} ({error}). Replace them, or remove their clips"
                raise InputError(message) from error
