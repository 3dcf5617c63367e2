"""How commands print a table of figures."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

PIPED_WIDTH = 120
"""Columns of the table where there is no terminal: wide enough for every figure."""


def print_table(table: "Table") -> None:
    """Print a table on stdout, as wide as the terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)
