"""The loop that carries masks through a clip: read the memory, merge what was given, write the memory, yield."""

from collections.abc import Generator, Iterable, Mapping

import torch

from rotoscope.errors import InputError, MaskError, PropagationError
from rotoscope.types import Frame, Masks, Propagator


def propagate(
    frames: Iterable[Frame], propagator: Propagator, given: Mapping[int, Masks], *, resumed: bool = False
) -> Generator[tuple[Frame, Masks]]:
    """Masks for each frame, in the order in which the frames come.

    Frames may come forwards, backwards or with gaps, and the pass may be stopped at any of them. A mask given for a frame wins over the
    prediction: see `merge_given`.

    Args:
        frames: the frames, all of one size.
        propagator: the pass; it is changed.
        given: masks from a person or from ground truth, by frame index.
        resumed: the propagator remembers frames already; otherwise the first frame needs a given mask.

    Yields:
        Each frame with its masks, at the frame's size.

    Raises:
        MaskError: a given mask has another size than its frame.
        InputError: the frame size changes, or the clip starts without a mask.
        PropagationError: the model gave numbers that are not finite.
    """
    hw: tuple[int, int] | None = None
    for frame in frames:
        if hw is not None and frame.hw != hw:
            message = f"frame {frame.index} is {_size(frame.hw)} but the clip started with {_size(hw)}; cut the clip where the size changes"
            raise InputError(message)
        masks = _step(frame, propagator, given.get(frame.index), fresh=hw is None and not resumed)
        hw = frame.hw
        yield frame, masks


def merge_given(predicted: Masks | None, given: Masks) -> Masks:
    """The masks of a frame for which some are given: where an object is given, the prediction has no say.

    - Pixels given to an object belong to it, for certain.
    - Objects listed in `given` have no other pixels: where they were predicted besides, the pixel goes to the next best.
    - Objects that are not listed in `given` keep their predicted pixels outside the given ones.

    So if every object is listed, the result is `given` itself, bit for bit.
    """
    if predicted is None or set(predicted.object_ids) <= set(given.object_ids):
        return given
    ids = (*predicted.object_ids, *(object_id for object_id in given.object_ids if object_id not in predicted.object_ids))
    said, merged = given.select(ids), predicted.select(ids).probs.clone()
    spoken_of = [channel for channel, object_id in enumerate(ids, start=1) if object_id in given.object_ids]
    merged[spoken_of] = 0
    merged[0] = merged[0].clamp(min=1e-6)  # so that a pixel whose only claimants were cleared becomes background
    merged = merged / merged.sum(dim=0, keepdim=True)
    is_given = (given.labels() != 0).to(merged.device)
    return Masks(torch.where(is_given, said.probs.to(merged), merged), ids)


def _step(frame: Frame, propagator: Propagator, given: Masks | None, *, fresh: bool) -> Masks:
    if given is not None:
        given = _checked(frame, given)
    if fresh and given is None:
        message = f"the pass starts at frame {frame.index}, for which no mask is given; start it at a frame with a mask"
        raise InputError(message)
    predicted = None if fresh else checked_prediction(frame, propagator)
    masks = predicted if given is None else merge_given(predicted, given)
    assert masks is not None, "a frame has a given mask, a predicted one, or both"
    propagator.remember(frame, masks, given=given is not None)
    return masks


def checked_prediction(frame: Frame, propagator: Propagator) -> Masks:
    """What a propagator predicts, if its numbers are finite.

    Raises:
        PropagationError: they are not.
    """
    masks = propagator.predict(frame)
    if not bool(torch.isfinite(masks.probs).all()):
        message = f"the model gave numbers that are not finite on frame {frame.index}; check its weights, or use --precision float32"
        raise PropagationError(message)
    return masks


def _checked(frame: Frame, given: Masks) -> Masks:
    if given.hw != frame.hw:
        message = f"the mask for frame {frame.index} is {_size(given.hw)} but the frame is {_size(frame.hw)}; resize the mask (--resize-mask)"
        raise MaskError(message)
    return given


def _size(hw: tuple[int, int]) -> str:
    return f"{hw[1]}x{hw[0]}"
