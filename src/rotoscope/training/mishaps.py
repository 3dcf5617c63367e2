"""What to say, and to keep, when a training cannot go on."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

import safetensors.torch

from rotoscope._files import write_atomically
from rotoscope.errors import TrainingError
from rotoscope.training.recipe import Recipe
from rotoscope.training.task import Batch


def require_finite(folder: Path, step: int, figures: Mapping[str, float], batches: Sequence[Batch], rank: int) -> None:
    """Stop when the loss or the norm of the gradient is no finite number.

    Args:
        folder: where to save the step's batches then: the tensors of part P are named `part-P.NAME`.
        step: of the training.
        figures: `loss` and `gradient_norm` are looked at.
        batches: of the parts of the step, in this process.
        rank: of this process; each saves a file of its own.

    Raises:
        TrainingError: names the file and what to try.
        OutputError: the batches cannot be saved.
    """
    wrong = [f"{name} is {figures[name]}" for name in ("loss", "gradient_norm") if not isfinite(figures[name])]
    if not wrong:
        return
    process = f"-process-{rank}" if rank else ""
    path = folder / f"not-finite-step-{step}{process}.safetensors"
    tensors = {
        f"part-{part}.{name}": tensor.to("cpu", copy=True).contiguous() for part, batch in enumerate(batches) for name, tensor in batch.items()
    }
    write_atomically(path, safetensors.torch.save(tensors))
    message = (
        f"step {step}: {' and '.join(wrong)}; the batch is saved in {path}, and the last saved state is whole. Look at the batch; "
        "if nothing is wrong with it, train with a lower rate, a smaller clip_norm, or precision=float32"
    )
    raise TrainingError(message)


def out_of_memory(step: int, recipe: Recipe, device: str, fits: Callable[[int], bool]) -> TrainingError:
    """What to raise when a batch did not fit: it says which size does, found by halving, and how to keep the samples of a step.

    Args:
        step: of the training.
        recipe: whose batch did not fit.
        device: which has too little memory.
        fits: whether a batch of so many samples does.
    """
    largest = recipe.batch_size // 2
    while largest and not fits(largest):
        largest //= 2
    samples = recipe.batch_size * recipe.accumulate
    size = max((size for size in range(1, largest + 1) if samples % size == 0), default=0)
    advice = f"batch_size={size} accumulate={samples // size} fits, with as many samples in a step" if size else "make frames or clips smaller"
    return TrainingError(f"step {step}: a batch of {recipe.batch_size} needs more memory than {device} has; {advice}")
