"""How much memory a training will take, from one small batch."""

from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from rotoscope.training.recipe import Recipe
from rotoscope.training.task import Draw, Task


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of memory that one process takes, of the GPU if it trains there.

    Attributes:
        present: what is taken now: the data, the weights and, on the CPU, all else of this process.
        training: gradients, what the optimiser keeps, and the moving average.
        sample: what each sample of a batch takes until its backward pass is done. On a GPU that is the peak of one small batch; on the CPU what
            autograd kept of it, to which passing buffers come.
        batch_size: of the recipe.
    """

    present: int
    training: int
    sample: int
    batch_size: int

    @property
    def total(self) -> int:
        """Of a training with this batch size."""
        return self.present + self.training + self.sample * self.batch_size


def estimate_memory(task: Task, recipe: Recipe, device: str | torch.device) -> MemoryEstimate:
    """The memory of a training, measured on one or two samples. Their gradients are dropped; buffers of the model may have changed.

    Args:
        task: its model lies on the device.
        recipe: see there.
        device: where.
    """
    device, size = torch.device(device), min(recipe.batch_size, 2)  # batch normalisation may need two
    trained = [parameter for group in task.parameter_groups() for parameter in group.parameters]
    moments = 1 if recipe.optimiser == "sgd" else 2
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    training = gradients * (1 + moments + (recipe.average_decay is not None))
    is_cuda = device.type == "cuda"
    present = torch.cuda.memory_allocated(device) if is_cuda else psutil.Process().memory_info().rss
    batch = {name: tensor.to(device) for name, tensor in task.batch(Draw(0, 0, size, recipe.seed)).items()}
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in task.model.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    task.model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            losses = task.losses(batch, 0)
        losses.total.backward()  # type: ignore[no-untyped-call] # torch's stub
    task.model.zero_grad(set_to_none=True)
    taken = max(0, torch.cuda.max_memory_allocated(device) - present - gradients) if is_cuda else sum(kept.values())
    return MemoryEstimate(present, training, taken // size, recipe.batch_size)
