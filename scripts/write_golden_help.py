"""Write the stored help of commands: every option with its help, as tests/cli compares them.

    python scripts/write_golden_help.py correct

The layout of a help page is Typer's and changes with it; what it says is ours.
"""

import sys
from pathlib import Path

import typer.main

from rotoscope.cli.__main__ import app

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "cli"


def help_of(name: str) -> str:
    """The description of a command, then a line for each argument and option."""
    command = typer.main.get_command(app).commands[name]
    lines = [" ".join(command.help.split()), ""]
    lines += [f"{', '.join(parameter.opts)}: {parameter.help}" for parameter in command.params]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        (GOLDEN / f"golden_help_{name}.txt").write_text(help_of(name), encoding="utf-8")
