"""What was done to a project, in order: an append-only log in SQLite that survives crashes, notices damage, and knows its version."""

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotoscope._files import output_error
from rotoscope.errors import InputError, OutputError

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Raised with every change that an older Rotoscope could not read."""

_APPLICATION_ID = 0x526F746F  # "Roto" in the file's header, where `file` and this module look for it
_SIDE_FILES = ("", "-wal", "-shm")  # what SQLite keeps beside a database that is written ahead


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done.

    Attributes:
        number: from 1, without gaps.
        kind: what it was.
        body: JSON values that say the rest.
    """

    number: int
    kind: str
    body: Mapping[str, Any]


class EventLog:
    """The events of a project. What `append` has stored stays, whatever happens to the process afterwards.

    A log that is damaged is recovered up to its last good event, or that of the copy made when the project was opened last, whichever is later. The
    damaged file is kept beside it, and `warnings` says so. Each event carries a digest of all events up to it.

    Args:
        path: the database; made if there is none.
        durable: wait for the disk at each event, so that it survives a power cut too.

    Attributes:
        events: all of them when the log was opened.
        warnings: what was damaged, one line each.

    Raises:
        InputError: a newer Rotoscope made the log.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._durable = durable
        self._copy = path.with_name(f"{path.stem}.copy{path.suffix}")
        self.events = self._recovered()
        self._digest = _digest_of(self.events)
        self._count = len(self.events)
        self._open()

    def append(self, kind: str, body: Mapping[str, Any]) -> Event:
        """Add an event; when this returns, it is stored.

        Raises:
            OutputError: it cannot be written; the log is as it was.
        """
        text = json.dumps(body, separators=(",", ":"))
        digest = _chained(self._digest, self._count + 1, kind, text)
        try:
            self._database.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (self._count + 1, kind, text, digest))
        except sqlite3.Error as error:
            raise _cannot_write(self.path, error) from error
        self._count, self._digest = self._count + 1, digest
        return Event(self._count, kind, body)

    def cut_after(self, number: int, reason: str) -> None:
        """Set the log aside and go on with one that ends at an event: what comes after it makes no sense.

        Raises:
            OutputError: it cannot be written.
        """
        self._database.close()
        self.events = self.events[:number]
        self._replace(reason)
        self._digest, self._count = _digest_of(self.events), number
        self._open()

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._database.close()

    def _open(self) -> None:
        try:
            self._database = _connect(self.path, durable=self._durable)
        except sqlite3.Error as error:
            raise _cannot_write(self.path, error) from error
        self._copy_over()

    def _copy_over(self) -> None:
        """Keep a copy of a log that was just read and found good."""
        fresh = self._copy.with_name(f"{self._copy.name}.partial")
        try:
            fresh.unlink(missing_ok=True)
            with closing(sqlite3.connect(fresh)) as copy:
                self._database.backup(copy)
            fresh.replace(self._copy)
        except (OSError, sqlite3.Error) as error:  # the copy is a second line of defence: the project works without it
            logger.warning("%s could not be copied to %s: %s", self.path, self._copy, error)

    def _recovered(self) -> list[Event]:
        """The events on disk, the log made whole again if it was damaged."""
        events, fault = read_log(self.path)
        if fault is None and (events or not self._copy.is_file()):
            return events
        spare, _ = read_log(self._copy)
        if fault is None and not spare:
            return events
        self.events = max(events, spare, key=len)
        self._replace(fault or "it is missing")
        return self.events

    def _replace(self, reason: str) -> None:
        """Put a log with the events that are known in the place of the one on disk."""
        fresh = self.path.with_name(f"{self.path.name}.partial")
        try:
            _remove(fresh)
            with closing(_connect(fresh, durable=self._durable)) as database:
                database.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", _rows_of(self.events))
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            aside = _set_aside(self.path)
            fresh.replace(self.path)
            _remove(fresh)
        except (OSError, sqlite3.Error) as error:
            raise _cannot_write(self.path, error) from error
        kept = f"; the damaged file is kept as {aside}" if aside else ""
        self.warnings.append(
            f"the log {self.path} was damaged ({reason}); the project is back at its last good event, number {len(self.events)}{kept}"
        )
        logger.warning(self.warnings[-1])


def read_log(path: Path) -> tuple[list[Event], str | None]:
    """The good events at the start of a log, and what is wrong after them; None if nothing is. No file gives no events.

    Raises:
        InputError: a newer Rotoscope made it.
    """
    events: list[Event] = []
    if not path.is_file():
        return events, None
    try:
        with closing(sqlite3.connect(path)) as database:
            if not _is_ours(database, path):
                (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return events, "it is not a log of Rotoscope" if tables else None  # a crash just after it was made leaves it empty
            digest = b""
            for number, kind, text, stated in database.execute("SELECT number, kind, body, digest FROM events ORDER BY number"):
                if number != len(events) + 1 or _chained(digest, number, kind, text) != stated:
                    return events, f"event {len(events) + 1} does not fit its digest"
                events.append(Event(number, kind, json.loads(text)))
                digest = stated
    except InputError:
        raise
    except (sqlite3.Error, ValueError, TypeError, AttributeError, OverflowError) as error:  # damaged bytes come out as any type
        return events, str(error)
    return events, None


def _is_ours(database: sqlite3.Connection, path: Path) -> bool:
    (application,), (version,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
    if application == _APPLICATION_ID and version > SCHEMA_VERSION:
        message = f"{path} was made by a newer Rotoscope (version {version} of its form; this one reads up to {SCHEMA_VERSION}); update Rotoscope"
        raise InputError(message)
    return bool(application == _APPLICATION_ID)


def _connect(path: Path, *, durable: bool) -> sqlite3.Connection:
    """A connection with a table of events; each statement is a transaction."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
    tables = "CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT NULL, digest BLOB NOT NULL)"
    if database.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        database.executescript(f"BEGIN; PRAGMA application_id={_APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION}; {tables}; COMMIT;")
    return database


def _rows_of(events: Iterable[Event]) -> list[tuple[int, str, str, bytes]]:
    rows, digest = [], b""
    for event in events:
        text = json.dumps(event.body, separators=(",", ":"))
        digest = _chained(digest, event.number, event.kind, text)
        rows.append((event.number, event.kind, text, digest))
    return rows


def _digest_of(events: Iterable[Event]) -> bytes:
    rows = _rows_of(events)
    return rows[-1][3] if rows else b""


def _chained(digest: bytes, number: int, kind: str, text: str) -> bytes:
    return hashlib.sha256(digest + f"\n{number}\n{kind}\n{text}".encode()).digest()


def _set_aside(path: Path) -> Path | None:
    """Rename a database, so that its place is free; None if there is none."""
    if not path.is_file():
        _remove(path)
        return None
    number = 1
    while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
        number += 1
    for suffix in _SIDE_FILES:
        source = path.with_name(path.name + suffix)
        if source.is_file():
            source.replace(aside.with_name(aside.name + suffix))
    return aside


def _remove(path: Path) -> None:
    for suffix in _SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _cannot_write(path: Path, error: Exception) -> OutputError:
    if isinstance(error, OSError):
        return output_error(path, error)
    if "full" in str(error):
        return OutputError(
            f"the disk is full: {path} could not be written; this step was not done and nothing is lost. Free some space and try again"
        )
    if "readonly" in str(error) or (path.parent.is_dir() and not os.access(path.parent, os.W_OK)):
        return OutputError(f"{path} is not writable; check the permissions of {path.parent}")
    return OutputError(f"{path} could not be written: {error}")
