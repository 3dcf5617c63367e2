import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def test_nothing_finished_is_lost_however_often_the_process_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])}
    command = [sys.executable, str(TESTS / "kill_loop.py"), str(tmp_path / "project"), "15", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=environment)
    report = json.loads(done.stdout)
    assert report["losses"] == []
    assert report["kills"] == 15
    assert report["steps"] > 8  # the children did work
    assert report["idle"] < 13
