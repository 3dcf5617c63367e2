import errno
from pathlib import Path

import pytest

from rotoscope._extras import require
from rotoscope._files import output_error, write_atomically, writing_atomically
from rotoscope.errors import MissingExtraError, OutputError


def test_a_file_is_replaced_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")
    write_atomically(path, b"new", durable=True)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_without_permission_is_called_not_writable() -> None:
    assert "not writable" in str(output_error(Path("x"), PermissionError(errno.EACCES, "denied")))


def test_an_optional_package_is_imported_or_its_extra_named() -> None:
    assert require("json", extra="jobs").dumps([1]) == "[1]"
    with pytest.raises(MissingExtraError, match=r"pip install 'rotoscope\[jobs\]'"):
        require("no_such_package", extra="jobs")


def test_a_file_written_piece_by_piece_takes_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with writing_atomically(path) as file:
        file.write("one ")
        assert not path.exists()
        file.write("two")
    assert path.read_text() == "one two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (ValueError("ours"), ValueError, "ours"),
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "disk is full"),
        (OutputError("another file"), OutputError, "another file"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_a_file_that_is_not_finished_is_dropped(tmp_path: Path, raised: BaseException, expected: type[BaseException], message: str) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def break_off() -> None:
        with writing_atomically(path) as file:
            file.write("half")
            raise raised

    with pytest.raises(expected, match=message):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
