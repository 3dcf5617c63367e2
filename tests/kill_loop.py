"""Work on a project in a process that is killed at random moments, again and again, and look each time whether anything finished was lost.

    python tests/kill_loop.py FOLDER KILLS SEED

The parent forks a child that opens the project and works: strokes, propagations, undo, redo, changes of objects. After each step the child tells
through a pipe how many events there are and what state they lead to. The parent kills it with SIGKILL, mostly a random time after it opened the
project and sometimes before, and looks: the events up to the last one told must lead to exactly what was told, and every mask must be sound.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from session_parts import HW, NUM_FRAMES, open_session

from rotoscope.errors import InputError
from rotoscope.tracking.events import read_log
from rotoscope.tracking.history import History
from rotoscope.tracking.interactive import InteractiveSession

LONGEST_LIFE_SECONDS = 0.15


def work(folder: Path, seed: int, tell: Callable[[bytes], object]) -> None:
    """Steps without end."""
    chance = random.Random(seed)
    with open_session(project=folder) as session:
        tell(b"open\n")
        while True:
            with suppress(InputError):
                step(session, chance)
            tell(f"{session._project._log._count} {digest_of(repr(session._project.state))}\n".encode())


def step(session: InteractiveSession, chance: random.Random) -> None:
    """One random thing to do."""
    frame, object_id, x, y = chance.randrange(NUM_FRAMES), chance.randint(1, 4), chance.randrange(HW[1] - 10), chance.randrange(HW[0] - 10)

    def propagate() -> None:
        last = chance.randint(1, 20)
        for reached in session.propagate():
            if reached.done == last:
                return

    chance.choice(
        [
            lambda: session.add_box(frame, object_id, [x, y, x + 9, y + 8]),
            lambda: session.add_points(frame, object_id, [[x, y]]),
            lambda: session.erase(frame, [[float(x), float(y)]]),
            propagate,
            session.undo,
            session.undo,
            session.redo,
            lambda: session.rename_object(object_id, f"{x}"),
            lambda: session.remove_object(object_id) if chance.random() < 0.1 else session.add_object(),
        ]
    )()


def digest_of(text: str) -> str:
    """A short stand-in for a long text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_and_kill(folder: Path, seed: int, life_seconds: float, *, opened: bool) -> list[str]:
    """Let a child work and kill it so long after its start, or after it opened the project; what it told of its steps, line by line."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(folder, seed, lambda line: os.write(writer, line))
        except BaseException as error:
            os.write(writer, f"failed {error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(writer)
    head = os.read(reader, 5) if opened else b""
    time.sleep(life_seconds)
    os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as lines:
        told = (head + lines.read()).decode().splitlines()
    os.waitpid(child, 0)
    return [line for line in told if line != "open"]


def lost(folder: Path, told: list[str]) -> str | None:
    """What is wrong with a project after a kill; None if nothing is."""
    if any(line.startswith("failed") for line in told):
        return told[-1]
    events, fault = read_log(folder / "events.sqlite")
    if fault is not None:
        return fault
    count, digest = told[-1].split() if told else ("0", digest_of(repr(History().present)))
    history = History()
    for event in events[: int(count)]:
        history.apply(event)
    if len(events) < int(count) or digest_of(repr(history.present)) != digest:
        return f"{len(events)} events are there, {count} were told, or they lead elsewhere"
    with open_session(project=folder) as session:
        if session.warnings:
            return session.warnings[0]
        for index in range(NUM_FRAMES):
            session.masks(index)
    return None


def main(folder: Path, kills: int, seed: int) -> None:
    """Print, as JSON, how many kills there were, how many steps were finished, and what was lost."""
    torch.set_num_threads(1)
    chance = random.Random(seed)
    steps, idle, losses = 0, 0, []
    for number in range(kills):
        told = run_and_kill(folder, seed + number, chance.uniform(0, LONGEST_LIFE_SECONDS), opened=chance.random() < 0.8)
        steps += len(told)
        idle += not told
        if (loss := lost(folder, told)) is not None:
            losses.append(loss)
    sys.stdout.write(
        json.dumps({"kills": kills, "steps": steps, "idle": idle, "events": len(read_log(folder / "events.sqlite")[0]), "losses": losses})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
