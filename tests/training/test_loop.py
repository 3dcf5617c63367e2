import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from training_task import SquareTask, recipe

from rotoscope.errors import InputError, OutputError, TrainingError
from rotoscope.training.loop import Progress, train
from rotoscope.training.recipe import Recipe
from rotoscope.training.state import load_state, saved_steps


def run(task: SquareTask, settings: Recipe, folder: Path, *, resume: bool = False) -> list[Progress]:
    return list(train(task, settings, folder, resume=resume))


def same_tensors(one: Path, other: Path) -> bool:
    a, b = load_state(one), load_state(other)
    return a.step == b.step and a.tensors.keys() == b.tensors.keys() and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


def trained(task: SquareTask) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def test_training_learns_and_tells_how_far_it_is(tmp_path) -> None:
    told = run(SquareTask(dropout=0.0), recipe(steps=60, picture_every=40), tmp_path)
    assert [progress.step for progress in told] == list(range(1, 61))
    assert told[-1].figures["loss"] < 0.7 * told[0].figures["loss"]
    assert told[2].figures["rate/late"] == pytest.approx(6e-3)
    assert set(told[0].figures) == {"loss", "accuracy", "gradient_norm", "rate/early", "rate/late", "samples_per_second"}
    assert told[-1].seconds_left == 0.0 < told[0].seconds_left
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["step-00000000.png", "step-00000040.png"]


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_a_stopped_and_resumed_training_gives_the_same_bits(tmp_path, optimiser) -> None:
    settings = recipe(optimiser=optimiser, accumulate=2)
    run(SquareTask(), settings, tmp_path / "whole")
    steps = train(SquareTask(), settings, tmp_path / "stopped")
    for _ in range(3):
        next(steps)
    steps.close()
    assert saved_steps(tmp_path / "stopped") == [2, 3]
    told = run(SquareTask(), settings, tmp_path / "stopped", resume=True)
    assert [progress.step for progress in told] == [4, 5, 6]
    assert same_tensors(tmp_path / "whole", tmp_path / "stopped")
    tables = [table(tmp_path / name) for name in ("whole", "stopped")]
    assert [[row["loss"], row["step"]] for row in tables[0]] == [[row["loss"], row["step"]] for row in tables[1]]


KILLED = """
import sys
from training_task import SquareTask, recipe
from rotoscope.training.loop import train
for progress in train(SquareTask(), recipe(steps=2000), sys.argv[1], resume=False):
    print(progress.step, flush=True)
"""


def test_a_killed_training_goes_on_from_its_last_state(tmp_path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(int(line) >= 5 for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    saved = saved_steps(tmp_path / "killed")[-1]
    assert 4 <= saved < 2000
    settings = recipe(steps=2000)
    resumed = train(SquareTask(), settings, tmp_path / "killed", resume=True)
    assert next(resumed).step == saved + 1
    resumed.close()
    whole = train(SquareTask(), settings, tmp_path / "whole")
    while next(whole).step <= saved:
        pass
    whole.close()
    assert same_tensors(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_training_resumes_to_nothing(tmp_path) -> None:
    run(SquareTask(), recipe(), tmp_path)
    assert run(SquareTask(), recipe(), tmp_path, resume=True) == []


def test_accumulated_parts_equal_one_larger_batch(tmp_path) -> None:
    class Halves(SquareTask):
        def batch(self, draw):
            whole = super().batch(draw._replace(part=0, size=4))
            return {name: tensor[draw.part * draw.size :][: draw.size] for name, tensor in whole.items()}

    larger, parts = Halves(normed=False, dropout=0.0), Halves(normed=False, dropout=0.0)
    run(larger, recipe(batch_size=4, optimiser="sgd"), tmp_path / "larger")
    told = run(parts, recipe(batch_size=2, accumulate=2, optimiser="sgd"), tmp_path / "parts")
    for name, weight in trained(larger).items():
        torch.testing.assert_close(trained(parts)[name], weight, atol=1e-6, rtol=1e-5)
    assert told[0].figures["loss"] == pytest.approx(float(table(tmp_path / "larger")[0]["loss"]), rel=1e-4)


def test_the_gradient_is_clipped_after_all_parts_and_before_the_step(tmp_path) -> None:
    task = SquareTask(scale=1e6)
    before = trained(task)
    settings = recipe(steps=1, accumulate=2, optimiser="sgd", momentum=0.0, clip_norm=0.5, average_decay=None)
    told = run(task, settings, tmp_path)
    assert told[0].figures["gradient_norm"] > 1e4
    rates = {"0": 1e-3, "1": 1e-3, "4": 2e-3}
    moved = {name: (before[name] - after) / rates[name[0]] for name, after in trained(task).items()}
    decay = {name: 0.01 * before[name] if name[0] in "01" else 0.0 for name in before}
    norm = torch.cat([(moved[name] - decay[name]).flatten() for name in moved]).norm()
    assert norm == pytest.approx(0.5, rel=1e-2)


def test_without_a_limit_the_gradient_stays_as_it_is(tmp_path) -> None:
    tasks = SquareTask(scale=100.0), SquareTask(scale=100.0)
    for task, clip_norm in zip(tasks, (None, 1e9), strict=True):
        run(task, recipe(clip_norm=clip_norm), tmp_path / str(clip_norm))
    assert all(torch.equal(weight, trained(tasks[1])[name]) for name, weight in trained(tasks[0]).items())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_numbers_that_are_not_finite_stop_the_training_and_keep_the_batch(tmp_path, where) -> None:
    class Breaking(SquareTask):
        def losses(self, batch, step, *, with_pictures=False):
            losses = super().losses(batch, step, with_pictures=with_pictures)
            if step == 3 and where == "loss":
                losses = type(losses)(losses.total * float("nan"), losses.figures)
            if step == 3 and where == "gradient":
                weight = next(self.model.parameters()).flatten()[0]
                losses = type(losses)(losses.total + (weight - weight.detach()).sqrt(), losses.figures)
            return losses

    task = Breaking()
    steps = train(task, recipe(accumulate=2, save_every=100), tmp_path)
    weights = [trained(task) for _ in (next(steps), next(steps), next(steps))][-1]
    with pytest.raises(TrainingError, match=r"step 3: .*not-finite-step-3\.safetensors.*lower rate"):
        next(steps)
    assert all(torch.equal(weight, trained(task)[name]) for name, weight in weights.items())
    kept = safetensors.torch.load_file(tmp_path / "not-finite-step-3.safetensors")
    draw = next(draw for draw in task.draws if draw.step == 3 and draw.part == 1)
    assert torch.equal(kept["part-1.images"], SquareTask().batch(draw)["images"])
    assert saved_steps(tmp_path) == [0]


@pytest.mark.parametrize(("limit", "advice"), [(3, "batch_size=2 accumulate=6 fits"), (0, "make frames or clips smaller")])
def test_too_little_memory_says_what_fits(tmp_path, limit, advice) -> None:
    class Large(SquareTask):
        def losses(self, batch, step, *, with_pictures=False):
            if len(batch["images"]) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().losses(batch, step, with_pictures=with_pictures)

    with pytest.raises(TrainingError, match=advice):
        run(Large(), recipe(batch_size=4, accumulate=3), tmp_path)


def test_bfloat16_computes_in_half_precision_and_keeps_whole_weights(tmp_path) -> None:
    class Watching(SquareTask):
        def losses(self, batch, step, *, with_pictures=False):
            self.dtype = self.model(batch["images"]).dtype
            return super().losses(batch, step, with_pictures=with_pictures)

    task = Watching()
    told = run(task, recipe(precision="bfloat16", steps=2), tmp_path)
    assert task.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in task.model.parameters()} == {torch.float32}
    assert told[-1].figures["loss"] < 2
    plain = Watching()
    run(plain, recipe(steps=2), tmp_path / "plain")
    assert plain.dtype == torch.float32


def test_what_is_in_no_group_stays_as_it_is(tmp_path) -> None:
    class Headless(SquareTask):
        def parameter_groups(self):
            return super().parameter_groups()[:1]

    task = Headless()
    before = trained(task)
    run(task, recipe(), tmp_path)
    changed = {name for name, weight in trained(task).items() if not torch.equal(weight, before[name])}
    assert changed == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_a_folder_with_a_training_is_not_overwritten(tmp_path) -> None:
    run(SquareTask(), recipe(steps=1), tmp_path)
    with pytest.raises(OutputError, match="holds a training already, 1 steps long; use --resume"):
        run(SquareTask(), recipe(steps=1), tmp_path)


def test_there_must_be_something_to_resume(tmp_path) -> None:
    with pytest.raises(InputError, match="no training to resume"):
        run(SquareTask(), recipe(), tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_one_training_at_a_time_in_a_folder(tmp_path) -> None:
    steps = train(SquareTask(), recipe(), tmp_path)
    next(steps)
    with pytest.raises(OutputError, match="another training writes to"):
        run(SquareTask(), recipe(), tmp_path, resume=True)
    steps.close()


def test_resuming_with_another_recipe_is_refused_with_the_differences(tmp_path) -> None:
    run(SquareTask(), recipe(steps=2), tmp_path)
    with pytest.raises(InputError, match=r"batch_size was 2, is 3; steps was 2, is 9\. .*--from"):
        run(SquareTask(), recipe(steps=9, batch_size=3, keep=7), tmp_path, resume=True)
    assert run(SquareTask(), recipe(steps=2, keep=7, save_every=1, record_every=9, picture_every=1, prefetch=0), tmp_path, resume=True) == []


def test_a_batch_that_cannot_be_made_stops_the_training(tmp_path) -> None:
    class Broken(SquareTask):
        def batch(self, draw):
            if draw.step == 1:
                raise InputError("no object is left")
            return super().batch(draw)

    begun = time.monotonic()
    with pytest.raises(InputError, match="no object is left"):
        run(Broken(), recipe(), tmp_path)
    assert time.monotonic() - begun < 5


def test_a_folder_that_is_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="training could not be written: Not a directory"):
        run(SquareTask(), recipe(), tmp_path / "file" / "training")


def test_a_training_keeps_the_memory_format_of_its_weights_over_a_stop(tmp_path) -> None:
    class ChannelsLast(SquareTask):
        def __init__(self) -> None:
            super().__init__()
            self.model = self.model.to(memory_format=torch.channels_last)

    whole, stopped = ChannelsLast(), ChannelsLast()
    run(whole, recipe(), tmp_path / "whole")
    steps = train(ChannelsLast(), recipe(), tmp_path / "stopped")
    next(steps)
    steps.close()
    run(stopped, recipe(), tmp_path / "stopped", resume=True)
    assert same_tensors(tmp_path / "whole", tmp_path / "stopped")
    assert stopped.model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.cuda
def test_a_training_on_a_gpu_goes_on_where_it_stopped(tmp_path) -> None:
    settings = recipe(precision="bfloat16")
    list(train(SquareTask(), settings, tmp_path / "whole", device="cuda"))
    steps = train(SquareTask(), settings, tmp_path / "stopped", device="cuda")
    next(steps)
    steps.close()
    list(train(SquareTask(), settings, tmp_path / "stopped", device="cuda", resume=True))
    whole, stopped = load_state(tmp_path / "whole").tensors, load_state(tmp_path / "stopped").tensors
    for name, tensor in whole.items():
        torch.testing.assert_close(stopped[name], tensor, rtol=1e-2, atol=1e-3)  # sums on a GPU have no fixed order
