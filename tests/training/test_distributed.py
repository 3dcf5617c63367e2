import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_task import SquareTask, recipe

from rotoscope.training.loop import train
from rotoscope.training.processes import Processes, joined, local_device
from rotoscope.training.state import load_state

ONE_OF_TWO = """
import sys
import torch
from training_task import SquareTask, recipe
from rotoscope.errors import TrainingError
from rotoscope.training.loop import train

class Resting(SquareTask):  # one layer is left out of some steps
    def losses(self, batch, step, *, with_pictures=False):
        self.model[0].requires_grad_(step % 2 == 0)
        if "broken" in sys.argv and step == 2 and self.draws[-1].part % 2:
            batch = {**batch, "images": batch["images"] * float("nan")}
        return super().losses(batch, step, with_pictures=with_pictures)

torch.set_num_threads(1)
task = Resting(normed=False)
settings = recipe(accumulate=2, prefetch=0)
try:
    for progress in train(task, settings, sys.argv[1]):
        print(progress.figures["loss"])
except TrainingError as error:
    print(error)
"""


def two_processes(*arguments: str) -> list[str]:
    """What each of two processes says, that train together in one folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    common = {**os.environ, "PYTHONPATH": path, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ONE_OF_TWO, *arguments]
    started = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True) for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0]
    return said


class Resting(SquareTask):
    def losses(self, batch, step, *, with_pictures=False):
        self.model[0].requires_grad_(step % 2 == 0)
        return super().losses(batch, step, with_pictures=with_pictures)


def test_two_processes_train_like_one_that_accumulates_twice_as_much(tmp_path) -> None:
    said = two_processes(str(tmp_path / "two"))
    alone = [progress.figures["loss"] for progress in train(Resting(normed=False), recipe(accumulate=4), tmp_path / "one")]
    for lines in said:
        torch.testing.assert_close([float(line) for line in lines.split()], alone, rtol=1e-5, atol=1e-6)
    one, two = load_state(tmp_path / "one"), load_state(tmp_path / "two")
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], tensor, rtol=1e-4, atol=1e-6)
    assert (tmp_path / "two" / "metrics.csv").read_text().count("\n") == 7


def test_all_processes_stop_at_numbers_that_are_not_finite(tmp_path) -> None:
    said = two_processes(str(tmp_path), "broken")
    assert all("step 2: loss is nan" in lines for lines in said)
    assert len(list(tmp_path.glob("not-finite-step-2*.safetensors"))) == 2


def test_without_torchrun_there_is_one_process(monkeypatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with joined("cpu") as processes:
        assert processes == Processes(torch.device("cpu"), 0, 1)
        assert processes.writes


@pytest.mark.parametrize(("world", "expected"), [("1", "cuda"), ("2", "cuda:1")])
def test_under_torchrun_each_process_has_its_own_gpu(monkeypatch, world, expected) -> None:
    for name, value in {"MASTER_ADDR": "localhost", "WORLD_SIZE": world, "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert local_device("cuda") == torch.device(expected)
