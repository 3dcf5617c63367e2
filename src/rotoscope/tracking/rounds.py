"""One round of interactive work: a corrected frame is carried both ways, as far as the next given frame, and joined with what was there before.

The protocol is MiVOS's (Cheng et al., CVPR 2021, section 3 and official code), for any propagator and any fuser.
"""

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError, MaskError
from rotoscope.tracking.propagate import checked_prediction
from rotoscope.types import Change, ChangeCarrier, Frame, Fuser, Masks, Propagator


@dataclass(frozen=True, slots=True)
class Stretch:
    """The frames that one direction of a round changes.

    Attributes:
        frame_indices: in the order of travel, away from the corrected frame; possibly none.
        stop: the given frame behind the last of them; None if they end with the clip.
    """

    frame_indices: range
    stop: int | None


def stretches(corrected: int, given: Collection[int], num_frames: int) -> tuple[Stretch, Stretch]:
    """What a round may change around a corrected frame: forwards, and backwards, up to the nearest given frames."""
    after = min((index for index in given if index > corrected), default=None)
    before = max((index for index in given if index < corrected), default=None)
    forward = range(corrected + 1, num_frames if after is None else after)
    backward = range(corrected - 1, -1 if before is None else before, -1)
    return Stretch(forward, after), Stretch(backward, before)


def ends_turn(interaction: int, *, per_frame: int = 3, most: int = 8) -> bool:
    """Whether masks are carried on after an interaction, counted from 1: MiVOS's way through the DAVIS interactive track.

    It asks for so many scribbles on a frame before it carries the masks on and takes the next frame; the last interaction is carried on in any case.
    """
    return interaction % per_frame == 0 or interaction == most


def propagate_round(
    frames: Sequence[Frame],
    propagator: Propagator,
    correction: tuple[int, Masks],
    *,
    given: Collection[int],
    earlier: Mapping[int, Masks],
    fuser: Fuser | None = None,
) -> Generator[tuple[Frame, Masks]]:
    """The frames that a correction changes, with their masks: the corrected one as it was given, then forwards from it, then backwards.

    Frames given in other rounds bound the walk and are never touched. Between two given frames the result is fused with the earlier one, if there
    is one; elsewhere it takes its place. The walk may be stopped after any frame; frames not yet reached keep their earlier masks.

    Args:
        frames: the clip, by position; read one by one.
        propagator: remembers the given frames of the earlier rounds. It learns the corrected one, and nothing else remains when the walk ends.
        correction: the frame, by its position, and its masks.
        given: all frames that a person gave, in this round or before.
        earlier: masks of earlier rounds by frame; frames may lack. Read as the walk goes, so the caller may put results there at once.
        fuser: joins earlier and newer masks; None to let the newer ones win.

    Raises:
        InputError: there is no such frame.
        PropagationError: the model gave numbers that are not finite.
    """
    corrected, masks = correction
    if not 0 <= corrected < len(frames):
        message = f"there is no frame {corrected}; the clip has frames 0 to {len(frames) - 1}"
        raise InputError(message)
    change = Change.between(corrected, earlier.get(corrected), masks)
    propagator.remember(frames[corrected], masks, given=True)
    remembered = propagator.state()
    yield frames[corrected], masks
    for stretch in stretches(corrected, given, len(frames)):
        try:
            for frame, newer in _walk(frames, propagator, stretch):
                before = None if stretch.stop is None else earlier.get(frame.index)
                if fuser is None or before is None or stretch.stop is None:
                    yield frame, newer
                else:
                    nearness = abs(stretch.stop - frame.index) / abs(stretch.stop - corrected)
                    carried = _carried(propagator, change, frame, newer.object_ids)
                    yield frame, fuser.fuse(frame, before, newer, nearness=nearness, change=carried)
        finally:
            propagator.restore(remembered)


class LinearBlend:
    """Earlier and newer masks mixed by nearness alone: the fuser for trackers that have none of their own (the paper's baseline)."""

    def fuse(self, frame: Frame, earlier: Masks, newer: Masks, *, nearness: float, change: Float[Tensor, "n 2 h w"] | None = None) -> Masks:
        """The mixture; objects that the earlier masks do not list stay as the newer ones have them.

        Raises:
            MaskError: the masks differ in size.
        """
        if earlier.hw != newer.hw:
            message = f"the earlier masks of frame {frame.index} have {earlier.hw} pixels but the newer ones {newer.hw}; resize the masks first"
            raise MaskError(message)
        before = earlier.select(newer.object_ids).probs.to(newer.probs)
        unlisted = [channel for channel, object_id in enumerate(newer.object_ids, start=1) if object_id not in earlier.object_ids]
        before = before * (1 - newer.probs[unlisted].sum(dim=0, keepdim=True))
        before[unlisted] = newer.probs[unlisted]
        return Masks(torch.lerp(before, newer.probs, nearness), newer.object_ids)


class NewerWins:
    """No fusion: what is newer takes the place of what was there (the other baseline of the paper)."""

    def fuse(self, frame: Frame, earlier: Masks, newer: Masks, *, nearness: float, change: Float[Tensor, "n 2 h w"] | None = None) -> Masks:
        """The newer masks."""
        return newer


def _walk(frames: Sequence[Frame], propagator: Propagator, stretch: Stretch) -> Generator[tuple[Frame, Masks]]:
    """Predict frame by frame, each to be remembered for the next."""
    for index in stretch.frame_indices:
        frame = frames[index]
        newer = checked_prediction(frame, propagator)
        if index != stretch.frame_indices[-1]:
            propagator.remember(frame, newer, given=False)
        yield frame, newer


def _carried(propagator: Propagator, change: Change, frame: Frame, object_ids: Sequence[int]) -> Float[Tensor, "n 2 h w"] | None:
    """The change in a frame, for each of some objects; None if the propagator cannot tell."""
    if not isinstance(propagator, ChangeCarrier):
        return None
    carried = propagator.carry(change, frame)
    maps = carried.new_zeros((len(object_ids), *carried.shape[1:]))
    for position, object_id in enumerate(object_ids):
        if object_id in change.object_ids:
            maps[position] = carried[change.object_ids.index(object_id)]
    return maps
