"""Optional dependencies: import one, or say which extra installs it."""

import importlib
from types import ModuleType

from rotoscope.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """The imported optional module.

    Raises:
        MissingExtraError: it is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"this needs the package '{module}', which is not installed; run: pip install 'rotoscope[{extra}]'"
        raise MissingExtraError(message) from error
