"""Commands whose options are the fields of a dataclass: what was typed travels as one value; and readings of options that several have."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.jobs.locked import Existing

Command = Callable[[Any, typer.Context], int]


def takes(options: type) -> Callable[[Command], Callable[..., int]]:
    """Make a command of a function of filled-in options and the context.

    Args:
        options: a dataclass; each field is annotated as Typer wants a parameter, `Annotated[type, typer.Option(...)]`.
    """

    def decorate(command: Command) -> Callable[..., int]:
        def called(context: typer.Context, **values: Any) -> int:
            return command(options(**values), context)

        hints = get_type_hints(options, include_extras=True)
        typed = [(one.name, inspect.Parameter.empty if one.default is MISSING else one.default, hints[one.name]) for one in fields(options)]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint) for name, default, hint in typed]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined] # functions may have one
        called.__annotations__ = {"context": typer.Context, **hints}
        return called

    return decorate


def existing_of(*, resume: bool, overwrite: bool) -> "Existing":
    """What --resume and --overwrite say is to be done with a run in the output folder.

    Raises:
        InputError: both are given.
    """
    if resume and overwrite:
        message = "--resume and --overwrite exclude each other"
        raise InputError(message)
    if resume:
        return "resume"
    return "overwrite" if overwrite else "refuse"


def video_or_camera(text: str) -> str | int:
    """A path or an address as it is; a number that is no file's name is a camera's."""
    return int(text) if text.isdecimal() and not Path(text).exists() else text
