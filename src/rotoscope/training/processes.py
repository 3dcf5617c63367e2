"""Several processes that train one model, as `torchrun` starts them; or one, which needs nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class Processes:
    """Which of how many processes this is.

    Attributes:
        device: of this process.
        rank: from 0; the process of rank 0 is the one that writes.
        world: how many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the training."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module; with several processes one whose backward pass averages the gradients over them."""
        if self.world == 1:
            return module
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            module, device_ids=devices, find_unused_parameters=True
        )  # tasks may rest a part of their network for some steps

    def mean(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The values, averaged over the processes."""
        if self.world > 1:
            dist.all_reduce(values)
            values = values / self.world
        return values


def local_device(device: str | torch.device) -> torch.device:
    """The device of this process: under `torchrun` each has a GPU of its own."""
    chosen = torch.device(device)
    if chosen.type == "cuda" and world_size() > 1:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return chosen


def is_first() -> bool:
    """Whether this is the process that writes and speaks, before `joined` is called and after."""
    return world_size() == 1 or os.environ["RANK"] == "0"


@contextmanager
def joined(device: str | torch.device) -> Iterator[Processes]:
    """The processes that `torchrun` announces in the environment, connected by NCCL on GPUs and by Gloo on CPUs; by default this one alone."""
    chosen, world = local_device(device), world_size()
    if world == 1:
        yield Processes(chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(chosen, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1
