"""What every output folder of a run has: a lock, the plan of what is being done, and records that grow by a line at a time.

All of it lies in OUT/.rotoscope/.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import filelock

from rotoscope._files import output_error, write_atomically
from rotoscope.errors import InputError, OutputError
from rotoscope.video.write import prepare_folder

Existing = Literal["refuse", "resume", "overwrite"]
"""What to do when the output folder holds a run."""


def plan_path(root: Path) -> Path:
    """Where a run says what it does; a folder without it holds no run."""
    return root / ".rotoscope" / "plan.json"


class LockedFolder:
    """An output folder that one run at a time writes to.

    Args:
        root: the folder; it is made if need be.

    Attributes:
        root: the folder.
        private: where runs keep what is not for the user.

    Raises:
        OutputError: the folder is a file or not writable, or another run holds its lock.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private = root / ".rotoscope"
        prepare_folder(root)
        prepare_folder(self.private)
        self._plan = plan_path(root)
        self._lock = filelock.FileLock(self.private / "lock", timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout as error:
            message = f"another run is writing to {root}; wait for it, or choose another folder with -o"
            raise OutputError(message) from error

    def release(self) -> None:
        """Let other runs in."""
        self._lock.release()

    def resumes(self, plan: Mapping[str, Any], existing: Existing) -> bool:
        """Whether the run in the folder is to go on; otherwise its traces are to be removed, and then `begin` is to be called.

        Raises:
            OutputError: the folder holds a run, and `existing` is "refuse".
            InputError: the run was started with another plan; the message lists the differences.
        """
        if self._plan.is_file() and existing == "resume":
            _require_same(json.loads(self._plan.read_text(encoding="utf-8")), json.loads(json.dumps(plan)))
            return True
        if self._plan.is_file() and existing == "refuse":
            message = f"{self.root} holds a run already; use --resume to go on with it, --overwrite to replace it, or another folder with -o"
            raise OutputError(message)
        return False

    def begin(self, plan: Mapping[str, Any], stale: Iterable[Path] = ()) -> None:
        """Note the plan of a new run, once what is left of an older one is removed.

        Raises:
            OutputError: it cannot be written.
        """
        for path in stale:
            path.unlink(missing_ok=True)
        write_atomically(self._plan, json.dumps(plan, indent=1).encode())


class RecordLines:
    """A file of JSON values, one a line. A line that a crash cut short is no record, and does not spoil the next.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mended = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record to those on disk.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with self.path.open("a+b") as file:
                if not self._mended and file.tell() > 0:
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                self._mended = True
                file.write(json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise output_error(self.path, error) from error

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                yield record


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = [f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differences:
        message = "the run to resume was started with other settings: " + "; ".join(differences) + "; use the same, or --overwrite"
        raise InputError(message)
