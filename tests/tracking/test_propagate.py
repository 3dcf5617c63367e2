from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from rotoscope.errors import InputError, MaskError, PropagationError
from rotoscope.tracking.propagate import merge_given, propagate
from rotoscope.types import Frame, Masks, Propagator


class Drift:
    """A propagator whose objects move one pixel to the right per frame; it notes what it is told to remember."""

    def __init__(self) -> None:
        self.log: list[tuple[int, bool]] = []
        self.last: Masks | None = None

    def predict(self, frame: Frame) -> Masks:
        assert self.last is not None
        return Masks(torch.roll(self.last.probs, 1, dims=2), self.last.object_ids)

    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        self.log.append((frame.index, given))
        self.last = masks

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        del state


def frames(indices, hw: tuple[int, int] = (4, 8)) -> Iterator[Frame]:
    return (Frame(index, torch.zeros(3, *hw, dtype=torch.uint8)) for index in indices)


def column(object_id: int, x: int, hw: tuple[int, int] = (4, 8)) -> Masks:
    labels = torch.zeros(hw, dtype=torch.int32)
    labels[:, x] = object_id
    return Masks.from_labels(labels)


def place_of(masks: Masks, object_id: int) -> list[int]:
    return (masks.labels() == object_id).any(dim=0).nonzero().flatten().tolist()


def test_the_stand_in_is_a_propagator() -> None:
    assert isinstance(Drift(), Propagator)


def test_masks_are_carried_forward_and_every_frame_is_remembered_once() -> None:
    model = Drift()
    results = list(propagate(frames(range(4)), model, {0: column(1, 2)}))
    assert [place_of(masks, 1) for _, masks in results] == [[2], [3], [4], [5]]
    assert model.log == [(0, True), (1, False), (2, False), (3, False)]


def test_a_pass_may_go_backwards_and_start_anywhere() -> None:
    results = list(propagate(frames([7, 6, 5]), Drift(), {7: column(1, 0)}))
    assert [frame.index for frame, _ in results] == [7, 6, 5]
    assert place_of(results[-1][1], 1) == [2]


def test_stopping_early_asks_for_no_more_frames() -> None:
    asked = []

    def counted() -> Iterator[Frame]:
        for frame in frames(range(100)):
            asked.append(frame.index)
            yield frame

    results = propagate(counted(), Drift(), {0: column(1, 0)})
    next(results)
    next(results)
    results.close()
    assert asked == [0, 1]


def test_a_given_frame_with_all_objects_comes_out_bit_for_bit() -> None:
    later = column(1, 7)
    results = {frame.index: masks for frame, masks in propagate(frames(range(4)), Drift(), {0: column(1, 2), 2: later})}
    assert torch.equal(results[2].probs, later.probs)
    assert place_of(results[3], 1) == [0]


def test_a_new_object_mid_clip_joins_those_already_followed() -> None:
    model = Drift()
    results = [masks for _, masks in propagate(frames(range(4)), model, {0: column(3, 2), 2: column(9, 6)})]
    assert results[2].object_ids == (3, 9)
    assert place_of(results[3], 3) == [5]
    assert place_of(results[3], 9) == [7]
    assert model.log[2] == (2, True)


def test_where_an_object_is_given_its_predicted_pixels_elsewhere_are_cleared() -> None:
    predicted = Masks(torch.tensor([[[0.1, 0.1]], [[0.9, 0.6]], [[0.0, 0.3]]]), (1, 2))
    merged = merge_given(predicted, Masks.from_labels(torch.tensor([[1, 0]], dtype=torch.int32)))
    assert merged.labels().tolist() == [[1, 2]]
    assert torch.allclose(merged.probs.sum(dim=0), torch.ones(1, 2))


def test_a_pixel_whose_only_claimant_was_cleared_becomes_background() -> None:
    predicted = Masks(torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]]), (1, 2))
    merged = merge_given(predicted, Masks.from_labels(torch.tensor([[1, 0]], dtype=torch.int32)))
    assert merged.labels().tolist() == [[1, 0]]
    assert bool(torch.isfinite(merged.probs).all())


def test_a_pass_without_a_first_mask_is_refused() -> None:
    with pytest.raises(InputError, match="frame 3, for which no mask is given"):
        list(propagate(frames([3, 4]), Drift(), {4: column(1, 0)}))


def test_a_resumed_pass_needs_no_first_mask() -> None:
    model = Drift()
    model.last = column(1, 0)
    assert [frame.index for frame, _ in propagate(frames([3, 4]), model, {}, resumed=True)] == [3, 4]


def test_a_mask_of_another_size_names_both_sizes() -> None:
    with pytest.raises(MaskError, match=r"is 6x5 but the frame is 8x4.*--resize-mask"):
        list(propagate(frames([0]), Drift(), {0: column(1, 0, (5, 6))}))


def test_a_change_of_size_inside_the_clip_names_the_frame() -> None:
    mixed = [*frames([0]), *frames([1], (6, 6))]
    with pytest.raises(InputError, match="frame 1 is 6x6 but the clip started with 8x4"):
        list(propagate(mixed, Drift(), {0: column(1, 0)}))


def test_numbers_that_are_not_finite_stop_the_pass_at_the_frame() -> None:
    class Broken(Drift):
        def predict(self, frame: Frame) -> Masks:
            masks = super().predict(frame)
            return Masks(masks.probs * float("nan"), masks.object_ids) if frame.index == 2 else masks

    model = Broken()
    done = []
    with pytest.raises(PropagationError, match="frame 2"):
        done.extend(frame.index for frame, _ in propagate(frames(range(5)), model, {0: column(1, 0)}))
    assert model.log[-1] == (1, False)
