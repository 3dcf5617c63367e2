import threading
import time

import pytest
import torch

from rotoscope.training.batches import made_ahead
from rotoscope.training.task import Draw


def draws(count: int) -> list[Draw]:
    return [Draw(step, 0, 1, 0) for step in range(count)]


def slow(draw: Draw) -> dict[str, torch.Tensor]:
    time.sleep(0.003 * (3 - draw.step % 4))  # later ones are ready first
    return {"step": torch.tensor(draw.step)}


@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_batches_come_in_the_order_of_their_draws(ahead) -> None:
    assert [int(batch["step"]) for batch in made_ahead(slow, draws(9), ahead=ahead)] == list(range(9))


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_exception_comes_in_the_place_of_its_batch(ahead) -> None:
    def make(draw: Draw) -> dict[str, torch.Tensor]:
        if draw.step == 2:
            raise ValueError("no such image")
        return slow(draw)

    batches = made_ahead(make, draws(5), ahead=ahead)
    assert [int(next(batches)["step"]) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no such image"):
        next(batches)


def test_no_more_is_made_ahead_than_asked_for_and_nothing_after_the_end() -> None:
    begun: list[int] = []

    def make(draw: Draw) -> dict[str, torch.Tensor]:
        begun.append(draw.step)
        return {}

    batches = made_ahead(make, draws(100), ahead=3)
    next(batches)
    next(batches)
    time.sleep(0.02)
    assert len(begun) <= 5
    batches.close()
    time.sleep(0.02)
    assert len(begun) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("ahead", [0, 2])
def test_batches_have_no_gradients(ahead) -> None:
    weight = torch.ones(1, requires_grad=True)
    batch = next(made_ahead(lambda draw: {"x": weight * draw.step}, draws(1), ahead=ahead))
    assert not batch["x"].requires_grad
