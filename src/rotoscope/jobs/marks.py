"""What a person marked on some frames made into the masks that a run starts from."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from rotoscope.errors import InputError, MaskError
from rotoscope.types import Frame, Interaction, MaskMaker, Masks
from rotoscope.video.read import Clip


def check_marks(interactions: Sequence[Interaction], clip: Clip) -> None:
    """Refuse marks that no frame can be found for.

    Raises:
        InputError: the clip is a live stream, or has no such frame.
    """
    if not interactions:
        return
    if clip.is_live:
        message = f"{clip.name} is a live stream, whose frames cannot be marked beforehand; give a mask with --mask"
        raise InputError(message)
    beyond = sorted({one.frame_index for one in interactions if clip.num_frames is not None and one.frame_index >= clip.num_frames})
    if beyond:
        message = f"frame {beyond[0]} was marked, but {clip.name} has frames 0 to {(clip.num_frames or 0) - 1}"
        raise InputError(message)


def marked_masks(clip: Clip, interactions: Sequence[Interaction], maker: MaskMaker, given: Mapping[int, Masks]) -> dict[int, Masks]:
    """A mask for each frame that was marked; on frames with a given mask the marks correct it.

    Raises:
        InputError: a frame cannot be read, or a mark does not fit it.
        MaskError: nothing was found of an object.
    """
    made: dict[int, Masks] = {}
    for frame_index in sorted({one.frame_index for one in interactions}):
        own = [one for one in interactions if one.frame_index == frame_index]
        frame = _frame(clip, frame_index)
        current = given[frame_index] if frame_index in given else Masks.from_labels(torch.zeros(frame.hw, dtype=torch.int32))
        masks = maker.make(frame, own, current)
        present = set(torch.unique(masks.labels()).tolist())
        lost = [object_id for object_id in dict.fromkeys(one.object_id for one in own) if object_id not in present]
        if lost:
            message = f"nothing was found of object {lost[0]} where frame {frame_index} was marked; add a click on it, or give a mask with --mask"
            raise MaskError(message)
        made[frame_index] = Masks.from_labels(masks.labels().cpu(), masks.object_ids)
    return made


def marks_as_json(interactions: Sequence[Interaction]) -> list[dict[str, Any]]:
    """The marks as JSON can hold them; equal for equal marks."""
    return [{"kind": type(one).__name__, **{field.name: _plain(getattr(one, field.name)) for field in fields(one)}} for one in interactions]


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, Tensor) else value


def _frame(clip: Clip, frame_index: int) -> Frame:
    frame = next(iter(clip.frames(frame_index, frame_index + 1)), None)
    if frame is None:
        message = f"frame {frame_index} was marked, but {clip.name} ends before it"
        raise InputError(message)
    return frame
