"""The training loop: plain PyTorch, one process or several, for every system; what is trained, and on what, is the task's."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rotoscope.training.average import MovingAverage
from rotoscope.training.batches import made_ahead
from rotoscope.training.mishaps import out_of_memory, require_finite
from rotoscope.training.processes import Processes, joined
from rotoscope.training.recipe import Recipe
from rotoscope.training.record import Record
from rotoscope.training.state import claimed, gathered, load_state, require_same_training, restore, save_state
from rotoscope.training.task import Batch, Draw, ParameterGroup, StepLosses, Task

_NOISE_STREAM = 0x9E3779B97F4A7C15  # sets the network's random numbers apart from the batch's, which come from the same draw
_STEPS_TIMED = 50  # the speed is that of the last so many steps


@dataclass(frozen=True, slots=True)
class Progress:
    """What there is to tell after a step.

    Attributes:
        step: how many steps are done.
        steps: how many there are.
        figures: of this step: `loss`, those of the task, `gradient_norm` (before clipping), `rate/GROUP`, `samples_per_second`.
        seconds_left: at the present speed.
    """

    step: int
    steps: int
    figures: Mapping[str, float]
    seconds_left: float


def train(
    task: Task, recipe: Recipe, folder: str | Path, *, device: str | torch.device = "cpu", resume: bool = False, tensorboard: bool = False
) -> Generator[Progress, None, None]:
    """Train, one step at each turn; whoever stops iterating stops the training, and its state is saved.

    A resumed training gives the same weights as one that was never stopped: a batch, and the global random numbers while it is worked on, are
    functions of the seed, the step and the part. Under `torchrun` the parts of a step are shared out among the processes: with W of them the
    weights are those of one process that accumulates W times as many parts.

    Args:
        task: what is trained.
        recipe: for how long, and how.
        folder: of the states, the record and the pictures; see `state` and `record`.
        device: where; under `torchrun` "cuda" is the GPU of each process.
        resume: go on with the training in the folder.
        tensorboard: write curves too.

    Yields:
        How far the training is, after each step.

    Raises:
        OutputError: the folder holds a training and `resume` is off, another training writes to it, or it cannot be written.
        InputError: there is nothing to resume, or it was started with another recipe.
        TrainingError: numbers that are not finite (the batch is saved), or too little memory (the message says what fits). Saved states stay.
    """
    folder = Path(folder)
    with joined(device) as processes, claimed(folder, resume=resume) if processes.writes else nullcontext():
        training = _Training(task, recipe, folder, processes)
        start = training.resume() if resume else 0
        if processes.writes and not resume:
            training.save(0)
        with closing(Record(folder, start, tensorboard=tensorboard)) if processes.writes else nullcontext() as record:
            yield from _steps(training, record, start)


def _steps(training: "_Training", record: Record | None, start: int) -> Generator[Progress, None, None]:
    """The steps from one on; a line of the record, a picture and a saved state when they are due."""
    recipe = training.recipe
    ends = deque([time.perf_counter()], maxlen=_STEPS_TIMED + 1)
    saved = start
    with closing(made_ahead(training.batch, training.draws(start), ahead=recipe.prefetch)) as batches:
        for step in range(start, recipe.steps):
            done = step + 1
            wants_picture = record is not None and recipe.picture_every > 0 and step % recipe.picture_every == 0
            figures, losses = training.step(step, batches, with_pictures=wants_picture)
            ends.append(time.perf_counter())
            seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
            figures["samples_per_second"] = training.samples_per_step / max(seconds, 1e-9)
            if record:
                record.add(figures)
                if done % recipe.record_every == 0 or done == recipe.steps:
                    record.write(done)
                if wants_picture and losses.pictures is not None:
                    record.draw(step, losses.pictures)
            if done % recipe.save_every == 0 or done == recipe.steps:
                training.save(done)
                saved = done
            try:
                yield Progress(done, recipe.steps, figures, (recipe.steps - done) * seconds)
            except GeneratorExit:
                if saved != done:
                    training.save(done)
                raise


class _Training:
    """All that changes during a training: the weights, the optimiser, the average."""

    def __init__(self, task: Task, recipe: Recipe, folder: Path, processes: Processes) -> None:
        self.recipe = recipe
        self.samples_per_step = recipe.batch_size * recipe.accumulate * processes.world
        self._task, self._folder, self._processes = task, folder, processes
        self._model = task.model.to(processes.device)
        self._model.train()
        self._groups = list(task.parameter_groups())
        self._trained = [parameter for group in self._groups for parameter in group.parameters]
        self._optimiser = _optimiser(recipe, self._groups)
        self._average = None if recipe.average_decay is None else MovingAverage(self._model, self._trained, recipe.average_decay)
        self._losses = _Losses(task)
        self._parallel = processes.wrap(self._losses)

    def resume(self) -> int:
        """Take up the newest state; how many steps are done."""
        state = load_state(self._folder)
        require_same_training(state, self.recipe, type(self._task).__qualname__)
        restore(state, self._model, self._optimiser, self._average)
        return state.step

    def save(self, done: int) -> None:
        """Save the state after so many steps, if this process is the one that writes."""
        if self._processes.writes:
            tensors = gathered(self._model, self._optimiser, self._average)
            save_state(self._folder, done, tensors, recipe=self.recipe, task=type(self._task).__qualname__)

    def draws(self, start: int) -> Iterator[Draw]:
        """What this process draws from a step on."""
        return (self._draw(step, part) for step in range(start, self.recipe.steps) for part in range(self.recipe.accumulate))

    def batch(self, draw: Draw) -> Batch:
        """The batch of a draw, in memory from which a GPU can fetch it while it computes."""
        batch = self._task.batch(draw)
        if self._processes.device.type != "cuda":
            return batch
        return {name: tensor.pin_memory() if tensor.device.type == "cpu" else tensor for name, tensor in batch.items()}

    def step(self, step: int, batches: Iterator[Batch], *, with_pictures: bool) -> tuple[dict[str, float], StepLosses]:
        """Do one step of the optimiser; its figures, and the losses of its first part."""
        seen, parts = list[Batch](), list[StepLosses]()
        rates = self._set_rates(step)
        try:
            for part in range(self.recipe.accumulate):
                seen.append(next(batches))
                parts.append(self._backward(seen[part], self._draw(step, part), with_pictures=with_pictures and part == 0))
            norm = self._clip()
            figures = self._figures(parts, norm)
            require_finite(self._folder, step, figures, seen, self._processes.rank)
            self._optimiser.step()
        except torch.OutOfMemoryError:
            figures = {}  # dealt with below, where the exception no longer holds the tensors of the failed pass
        if not figures:
            parts.clear()
            # Several processes cannot try: each would wait for the others.
            raise out_of_memory(step, self.recipe, str(self._processes.device), lambda size: self._processes.world == 1 and self._fits(step, size))
        self._model.zero_grad(set_to_none=True)
        if self._average:
            self._average.update(step)
        return {**figures, **rates}, parts[0]

    def _draw(self, step: int, part: int) -> Draw:
        """Of W processes each takes every W-th part of a step."""
        processes = self._processes
        return Draw(step, part * processes.world + processes.rank, self.recipe.batch_size, self.recipe.seed)

    def _set_rates(self, step: int) -> dict[str, float]:
        rates = {f"rate/{group.name}": group.rate.at(step) for group in self._groups}
        for settings, rate in zip(self._optimiser.param_groups, rates.values(), strict=True):
            settings["lr"] = rate
        return rates

    def _backward(self, batch: Batch, draw: Draw, *, with_pictures: bool) -> StepLosses:
        """Add a part's share to the gradients; processes exchange them with the last part of a step alone."""
        device, accumulate = self._processes.device, self.recipe.accumulate
        is_last = draw.part // self._processes.world == accumulate - 1
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        torch.manual_seed((draw.generator().initial_seed() ^ _NOISE_STREAM) % 2**63)
        with nullcontext() if is_last or self._processes.world == 1 else self._parallel.no_sync():  # type: ignore[operator] # of DistributedDataParallel
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                total = self._parallel(moved, draw.step, with_pictures=with_pictures)
            (total / accumulate).backward()
        losses, self._losses.latest = self._losses.latest, None
        assert losses is not None
        return StepLosses(losses.total.detach(), losses.figures, losses.pictures)

    def _clip(self) -> Float[Tensor, ""]:
        """The norm of the gradients of all parts and processes, which are clipped if the recipe says so."""
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._trained, self.recipe.clip_norm, norm)
        return norm

    def _figures(self, parts: list[StepLosses], norm: Tensor) -> dict[str, float]:
        """The means over the parts and processes; the one place of a step that waits for the device."""
        rows = [{"loss": losses.total, **losses.figures} for losses in parts]
        means = [torch.stack([row[name].detach().to(norm.device, torch.float32) for row in rows]).mean() for name in rows[0]]
        values = self._processes.mean(torch.stack([*means, norm.float()]))
        return dict(zip([*rows[0], "gradient_norm"], values.tolist(), strict=True))

    def _fits(self, step: int, size: int) -> bool:
        """Whether a batch of so many samples can be worked on; what the attempt before left in memory is freed first."""
        self._losses.latest = None
        self._model.zero_grad(set_to_none=True)
        if self._processes.device.type == "cuda":
            torch.cuda.empty_cache()
        draw = Draw(step, 0, size, self.recipe.seed)
        try:
            self._backward(self._task.batch(draw), draw, with_pictures=False)
        except torch.OutOfMemoryError:
            return False
        return True


class _Losses(nn.Module):
    """The losses of a task as the forward pass of a module, which is what can be spread over processes."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self.latest: StepLosses | None = None
        self._task = task

    def forward(self, batch: Batch, step: int, *, with_pictures: bool) -> Tensor:
        """The total; the rest is left in `latest`."""
        self.latest = self._task.losses(batch, step, with_pictures=with_pictures)
        return self.latest.total


def _optimiser(recipe: Recipe, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
    """The optimiser of a recipe; the rates are set before each step."""
    settings = [{"params": list(group.parameters), "weight_decay": group.weight_decay} for group in groups]
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": partial(torch.optim.SGD, momentum=recipe.momentum),
    }
    return kinds[recipe.optimiser](settings, lr=0.0)
