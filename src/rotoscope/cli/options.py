"""Commands whose options are the fields of a dataclass: what was typed travels as one value."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

import typer

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
