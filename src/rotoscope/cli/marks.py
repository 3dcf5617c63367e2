"""What a person marks on the command line: --click, --box and --scribbles, of the objects and on the frames that --object and --frame name."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from typer.core import TyperCommand

from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.types import Interaction

ARGUMENTS = "rotoscope.arguments"
"""Where a command keeps its arguments in their order, in the `meta` of its context."""
_SETTINGS = ("--object", "--frame")
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
    pairs = _pairs(arguments)
    last_mark = max((place for place, (option, _) in enumerate(pairs) if option in _MARKS), default=-1)
    behind = {option: text for place, (option, text) in enumerate(pairs) if place > last_mark}
    once = {option for option in _SETTINGS if [name for name, _ in pairs].count(option) == 1}
    now = {option: behind[option] if option in once & behind.keys() else default for option, default in zip(_SETTINGS, ("1", "0"), strict=True)}
    marks = []
    for option, text in pairs:
        if option in _SETTINGS:
            now[option] = text
        else:
            marks.append(Mark(option, text, _whole("--object", now["--object"], least=1), _whole("--frame", now["--frame"], least=0)))
    return marks


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
            found.append(_click(mark) if mark.option == "--click" else _box(mark))
    _refuse_contradictions(found)
    return tuple(found)


def _pairs(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """The options that matter here, with their values; the parser has seen to it that each has one."""
    pairs = []
    for index, argument in enumerate(arguments):
        option, equals, text = argument.partition("=")
        if option in (*_SETTINGS, *_MARKS):
            pairs.append((option, text if equals else arguments[index + 1]))
    return pairs


def _whole(option: str, text: str, *, least: int) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        message = f"'{option} {text}': give a whole number from {least} on"
        raise InputError(message)
    return int(text)


def _numbers(mark: Mark, counts: tuple[int, ...], form: str) -> list[float]:
    try:
        numbers = [float(part) for part in mark.text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not all(map(math.isfinite, numbers)):
        message = f"'{mark.option} {mark.text}': write {form}"
        raise InputError(message)
    return numbers


def _click(mark: Mark) -> "Interaction":
    import torch

    from rotoscope.types import Clicks

    form = "x,y or x,y,1 for a pixel of the object, and x,y,0 for one that is not"
    x, y, *sign = _numbers(mark, (2, 3), form)
    if sign not in ([], [0], [1]):
        message = f"'{mark.option} {mark.text}': write {form}"
        raise InputError(message)
    return Clicks(mark.frame_index, mark.object_id, torch.tensor([[x, y]]), torch.tensor([sign != [0]]))


def _box(mark: Mark) -> "Interaction":
    import torch

    from rotoscope.types import Box

    return Box(mark.frame_index, mark.object_id, torch.tensor(_numbers(mark, (4,), "x0,y0,x1,y1, the left, upper, right and lower edge")))


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
