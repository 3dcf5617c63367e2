"""What a person marks on the command line: --click, --box and --scribbles, of the objects and on the frames that --object and --frame name."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from typer.core import TyperCommand

from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.types import Box, Clicks, Interaction

ARGUMENTS = "rotoscope.arguments"
"""Where a command keeps its arguments in their order, in the `meta` of its context."""
_MARKS = ("--click", "--box", "--scribbles")


class OrderedCommand(TyperCommand):
    """A command that remembers its arguments as they were typed: which --object a --click belongs to is a matter of their order."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the arguments, and go on as usual."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


class Mark(NamedTuple):
    """A mark as it was typed.

    Attributes:
        option: such as "--click".
        text: its value.
        object_id, frame_index: of the object and the frame it belongs to.
    """

    option: str
    text: str
    object_id: int
    frame_index: int


def marks_in(arguments: Sequence[str]) -> list[Mark]:
    """The marks among the arguments of a command, in their order.

    --object and --frame hold for the marks after them; one that is given once, behind all marks, holds for all. Without them it is object 1
    and frame 0.

    Raises:
        InputError: an object or a frame that is no number, or out of range.
    """
    held = held_settings(arguments, _MARKS, {"--object": "1", "--frame": "0"})
    return [Mark(one, text, whole("--object", now["--object"], least=1), whole("--frame", now["--frame"], least=0)) for one, text, now in held]


def held_settings(arguments: Sequence[str], marks: Collection[str], defaults: Mapping[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    """The marks among the arguments, in their order, each with its text and what the settings are for it.

    A setting holds for the marks after it; one that is given once, behind all marks, holds for all.

    Args:
        arguments: of the command, as typed.
        marks: the options that are marks.
        defaults: the options that are settings, with what holds where they are not given.
    """
    pairs = _pairs(arguments, {*marks, *defaults})
    last_mark = max((place for place, (option, _) in enumerate(pairs) if option in marks), default=-1)
    behind = {option: text for place, (option, text) in enumerate(pairs) if place > last_mark}
    once = {option for option in defaults if [name for name, _ in pairs].count(option) == 1}
    now = {option: behind[option] if option in once & behind.keys() else default for option, default in defaults.items()}
    found = []
    for option, text in pairs:
        if option in defaults:
            now[option] = text
        else:
            found.append((option, text, dict(now)))
    return found


def interactions_of(marks: Sequence[Mark], video: str | int) -> "tuple[Interaction, ...]":
    """The marks as interactions, in their order.

    Raises:
        InputError: a mark that is not of its form, empty, not finite, outside the frame, or at odds with another one; a file that cannot be read.
    """
    found: list[Interaction] = []
    for mark in marks:
        if mark.option == "--scribbles":
            found += _scribbles(mark, video)
        else:
            found.append(click_of(mark) if mark.option == "--click" else box_of(mark))
    _refuse_contradictions(found)
    return tuple(found)


def _pairs(arguments: Sequence[str], options: Collection[str]) -> list[tuple[str, str]]:
    """The options that matter here, with their values; the parser has seen to it that each has one."""
    pairs = []
    for index, argument in enumerate(arguments):
        option, equals, text = argument.partition("=")
        if option in options:
            pairs.append((option, text if equals else arguments[index + 1]))
    return pairs


def whole(option: str, text: str, *, least: int) -> int:
    """The number that was typed behind an option.

    Raises:
        InputError: it is no whole number, or less than the least.
    """
    if not text.strip().isdecimal() or int(text) < least:
        message = f"'{option} {text}': give a whole number from {least} on"
        raise InputError(message)
    return int(text)


def numbers(option: str, text: str, counts: Collection[int], form: str) -> list[float]:
    """The numbers that were typed behind an option, with commas between them.

    Raises:
        InputError: something else, not as many as one of the counts, or not finite; the message gives the form.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in counts or not all(map(math.isfinite, found)):
        message = f"'{option} {text}': write {form}"
        raise InputError(message)
    return found


def click_of(mark: Mark) -> "Clicks":
    """A --click as an interaction.

    Raises:
        InputError: it is not of its form.
    """
    import torch

    from rotoscope.types import Clicks

    form = "x,y or x,y,1 for a pixel of the object, and x,y,0 for one that is not"
    x, y, *sign = numbers(mark.option, mark.text, (2, 3), form)
    if sign not in ([], [0], [1]):
        message = f"'{mark.option} {mark.text}': write {form}"
        raise InputError(message)
    return Clicks(mark.frame_index, mark.object_id, torch.tensor([[x, y]]), torch.tensor([sign != [0]]))


def box_of(mark: Mark) -> "Box":
    """A --box as an interaction.

    Raises:
        InputError: it is not of its form, or empty.
    """
    import torch

    from rotoscope.types import Box

    form = "x0,y0,x1,y1, the left, upper, right and lower edge"
    return Box(mark.frame_index, mark.object_id, torch.tensor(numbers(mark.option, mark.text, (4,), form)))


def _scribbles(mark: Mark, video: str | int) -> "list[Interaction]":
    """All lines of a file, which names their frames and objects itself."""
    from rotoscope.datasets.davis_scribbles import read_scribbles, to_scribbles
    from rotoscope.video.read import open_clip

    drawn = read_scribbles(Path(mark.text))
    if not drawn.object_ids:
        message = f"{mark.text} holds no line through an object; draw at least one, with an object_id from 1 on"
        raise InputError(message)
    return [*to_scribbles(drawn.lines, drawn.object_ids, open_clip(video).hw)]


def _refuse_contradictions(found: "Sequence[Interaction]") -> None:
    """No pixel is on an object and off it, or on two objects."""
    from rotoscope.types import Clicks

    clicks = [(one.frame_index, *one.points[0].floor().int().tolist(), one.object_id, bool(one.positive)) for one in found if isinstance(one, Clicks)]
    owner: dict[tuple[int, int, int], int] = {}
    for frame_index, x, y, object_id, positive in clicks:
        if positive and owner.setdefault((frame_index, x, y), object_id) != object_id:
            message = (
                f"pixel {x},{y} of frame {frame_index} is said to be on object {owner[frame_index, x, y]} and on {object_id}; leave one click out"
            )
            raise InputError(message)
    for frame_index, x, y, object_id, positive in clicks:
        if not positive and owner.get((frame_index, x, y)) == object_id:
            message = f"pixel {x},{y} of frame {frame_index} is said to be on object {object_id} and off it; leave one of the two clicks out"
            raise InputError(message)
