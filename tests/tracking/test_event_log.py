import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from session_parts import blank_clip, open_session, picture_of

from rotoscope.errors import InputError, OutputError
from rotoscope.tracking.events import Event, EventLog, read_log
from rotoscope.tracking.history import History


def filled(path: Path, count: int) -> list[Event]:
    log = EventLog(path)
    events = [log.append("object", {"object_id": n, "name": f"ö {n}", "colour": [n, 0, 0]}) for n in range(1, count + 1)]
    log.close()
    return events


def test_events_come_back_in_order_and_as_they_were(tmp_path: Path) -> None:
    events = filled(tmp_path / "log.sqlite", 5)
    log = EventLog(tmp_path / "log.sqlite")
    assert log.events == events
    assert log.append("undo", {}).number == 6
    log.close()
    assert len(read_log(tmp_path / "log.sqlite")[0]) == 6
    assert log.warnings == []


def test_an_event_is_stored_when_append_returns_though_nobody_closes(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.sqlite")
    log.append("undo", {})
    assert read_log(tmp_path / "log.sqlite") == ([Event(1, "undo", {})], None)
    log.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET body = '{}' WHERE number = 4",
        "UPDATE events SET number = 40 WHERE number = 4",
        "DELETE FROM events WHERE number = 4",
        "UPDATE events SET kind = 'undo' WHERE number = 4",
        "UPDATE events SET digest = x'00' WHERE number = 4",
        "UPDATE events SET body = CAST(x'ff' AS TEXT) WHERE number = 4",
        "UPDATE events SET kind = x'00ff' WHERE number = 4",
    ],
)
def test_a_log_that_was_changed_is_cut_at_its_last_good_event_and_says_so(tmp_path: Path, change: str) -> None:
    path = tmp_path / "log.sqlite"
    events = filled(path, 6)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(change)
    (tmp_path / "log.copy.sqlite").unlink()
    log = EventLog(path)
    assert log.events == events[:3]
    (warning,) = log.warnings
    assert "last good event, number 3" in warning
    assert "log.damaged-1.sqlite" in warning
    log.append("undo", {})
    log.close()
    assert [len(EventLog(path).events), (tmp_path / "log.damaged-1.sqlite").is_file()] == [4, True]


def test_the_copy_from_the_last_opening_helps_when_it_holds_more(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    events = filled(path, 6)
    EventLog(path).close()  # copies all six
    for damage in ("header", "gone"):
        if damage == "header":
            path.write_bytes(b"x" * 5000)
        else:
            path.unlink()
        log = EventLog(path)
        assert log.events == events
        assert len(log.warnings) == 1
        log.close()


def test_flipped_bytes_never_change_an_event_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    events = filled(path, 60)
    original, chance = path.read_bytes(), random.Random(0)
    for _ in range(60):
        content = bytearray(original)
        for _ in range(4):
            content[chance.randrange(100, len(content))] ^= chance.randrange(1, 256)
        path.write_bytes(content)
        found, fault = read_log(path)
        assert found == events[: len(found)]
        assert fault is not None or found == events


def test_a_newer_rotoscopes_log_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path / "log.sqlite", 1)
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as database:
        database.execute("PRAGMA user_version=7")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match="newer Rotoscope"):
        EventLog(tmp_path / "log.sqlite")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_of_somebody_else_is_set_aside_and_kept(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as database, database:
        database.execute("CREATE TABLE recipes (name)")
    log = EventLog(tmp_path / "log.sqlite")
    log.close()
    assert log.events == []
    assert (tmp_path / "log.damaged-1.sqlite").is_file()


def test_an_empty_file_is_a_fresh_log(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"")
    log = EventLog(tmp_path / "log.sqlite")
    log.close()
    assert (log.events, log.warnings) == ([], [])


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.sqlite")
    log._database.execute("PRAGMA query_only=1")
    with pytest.raises(OutputError):
        log.append("undo", {})
    log._database.execute("PRAGMA query_only=0")
    assert log.append("undo", {}).number == 1
    log.close()
    with pytest.raises(OutputError, match="could not be written"):
        EventLog(tmp_path / "no such folder" / "log.sqlite")


@pytest.mark.parametrize(
    ("kind", "body"),
    [("undo", {}), ("nonsense", {}), ("remove", {"object_id": 4}), ("draw", {"frame": 1}), ("accept", {"frame": 0}), ("object", {"colour": 3})],
)
def test_an_event_that_makes_no_sense_is_refused_and_changes_nothing(kind: str, body: dict[str, object]) -> None:
    history = History()
    with pytest.raises(InputError, match="event 1"):
        history.apply(Event(1, kind, body))
    assert (repr(history.present), history.steps, history.undoable) == (repr(History().present), 0, None)


def test_a_project_with_a_damaged_log_opens_at_its_last_good_step(tmp_path: Path) -> None:
    pictures = []
    with open_session(project=tmp_path / "p") as session:
        for number in range(4):
            session.add_box(number, 1, [number, 2, number + 9, 9])
            pictures.append(picture_of(session))
    log = tmp_path / "p" / "events.sqlite"
    with closing(sqlite3.connect(log)) as database, database:
        database.execute("UPDATE events SET body = replace(body, 'frame', 'fram3') WHERE number = 4")
    with open_session(project=tmp_path / "p") as session:
        assert picture_of(session) == pictures[1]  # event 1 is the clip, 2 and 3 the first two boxes
        assert "last good event, number 3" in session.warnings[0]
        session.add_box(8, 1, [1, 2, 9, 9])
    with open_session(project=tmp_path / "p") as session:
        assert session.given_frames == [0, 1, 8]
        assert session.warnings == []


def test_a_log_that_makes_no_sense_is_cut_before_the_nonsense(tmp_path: Path) -> None:
    with open_session(project=tmp_path / "p") as session:
        session.add_object()
        session._project._log.append("remove", {"object_id": 77})
        session._project._log.append("object", {"object_id": 5, "name": "", "colour": [0, 0, 0]})
    with open_session(project=tmp_path / "p", frames=blank_clip()) as session:
        assert [info.object_id for info in session.objects] == [1]
        assert "makes no sense" in session.warnings[0]
        session.add_object()
    with open_session(project=tmp_path / "p") as session:
        assert len(session.objects) == 2
