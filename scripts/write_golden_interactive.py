"""Write tests/evaluation/golden_interactive.json anew, after a change that is meant to change it: `python scripts/write_golden_interactive.py`."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

from interactive_play import GOLDEN_RULES, golden_samples, rounded  # noqa: E402 - after the path to it

from rotoscope.evaluation.interactive_report import as_dict  # noqa: E402 - likewise

with TemporaryDirectory() as folder:
    figures = rounded(as_dict(golden_samples(Path(folder)), GOLDEN_RULES))
(TESTS / "evaluation" / "golden_interactive.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
