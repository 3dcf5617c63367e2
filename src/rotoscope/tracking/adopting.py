"""Masks that were made elsewhere, taken over by a project as if they had been given and carried on in it."""

from collections.abc import Generator, Iterable, Mapping
from functools import partial

from rotoscope.errors import InputError, MaskError
from rotoscope.tracking.drawing import Drawing
from rotoscope.types import Masks


def adopt(drawing: Drawing, given: Mapping[int, Masks], results: Iterable[tuple[int, Masks]]) -> Generator[int]:
    """The frames taken over, one by one: first the given ones, each a step for undo, then the results, together a step.

    With the last one the given frames count as carried on. Stopped before that, they are pending, and are carried on anew by the next propagation.

    Args:
        drawing: of a project in which nothing was done yet.
        given: what a person gave; at least one frame, with objects.
        results: the masks of other frames, over objects that were given; those of given frames are passed over.

    Raises:
        InputError: something was done already, or nothing is given.
        MaskError: in a step: the masks have another size than the clip.
        OutputError: in a step: it cannot be stored.
    """
    if drawing.project.steps:
        message = f"{drawing.project.folder} holds work already; masks from elsewhere can only start a fresh project"
        raise InputError(message)
    if not any(masks.object_ids for masks in given.values()):
        message = "there are no given masks to start from; give a frame with at least one object"
        raise InputError(message)
    return _taken_over(drawing, given, results)


def _taken_over(drawing: Drawing, given: Mapping[int, Masks], results: Iterable[tuple[int, Masks]]) -> Generator[int]:
    project, hw = drawing.project, drawing.frames[0].hw
    for index, masks in given.items():
        drawing.change(index, masks.object_ids, partial(_instead, _sized(masks, hw, index)))
        yield index
    project.record("propagate", {"frames": project.state.given_frames})
    for index, masks in results:
        drawing.check_frame(index)
        if index in given:
            continue
        with project.lock:
            there = [object_id for object_id in masks.object_ids if object_id in project.state.objects]
            key = project.store.put(_sized(masks, hw, index).select(there))
            project.record("result", {"frame": index, "masks": key})
        yield index
    with project.lock:
        for index in project.state.pending_frames:
            project.record("settle", {"frame": index})


def _instead(masks: Masks, current: Masks) -> Masks:
    """Masks in the place of the current ones."""
    del current
    return masks


def _sized(masks: Masks, hw: tuple[int, int], frame_index: int) -> Masks:
    if masks.hw != hw:
        message = f"the masks of frame {frame_index} are {masks.hw[1]}x{masks.hw[0]} but the clip is {hw[1]}x{hw[0]}; take those of the same clip"
        raise MaskError(message)
    return masks
