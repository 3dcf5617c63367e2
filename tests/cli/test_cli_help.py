"""What `--help` says of a command is a promise: it is stored, and changed on purpose only."""

import runpy
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent
SCRIPT = GOLDEN.parents[1] / "scripts" / "write_golden_help.py"


@pytest.mark.parametrize("name", ["correct"])
def test_the_help_is_the_golden_one(name: str) -> None:
    help_of = runpy.run_path(str(SCRIPT))["help_of"]
    assert help_of(name) == (GOLDEN / f"golden_help_{name}.txt").read_text(encoding="utf-8")
