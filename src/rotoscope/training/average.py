"""The moving average of the weights, which usually segments better than the last weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class MovingAverage:
    """Parameters averaged over the steps of a training: average = decay * average + (1 - decay) * weights.

    The decay of a step is min(decay, (1 + step) / (10 + step)), so that the first weights are soon forgotten (AOT, official code).

    Args:
        module: whose parameters.
        parameters: those that are trained.
        decay: the largest, in 0..1.
    """

    def __init__(self, module: nn.Module, parameters: Sequence[nn.Parameter], decay: float) -> None:
        wanted = {id(parameter) for parameter in parameters}
        self._module = module
        self._decay = decay
        self._sources = {name: parameter for name, parameter in module.named_parameters() if id(parameter) in wanted}
        self._averages = {name: parameter.detach().clone() for name, parameter in self._sources.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that a step left; the first step is 0."""
        if self._averages:
            decay = min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self._averages.values()), list(self._sources.values()), 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by the names of their parameters; names that share a parameter share its average. They change with the next update."""
        averages = {id(parameter): self._averages[name] for name, parameter in self._sources.items()}
        return {name: averages[id(tensor)] for name, tensor in self._module.named_parameters(remove_duplicate=False) if id(tensor) in averages}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from averages that `tensors` gave."""
        for name, average in self._averages.items():
            average.copy_(tensors[name])
