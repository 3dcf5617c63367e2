"""Every error that Rotoscope raises on purpose.

    RotoscopeError
    ├── InputError (ValueError)          what the caller gave does not fit
    │   ├── VideoError                   a file, folder or stream that cannot be read as frames
    │   └── MaskError                    a mask that does not fit its frame, or holds no object
    ├── CheckpointError (ValueError)     weights that are unreadable, unsafe, incomplete or of another model
    ├── MemoryBudgetError (ValueError)   the frames that must stay need more than the stated budget
    ├── OutputError (OSError)            results that cannot be written: folder, lock, full disk
    ├── MissingExtraError (ImportError)  an optional dependency that is not installed
    ├── PropagationError (RuntimeError)  a pass over a clip that cannot go on
    └── TrainingError (RuntimeError)     a training that cannot go on

Each message says what was got, what is accepted and what to do. The command line prints it as one line and exits with 2
(`PropagationError`, `TrainingError`: 1).
"""


class RotoscopeError(Exception):
    """The root of the tree: catch it to catch everything Rotoscope raises on purpose."""


class InputError(RotoscopeError, ValueError):
    """An argument, file or frame that does not fit what was asked."""


class VideoError(InputError):
    """A file, folder or stream that cannot be read as frames."""


class MaskError(InputError):
    """A mask that does not fit its frame, or that holds no object."""


class CheckpointError(RotoscopeError, ValueError):
    """Weights that are unreadable, unsafe to load, incomplete, or of another model."""


class MemoryBudgetError(RotoscopeError, ValueError):
    """The frames that must stay in memory need more than the stated budget."""


class OutputError(RotoscopeError, OSError):
    """Results that cannot be written: not a folder, not writable, locked by another run, or the disk is full."""


class MissingExtraError(RotoscopeError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


class PropagationError(RotoscopeError, RuntimeError):
    """A pass over a clip that cannot go on: called out of order, or the network gave numbers that are not finite."""


class TrainingError(RotoscopeError, RuntimeError):
    """A training that cannot go on: numbers that are not finite, or more memory needed than the device has."""
