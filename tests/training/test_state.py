import dataclasses
import errno

import pytest
import torch
from torch import nn
from training_task import SquareTask, recipe

from rotoscope import _files
from rotoscope.errors import CheckpointError, InputError, OutputError
from rotoscope.models.checkpoints import load_strictly, read_checkpoint
from rotoscope.training.average import MovingAverage
from rotoscope.training.loop import train
from rotoscope.training.state import export_weights, load_state, save_state, saved_steps, trained_weights


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"model.weight": torch.full((3,), value), "average.weight": torch.full((3,), value + 1), "model.count": torch.tensor(4)}


def save(folder, step: int, **changes) -> None:
    (folder / "states").mkdir(exist_ok=True)
    save_state(folder, step, tensors(step), recipe=recipe(**changes), task="SquareTask")


def test_the_newest_states_are_kept(tmp_path) -> None:
    for step in (1, 2, 9, 10):
        save(tmp_path, step, keep=2)
    assert saved_steps(tmp_path) == [9, 10]
    assert len(list((tmp_path / "states").iterdir())) == 4
    state = load_state(tmp_path)
    assert (state.step, state.task, state.recipe["batch_size"]) == (10, "SquareTask", 2)
    assert torch.equal(state.tensors["model.weight"], torch.full((3,), 10.0))


@pytest.mark.parametrize("written", [0, 1])
def test_an_interrupted_save_leaves_the_state_before(tmp_path, monkeypatch, written) -> None:
    save(tmp_path, 1)
    count = 0

    def failing(path, content, *, durable=False):
        nonlocal count
        if count == written:
            path.with_name(path.name + ".partial").write_bytes(content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        count += 1
        _files.write_atomically(path, content, durable=durable)

    monkeypatch.setattr("rotoscope.training.state.write_atomically", failing)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert saved_steps(tmp_path) == [1]
    assert load_state(tmp_path).step == 1
    save(tmp_path, 3, keep=1)
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == ["step-00000003.json", "step-00000003.safetensors"]


def test_a_full_disk_is_said_and_the_state_before_stays(tmp_path, monkeypatch) -> None:
    save(tmp_path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save(tmp_path, 2)
    assert load_state(tmp_path).step == 1


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_state_says_how_to_use_the_one_before(tmp_path, suffix) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "states" / f"step-00000002{suffix}"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"damaged .*delete .*step-00000002\.json"):
        load_state(tmp_path)
    path.with_suffix(".json").unlink()
    assert load_state(tmp_path).step == 1


def test_there_must_be_a_state(tmp_path) -> None:
    with pytest.raises(InputError, match="no saved state"):
        load_state(tmp_path)


def test_a_state_of_another_network_is_refused_and_changes_nothing(tmp_path) -> None:
    list(train(SquareTask(), recipe(steps=1), tmp_path))

    class Wider(SquareTask):
        def __init__(self) -> None:
            super().__init__()
            self.model[4] = nn.Conv2d(4, 5, 1)

    Wider.__qualname__ = "SquareTask"
    with pytest.raises(CheckpointError, match="other shapes"):
        next(train(Wider(), recipe(steps=1), tmp_path, resume=True))


def test_another_task_is_refused(tmp_path) -> None:
    class Other(SquareTask): ...

    list(train(SquareTask(), recipe(steps=1), tmp_path))
    with pytest.raises(InputError, match=r"task was 'SquareTask', is '.*Other'"):
        next(train(Other(), recipe(steps=1), tmp_path, resume=True))


def test_the_weights_of_a_training_are_the_averages_where_there_are_some(tmp_path) -> None:
    save(tmp_path, 5)
    weights = trained_weights(load_state(tmp_path))
    assert set(weights) == {"weight", "count"}
    assert torch.equal(weights["weight"], torch.full((3,), 6.0))


@pytest.mark.parametrize("half", [True, False])
def test_exported_weights_load_into_the_model(tmp_path, half) -> None:
    task = SquareTask()
    list(train(task, recipe(), tmp_path / "training"))
    weights = trained_weights(load_state(tmp_path / "training"))
    assert not torch.equal(weights["0.weight"], task.model.state_dict()["0.weight"])
    export_weights(weights, tmp_path / "square.safetensors", {"steps": "6"}, model="square", half=half)
    checkpoint = read_checkpoint(tmp_path / "square.safetensors")
    assert (checkpoint.model, checkpoint.official, checkpoint.converted) == ("square", False, True)
    assert checkpoint.tensors["0.weight"].dtype == (torch.float16 if half else torch.float32)
    other = SquareTask()
    load_strictly(other.model, checkpoint)
    torch.testing.assert_close(other.model.state_dict()["0.weight"], weights["0.weight"], atol=0 if not half else 1e-3, rtol=0)


def test_weights_too_large_for_16_bits_are_not_exported(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="half=False"):
        export_weights({"weight": torch.tensor([1e6])}, tmp_path / "x.safetensors", {}, model="square")
    export_weights({"weight": torch.tensor([1e6])}, tmp_path / "x.safetensors", {}, model="square", half=False)


def test_the_average_follows_the_weights_slowly_and_at_first_fast() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    average = MovingAverage(layer, list(layer.parameters()), decay=0.25)
    expected = 0.0
    for step in range(8):
        nn.init.constant_(layer.weight, float(step + 1))
        average.update(step)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
        assert float(average.tensors()["weight"]) == pytest.approx(expected, rel=1e-6)
    assert min(0.25, 1 / 10) == 0.1 < min(0.25, 8 / 17) == 0.25  # both sides of the minimum were seen


def test_only_what_is_trained_is_averaged() -> None:
    task = SquareTask()
    first, last = task.model[0], task.model[4]
    average = MovingAverage(task.model, list(last.parameters()), decay=0.9)
    before = {name: tensor.clone() for name, tensor in average.tensors().items()}
    with torch.no_grad():
        for tensor in (*first.parameters(), *last.parameters()):
            tensor.add_(1.0)
    average.update(0)
    assert set(average.tensors()) == {"4.weight", "4.bias"}
    torch.testing.assert_close(average.tensors()["4.bias"], before["4.bias"] + 0.9)


def test_tied_weights_share_their_average_and_can_be_saved(tmp_path) -> None:
    class Tied(SquareTask):
        def __init__(self) -> None:
            super().__init__(normed=False)
            self.model[1] = nn.Conv2d(4, 4, 1)
            self.model.insert(2, nn.Conv2d(4, 4, 1))
            self.model[2].weight = self.model[1].weight

    list(train(Tied(), recipe(steps=1), tmp_path / "one"))
    assert list(train(Tied(), recipe(steps=1), tmp_path / "one", resume=True)) == []
    weights = trained_weights(load_state(tmp_path / "one"))
    assert torch.equal(weights["2.weight"], weights["1.weight"])
    assert not torch.equal(weights["2.weight"], load_state(tmp_path / "one").tensors["model.2.weight"])


def test_every_field_of_a_recipe_is_kept(tmp_path) -> None:
    save(tmp_path, 1)
    assert set(load_state(tmp_path).recipe) == {field.name for field in dataclasses.fields(recipe())}
