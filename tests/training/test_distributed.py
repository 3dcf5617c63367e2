import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from training_task import RestingTask, recipe

from rotoscope.errors import TrainingError
from rotoscope.training.loop import train
from rotoscope.training.processes import Processes, is_first, joined, local_device
from rotoscope.training.state import load_state

SECOND_OF_TWO = """
import sys, torch
from training_task import RestingTask, recipe
from rotoscope.training.loop import train
torch.set_num_threads(1)
for progress in train(RestingTask(broken=len(sys.argv) > 2), recipe(accumulate=2, prefetch=0), sys.argv[1]):
    print(progress.figures["loss"])
"""


@contextmanager
def a_second_process(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that trains, and the environment in which this one is the first of the two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "RANK": "1", "LOCAL_RANK": "1"}
    command = [sys.executable, "-c", SECOND_OF_TWO, *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def losses_of(folder: Path, settings, *, broken: bool = False) -> list[float]:
    return [progress.figures["loss"] for progress in train(RestingTask(broken=broken), settings, folder)]


def test_two_processes_train_like_one_that_accumulates_twice_as_much(tmp_path, monkeypatch) -> None:
    with a_second_process(monkeypatch, str(tmp_path / "two")) as second:
        assert is_first()
        ours = losses_of(tmp_path / "two", recipe(accumulate=2, prefetch=0))
        theirs = [float(line) for line in second.communicate(timeout=60)[0].split()]
    monkeypatch.delenv("MASTER_ADDR")
    alone = losses_of(tmp_path / "one", recipe(accumulate=4))
    assert ours == theirs
    torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-6)
    one, two = load_state(tmp_path / "one"), load_state(tmp_path / "two")
    assert one.tensors.keys() == two.tensors.keys()
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], tensor, rtol=1e-4, atol=1e-6)
    assert (tmp_path / "two" / "metrics.csv").read_text().count("\n") == 7  # one process writes


def test_all_processes_stop_at_numbers_that_are_not_finite(tmp_path, monkeypatch) -> None:
    with a_second_process(monkeypatch, str(tmp_path), "broken") as second:
        with pytest.raises(TrainingError, match="step 2: loss is nan"):
            losses_of(tmp_path, recipe(accumulate=2, prefetch=0), broken=True)
        assert "step 2: loss is nan" in second.communicate(timeout=60)[1]
    names = {path.name for path in tmp_path.glob("not-finite-*")}
    assert names == {"not-finite-step-2.safetensors", "not-finite-step-2-process-1.safetensors"}


def test_without_torchrun_there_is_one_process(monkeypatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert is_first()
    with joined("cpu") as processes:
        assert processes == Processes(torch.device("cpu"), 0, 1)
        assert processes.writes


@pytest.mark.parametrize(("world", "expected"), [("1", "cuda"), ("2", "cuda:1")])
def test_under_torchrun_each_process_has_its_own_gpu(monkeypatch, world, expected) -> None:
    for name, value in {"MASTER_ADDR": "localhost", "WORLD_SIZE": world, "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert local_device("cuda") == torch.device(expected)
    assert is_first() == (world == "1")
