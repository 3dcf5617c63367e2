"""The command line: `rotoscope COMMAND`. Exit codes: 0 done, 1 our fault, 2 usage or bad input, 130 interrupted."""

import logging
import os
import sys
from typing import Annotated

import typer

from rotoscope._version import __version__
from rotoscope.cli import correct, detect, doctor, evaluate, track, train, weights
from rotoscope.cli.corrections import CorrectCommand
from rotoscope.cli.marks import OrderedCommand
from rotoscope.errors import PropagationError, RotoscopeError, TrainingError

_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
"""Click's ClickException, from whichever click this Typer carries: recent ones have their own."""

OK, INTERNAL, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(name="rotoscope", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("track", cls=OrderedCommand)(track.track)
app.command("correct", cls=CorrectCommand)(correct.correct)
app.command("detect")(detect.detect)
app.command("train")(train.train)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)


def _show_version(value: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if value:
        typer.echo(f"rotoscope {__version__}")
        raise typer.Exit


@app.callback()
def rotoscope(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is going on; full traces of errors.")] = False,
) -> None:
    """Video object segmentation: one mask in, masks for every frame out."""
    del version
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(name)s: %(message)s")
    if verbose:
        os.environ["ROTOSCOPE_TRACE"] = "1"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code. A user's mistake gives one line on stderr, never a traceback."""
    try:
        result = app(arguments, standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        return _explain(error)
    return result if isinstance(result, int) else OK


def _explain(error: BaseException) -> int:
    """Say in one line what went wrong; the exit code."""
    if isinstance(error, _UsageProblem):
        error.show(sys.stderr)  # type: ignore[attr-defined] # the class is only known at run time
        return USAGE
    match error:
        case KeyboardInterrupt() | typer.Abort():
            return _say("interrupted", INTERRUPTED)
        case PropagationError() | TrainingError():
            return _say(f"error: {error}", INTERNAL)
        case RotoscopeError():
            return _say(f"error: {error}", USAGE)
        case BrokenPipeError():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has no reader: the exit must not complain
            return OK
    if os.environ.get("ROTOSCOPE_TRACE"):
        raise error
    return _say(f"internal error: {type(error).__name__}: {error}; run again with `rotoscope --verbose` and report what it says", INTERNAL)


def _say(line: str, code: int) -> int:
    typer.echo("rotoscope: " + " ".join(line.split()), err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
