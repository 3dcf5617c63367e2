"""From what a person did to masks: one object at a time, seen in a view of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rotoscope.errors import InputError, MaskError
from rotoscope.models.s2m_lite.network import S2mLiteNetwork
from rotoscope.models.s2m_lite.views import Said, View, closer_view, cut_out, drawn, extent_of, points_of, resized
from rotoscope.ops.aggregate import join_objects
from rotoscope.ops.sizing import working_size
from rotoscope.types import Box, Clicks, Frame, Interaction, Masks, Painted, Scribble

_SETTLED = 0.5
"""Overlap of the view and the one that the result asks for, below which the network looks again (f-BRS)."""
_DENT = 4.0
"""Pixels: how far a click that the network contradicts reaches, as the sigma of a Gaussian."""
_SURE = 0.55
"""The probability that such a click is given, before objects are joined."""


@dataclass(frozen=True, slots=True)
class S2mLiteConfig:
    """How masks are made.

    Attributes:
        long_edge: of the views that the network sees, in pixels.
        margin: by which a view is larger than what it is about.
        line_pixels: the pen with which lines are drawn into a view, whatever their width on the frame.
    """

    long_edge: int = 384
    margin: float = 1.4
    line_pixels: float = 5.0


class S2mLiteMaker:
    """Masks from whatever a person did; see `rotoscope.types.MaskMaker`."""

    def __init__(self, network: S2mLiteNetwork, config: S2mLiteConfig) -> None:
        self.network = network
        self.config = config

    @torch.inference_mode()
    def make(self, frame: Frame, interactions: Iterable[Interaction], current: Masks) -> Masks:
        """Masks of the frame over the current objects and those that are new in the interactions.

        All that was done since the current masks counts together, the later before the earlier. Objects that nothing was done to lose what others
        take from them, and are otherwise left alone. No click is contradicted: its pixel is the object, or is not. A painted mask is taken as it
        is, unless more was done to its object afterwards.

        Raises:
            InputError: an interaction of another frame, outside the frame, or an object that is only said to be absent from some places.
            MaskError: the current masks, or a painted one, have another size than the frame.
        """
        done = list(interactions)
        _check(frame, done, current)
        ids = tuple(dict.fromkeys((*current.object_ids, *(one.object_id for one in done))))
        touched = tuple(dict.fromkeys(one.object_id for one in done))
        if not touched:
            return current
        base = current.select(ids).probs.to("cpu", torch.float32, copy=True)
        labels = current.labels().cpu()
        made = {object_id: self._alone(frame, done, object_id, labels == object_id) for object_id in touched}
        claimed = torch.stack(list(made.values())).amax(dim=0)
        alone = [made.get(object_id, base[channel] * (1 - claimed)) for channel, object_id in enumerate(ids, start=1)]
        return Masks(_settle(join_objects(torch.stack(alone)), done, ids), ids)

    def _alone(self, frame: Frame, done: Sequence[Interaction], object_id: int, previous: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """The probability of one object by itself."""
        own = [one for one in done if one.object_id == object_id]
        painted = max((place for place, one in enumerate(own) if isinstance(one, Painted)), default=-1)
        if painted >= 0:
            last = own[painted]
            assert isinstance(last, Painted)
            previous, own = last.mask.cpu(), own[painted + 1 :]
        if not own:
            return previous.float()
        extent = extent_of(own, previous)
        if extent is None:
            message = (
                f"object {object_id} on frame {frame.index}: there is no mask of it yet, and all that was marked says where it is not; "
                "say also where it is, by a positive click, a line or a box"
            )
            raise InputError(message)
        is_new = not bool(previous.any()) and not any(isinstance(one, Box) for one in own)
        view = View(0, 0, frame.hw[1], frame.hw[0]) if is_new else View.around(extent, frame.hw, self.config.margin)
        said = Said(own, [one for one in done if one.object_id != object_id], previous)
        probs = self._seen(frame, said, view)
        closer = closer_view(probs > 0.5, said, frame.hw, self.config.margin)
        if view.overlap(closer) < _SETTLED:
            probs = self._seen(frame, replace(said, previous=probs > 0.5), closer)
        return _dented(probs, own)

    def _seen(self, frame: Frame, said: "Said", view: View) -> Float[Tensor, "h w"]:
        """What the network makes of a view, at the size of the frame; nothing outside the view."""
        edge, longest = self.config.long_edge, max(view.hw)
        size = working_size(view.hw, stride=16, corners=True, scale=edge / longest)
        device = self.network.classify.weight.device
        image = resized(cut_out(frame.image, view).float()[None].to(device), size)
        previous = (resized(cut_out(said.previous, view).float()[None, None], size) > 0.5).float()[0]
        maps = torch.cat((previous, *drawn(said, view, size, self.config.line_pixels)))[None].to(device)
        logits = self.network(image.contiguous(memory_format=torch.channels_last), maps.contiguous(memory_format=torch.channels_last))
        probs = torch.zeros(frame.hw)
        probs[view.y0 : view.y1, view.x0 : view.x1] = resized(logits, view.hw)[0, 0].sigmoid().cpu()
        return probs


def _check(frame: Frame, done: Sequence[Interaction], current: Masks) -> None:
    if current.hw != frame.hw:
        message = f"the masks of frame {frame.index} have {current.hw} pixels but the frame has {frame.hw}; resize the masks first"
        raise MaskError(message)
    for one in done:
        if one.frame_index != frame.index:
            message = f"interactions of frames [{one.frame_index}] were given with frame {frame.index}; give each with its own frame"
            raise InputError(message)
        if isinstance(one, Painted):
            if tuple(one.mask.shape) != frame.hw:
                message = f"the painted mask has {tuple(one.mask.shape)} pixels but frame {frame.index} has {frame.hw}; resize the mask first"
                raise MaskError(message)
        else:
            _check_place(one, frame)


def _check_place(one: Clicks | Scribble | Box, frame: Frame) -> None:
    """Every click, and some of each line and box, must lie in the frame."""
    height, width = frame.hw
    points = points_of(one).floor()
    inside = ((points >= 0) & (points < torch.tensor((width, height)))).all(dim=1)
    if isinstance(one, Box):
        x0, y0, x1, y1 = one.xyxy.tolist()
        is_fine = x0 < width and y0 < height and x1 > 0 and y1 > 0
    else:
        is_fine = bool(inside.all() if isinstance(one, Clicks) else inside.any())
    if not is_fine:
        place = ",".join(f"{value:g}" for value in (points_of(one).flatten() if isinstance(one, Box) else points_of(one)[~inside][0]).tolist())
        message = f"the {type(one).__name__.lower().removesuffix('s')} at {place} lies outside frame {frame.index} of {width}x{height} pixels"
        raise InputError(message)


def _clicks(done: Iterable[Interaction]) -> list[tuple[int, int, int, bool]]:
    """Column, row, object and sign of every click, in their order."""
    return [
        (int(x), int(y), one.object_id, sign)
        for one in done
        if isinstance(one, Clicks)
        for (x, y), sign in zip(one.points.floor().tolist(), one.positive.tolist(), strict=True)
    ]


def _dented(probs: Float[Tensor, "h w"], own: Sequence[Interaction]) -> Float[Tensor, "h w"]:
    """Probabilities that follow the clicks on an object also where the network did not: their surroundings are shifted until the click is right."""
    logits = torch.logit(probs, eps=1e-6)
    rows, columns = torch.arange(probs.shape[0])[:, None], torch.arange(probs.shape[1])
    wanted = float(torch.logit(torch.tensor(_SURE)))
    for x, y, _, positive in _clicks(own):
        goal = wanted if positive else -wanted
        lacks = goal - float(logits[y, x])
        if (lacks > 0) == positive and lacks != 0:
            logits = logits + lacks * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * _DENT**2))
    return logits.sigmoid() * ((probs > 0) | (logits > 0))


def _settle(probs: Float[Tensor, "channels h w"], done: Sequence[Interaction], ids: Sequence[int]) -> Float[Tensor, "channels h w"]:
    """Masks in which the pixel of each click is what the click says, whatever other objects claim; the later click counts."""
    for x, y, object_id, positive in _clicks(done):
        channel = 1 + ids.index(object_id)
        pixel = probs[:, y, x]
        if positive and int(pixel.argmax()) != channel:
            pixel.mul_((1 - _SURE) / (1 - pixel[channel]).clamp(min=1e-6))
            pixel[channel] = _SURE
        elif not positive and int(pixel.argmax()) == channel:
            pixel[0] += pixel[channel]
            pixel[channel] = 0
    return probs
