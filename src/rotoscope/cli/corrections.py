"""What a person asks of a project on the command line: marks, paint and erasure in their order, and what is no mark, such as --undo."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotoscope.cli.marks import Mark, OrderedCommand, box_of, click_of, held_settings, numbers, whole
from rotoscope.errors import InputError

if TYPE_CHECKING:
    from rotoscope.jobs.project.corrections import Brushed, Correction, Drawn, MaskFile, RegionBox, Rename

_SETTINGS = {"--object": "", "--frame": "", "--radius": "8", "--region": "none"}
_MARKS = ("--click", "--box", "--scribbles", "--mask", "--brush", "--erase")
_COUNTED = ("--undo", "--redo")
_MOST_POINTS = 10_000  # of a line on the command line


class CorrectCommand(OrderedCommand):
    """A command whose --undo and --redo may stand without a number: that is one step."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the numbers that were left out, and go on as usual."""
        whole_args: list[str] = []
        for index, argument in enumerate(args):
            whole_args.append(argument)
            if argument in _COUNTED and not (index + 1 < len(args) and args[index + 1].isdecimal()):
                whole_args.append("1")
        return super().parse_args(ctx, whole_args)


def drawn_in(arguments: Sequence[str]) -> "tuple[Drawn, ...]":
    """What is done to frames, in its order.

    --object, --frame, --radius and --region hold for what comes after them; one that is given once, behind all marks, holds for all.

    Raises:
        InputError: something that is not of its form, or a setting without anything that it is for.
    """
    held = held_settings(arguments, _MARKS, _SETTINGS)
    lonely = [argument.partition("=")[0] for argument in arguments if argument.partition("=")[0] in _SETTINGS]
    if lonely and not held:
        message = f"{lonely[0]} says what marks are about, and there is none; add one, such as --click x,y"
        raise InputError(message)
    return tuple(_drawn(option, text, settings) for option, text, settings in held)


def renames_in(values: Sequence[str]) -> "list[Rename]":
    """New names from ID=NAME.

    Raises:
        InputError: not of that form.
    """
    from rotoscope.jobs.project.corrections import Rename

    renames = []
    for value in values:
        match = re.fullmatch(r"(\d+)=(.*\S.*)", value)
        if match is None:
            message = f"'--rename {value}': write ID=NAME, such as 1=dancer"
            raise InputError(message)
        renames.append(Rename(int(match[1]), match[2].strip()))
    return renames


def _drawn(option: str, text: str, settings: dict[str, str]) -> "Drawn":
    from rotoscope.jobs.project.corrections import Absent, LineFile, Marked

    object_id = whole("--object", settings["--object"] or "1", least=1)
    frame_index = whole("--frame", settings["--frame"] or "0", least=0)
    region = _region(settings["--region"])
    mark = Mark(option, text, object_id, frame_index)
    match option:
        case "--click":
            return Marked((click_of(mark),), region)
        case "--box":
            return Marked((box_of(mark),), region)
        case "--scribbles":
            return LineFile(Path(text), region)
        case "--mask":
            return _mask(mark, is_for_object=bool(settings["--object"]), region=region)
    if region is not None:
        message = f"'{option} {text}': --region holds for marks and masks; end it before with --region none"
        raise InputError(message)
    if mark.option == "--erase" and mark.text == "all":
        return Absent(frame_index, object_id)
    return _brushed(mark, settings["--radius"])


def _mask(mark: Mark, *, is_for_object: bool, region: "RegionBox | None") -> "MaskFile":
    """A file, a folder, or FRAME=FILE."""
    from rotoscope.jobs.project.corrections import MaskFile

    numbered = None if Path(mark.text).exists() else re.fullmatch(r"(\d+)=(.+)", mark.text)
    index, path = (int(numbered[1]), numbered[2]) if numbered else (mark.frame_index, mark.text)
    return MaskFile(Path(path), index, mark.object_id if is_for_object else None, region)


def _brushed(mark: Mark, radius: str) -> "Brushed":
    from rotoscope.jobs.project.corrections import Brushed

    also = ", or all" if mark.option == "--erase" else ""
    places = numbers(mark.option, mark.text, range(2, 2 * _MOST_POINTS, 2), f"x,y or x0,y0,x1,y1,..., a point or a line{also}")
    (radius_pixels,) = numbers("--radius", radius, (1,), "a number of pixels, such as 8")
    path = tuple(zip(places[::2], places[1::2], strict=True))
    return Brushed(mark.frame_index, mark.object_id, path, radius_pixels, erases=mark.option == "--erase")


def _region(text: str) -> "RegionBox | None":
    if text == "none":
        return None
    x0, y0, x1, y1 = numbers("--region", text, (4,), "x0,y0,x1,y1, the left, upper, right and lower edge, or none")
    return x0, y0, x1, y1


def chosen_one(**asked: object) -> str | None:
    """The one of several things that exclude each other that was asked for; None if none was.

    Raises:
        InputError: more than one was asked for.
    """
    chosen = [name for name, value in asked.items() if value]
    if len(chosen) > 1:
        first, second = (name if name == "marks" else f"--{name.replace('_', '-')}" for name in chosen[:2])
        message = f"{first} and {second} exclude each other; give one after the other, in two commands"
        raise InputError(message)
    return chosen[0] if chosen else None


def corrections_of(
    marks: "Sequence[Drawn]", rename: Sequence[str], steps: tuple[int | None, int | None], remove: Sequence[int]
) -> "list[Correction]":
    """All that is asked for, in the order in which it is done; `steps` are to be undone, and done again."""
    from rotoscope.jobs.project.corrections import Remove, Rewind

    undo, redo = steps
    rewinds = [Rewind("undo", undo)] if undo else [Rewind("redo", redo)] if redo else []
    return [*rewinds, *marks, *renames_in(rename), *(Remove(object_id) for object_id in remove)]
