"""Records that grow by a line at a time."""

from pathlib import Path

import pytest

from rotoscope.errors import OutputError
from rotoscope.jobs.locked import RecordLines


def test_a_line_that_was_cut_short_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = RecordLines(path)
    assert list(lines) == []
    lines.append({"number": 1})
    lines.append({"number": 2})
    path.write_bytes(path.read_bytes()[:-3])
    RecordLines(path).append({"number": 3})
    assert list(RecordLines(path)) == [{"number": 1}, {"number": 3}]


def test_records_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        RecordLines(tmp_path / "missing" / "records.jsonl").append({})
