"""What the commands show while they work: a bar on a terminal, nothing when piped."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def progress_bar(*, quiet: bool = False, shows: str | None = None) -> Iterator["Progress"]:
    """A progress bar on stderr with count, frames per second and time left; it draws nothing unless stderr is a terminal.

    Args:
        quiet: draw nothing there either.
        shows: the field of the tasks whose text stands in the place of the frames per second.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """Frames per second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} frames/s" if task.speed else "- frames/s")

    console = Console(file=sys.stderr)
    speed = Speed() if shows is None else TextColumn(f"{{task.fields[{shows}]}}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        yield progress


@contextmanager
def stop_on_interrupt() -> Iterator[list[int]]:
    """A list that gets an entry at Ctrl-C or SIGTERM, so that the frame at hand can be finished; a second Ctrl-C stops at once."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
