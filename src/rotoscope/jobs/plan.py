"""Which frames to visit, in which order, so that every frame gets a mask. Pure: no files, no tensors."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from rotoscope.errors import InputError

Direction = Literal["both", "forward", "backward"]


@dataclass(frozen=True, slots=True)
class Pass:
    """One walk over a clip: the frames from `start` up to but without `stop`, ascending or, with `reverse`, descending.

    The pass starts at a frame with a given mask. `stop` is None where the clip's length is unknown.
    """

    start: int
    stop: int | None
    reverse: bool = False

    def rest(self, frame_index: int) -> "Pass":
        """What is left of the pass when `frame_index` is the next to visit."""
        return Pass(self.start, frame_index + 1, reverse=True) if self.reverse else Pass(frame_index, self.stop)

    @property
    def length(self) -> int | None:
        """How many frames it visits; None where unknown."""
        return None if self.stop is None else max(0, self.stop - self.start)


def plan_passes(given: Collection[int], num_frames: int | None, *, direction: Direction = "both", within: slice = slice(None)) -> list[Pass]:
    """The passes that carry the given masks over a clip, in the order to run them.

    "both": backward from the first given frame to the start, then forward from it to the end. "forward" leaves out what lies before the first given
    frame; "backward" goes from the last given frame to the start.

    Args:
        given: the frames with given masks.
        num_frames: the clip's length; None for a live stream, which only goes forward.
        direction: see above.
        within: the frames to cover, as `slice(start, stop)`; by default all.

    Raises:
        InputError: no mask, a mask for a frame that does not exist or is not to be covered, or nothing to cover.
    """
    if not given:
        message = (
            "no mask is given; name the first frame's mask with --mask FILE, or mark an object with --click x,y or --box x0,y0,x1,y1, or use --detect"
        )
        raise InputError(message)
    start, stop = _bounds(num_frames, within)
    outside = sorted(index for index in given if index < start or (stop is not None and index >= stop))
    if outside:
        covered = f"{start} to {'the end' if stop is None else stop - 1}"
        message = (
            f"a mask is given for frame {outside[0]}, but the frames to cover are {covered}; "
            "write --mask FRAME=FILE (or --frame FRAME before a click or box) to say which frame it is for"
        )
        raise InputError(message)
    first, last = min(given), max(given)
    if direction == "backward":
        return [Pass(start, last + 1, reverse=True)]
    before = [Pass(start, first + 1, reverse=True)] if direction == "both" and first > start and num_frames is not None else []
    return [*before, Pass(first, stop)]


def plan_search(given: Collection[int], num_frames: int | None, *, direction: Direction = "both", within: slice = slice(None)) -> list[Pass]:
    """The passes of a search for objects: with given masks those of `plan_passes`, otherwise one over all the frames to cover.

    Raises:
        InputError: see `plan_passes`; or a live stream is to be searched backwards.
    """
    if given:
        return plan_passes(given, num_frames, direction=direction, within=within)
    start, stop = _bounds(num_frames, within)
    if direction == "backward" and num_frames is None:
        message = "a live stream cannot be searched backwards; use --direction forward"
        raise InputError(message)
    return [Pass(start, stop, reverse=direction == "backward")]


def _bounds(num_frames: int | None, within: slice) -> tuple[int, int | None]:
    start = within.start or 0
    stops = [stop for stop in (num_frames, within.stop) if stop is not None]
    stop = min(stops) if stops else None
    if start < 0 or (stop is not None and stop <= start):
        length = "a live stream" if num_frames is None else f"{num_frames} frames"
        message = f"frames {start}:{within.stop if within.stop is not None else ''} cover nothing of {length}; give START:STOP with 0 <= START < STOP"
        raise InputError(message)
    return start, stop
