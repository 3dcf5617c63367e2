"""The saved states of a training, and the weights it gives.

FOLDER/states/step-00001000.safetensors   weights, what the optimiser holds, the moving average
FOLDER/states/step-00001000.json          the step, the recipe, the versions; written last: a state without it does not count
FOLDER/.lock                              held while a training writes to the folder
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rotoscope._files import output_error, write_atomically
from rotoscope._version import __version__
from rotoscope.errors import CheckpointError, InputError, OutputError
from rotoscope.models.checkpoints import Checkpoint, load_strictly, write_checkpoint
from rotoscope.training.average import MovingAverage
from rotoscope.training.recipe import Recipe

HARMLESS = frozenset({"save_every", "keep", "record_every", "picture_every", "prefetch"})
"""Fields of a recipe that may change when a training is resumed: they touch no weight."""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a training goes on from; random numbers and samples are functions of the seed and the step, and need not be kept.

    Attributes:
        step: how many steps are done.
        recipe: the settings, as JSON values.
        task: the name of the task's class.
        tensors: by role and name: `model.…`, `optimiser.…`, `average.…`.
        path: the file, for messages.
    """

    step: int
    recipe: Mapping[str, Any]
    task: str
    tensors: Mapping[str, Tensor]
    path: str


def require_resumable(folder: Path, *, resume: bool) -> None:
    """Make sure that a folder holds a training if one is to be resumed, and none if not.

    Raises:
        OutputError: it holds one.
        InputError: it holds none.
    """
    steps = saved_steps(folder)
    if steps and not resume:
        message = f"{folder} holds a training already, {steps[-1]} steps long; use --resume to go on with it, or choose another folder"
        raise OutputError(message)
    if resume and not steps:
        message = f"{folder} holds no training to resume; start it without --resume"
        raise InputError(message)


@contextmanager
def claimed(folder: Path, *, resume: bool) -> Iterator[None]:
    """The folder of a training, made if need be, and nobody else's meanwhile.

    Raises:
        OutputError: it cannot be written, another training writes to it, or it holds one that is not to be resumed.
        InputError: there is nothing to resume.
    """
    if resume:
        require_resumable(folder, resume=True)  # before anything is made
    try:
        (folder / "states").mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        message = f"another training writes to {folder}; wait for it, or choose another folder"
        raise OutputError(message) from error
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        require_resumable(folder, resume=resume)
        yield
    finally:
        lock.release()


def saved_steps(folder: Path) -> list[int]:
    """The steps at which whole states were saved, ascending."""
    found = (re.fullmatch(r"step-(\d+)\.json", path.name) for path in (folder / "states").glob("step-*.json"))
    return sorted(int(match[1]) for match in found if match)


def save_state(folder: Path, step: int, tensors: Mapping[str, Tensor], *, recipe: Recipe, task: str) -> None:
    """Save a state, whole or not at all, and then delete all but the newest `recipe.keep`.

    Raises:
        OutputError: it cannot be written; the states saved before are unchanged.
    """
    path = _path(folder, step)
    content = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }  # copies: safetensors refuses shared memory
    write_atomically(path, safetensors.torch.save(content), durable=True)
    about = {"step": step, "task": task, "recipe": asdict(recipe), "torch": torch.__version__, "rotoscope": __version__}
    write_atomically(path.with_suffix(".json"), json.dumps(about, indent=1).encode(), durable=True)
    kept = {_path(folder, kept).stem for kept in saved_steps(folder)[-max(1, recipe.keep) :]}
    for old in sorted((folder / "states").glob("step-*")):  # .json before .safetensors: no state ever lacks its tensors
        if old.name.partition(".")[0] not in kept:
            old.unlink(missing_ok=True)


def load_state(folder: str | Path) -> TrainingState:
    """The newest state.

    Raises:
        InputError: there is none.
        CheckpointError: it is damaged.
    """
    folder = Path(folder)
    steps = saved_steps(folder)
    if not steps:
        message = f"{folder} holds no saved state of a training"
        raise InputError(message)
    path = _path(folder, steps[-1])
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        tensors = safetensors.torch.load_file(path)
        return TrainingState(about["step"], about["recipe"], about["task"], tensors, str(path))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        message = f"the saved state {path} is damaged ({error}); delete {path.with_suffix('.json')} to go on from the one before"
        raise CheckpointError(message) from error


def require_same_training(state: TrainingState, recipe: Recipe, task: str) -> None:
    """Make sure that going on with a recipe is what the state was made for.

    Raises:
        InputError: lists the settings that differ; those in `HARMLESS` may.
    """
    now = {"task": task, **json.loads(json.dumps(asdict(recipe)))}
    before = {"task": state.task, **state.recipe}
    names = [name for name in sorted({*now, *before} - HARMLESS) if now.get(name) != before.get(name)]
    if names:
        differences = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in names)
        message = (
            f"{state.path} belongs to a training with another recipe: {differences}. Resume it with the same, or train in another folder "
            "from its weights: `rotoscope train NAME --from WEIGHTS.safetensors`"
        )
        raise InputError(message)


def gathered(model: nn.Module, optimiser: torch.optim.Optimizer, average: MovingAverage | None) -> dict[str, Tensor]:
    """All tensors of a state. The optimiser's are named by the number of their parameter, over all groups."""
    entries = optimiser.state_dict()["state"].items()
    return {
        **{f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        **{f"optimiser.{number}.{name}": value for number, values in entries for name, value in values.items() if isinstance(value, Tensor)},
        **{f"average.{name}": tensor for name, tensor in (average.tensors() if average else {}).items()},
    }


def restore(state: TrainingState, model: nn.Module, optimiser: torch.optim.Optimizer, average: MovingAverage | None) -> None:
    """Put the tensors of a state where they were gathered.

    Raises:
        CheckpointError: they do not fit the model; nothing is changed then.
    """
    load_strictly(model, Checkpoint(_part(state.tensors, "model"), state.path))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _part(state.tensors, "optimiser").items():
        number, _, name = key.partition(".")
        like = parameters[int(number)]
        moments.setdefault(int(number), {})[name] = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape and tensor.ndim else tensor
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    if average:
        average.restore(_part(state.tensors, "average"))


def trained_weights(state: TrainingState) -> dict[str, Tensor]:
    """The weights that a state gives: the moving averages where there are some, and the last weights for the rest."""
    return {**_part(state.tensors, "model"), **_part(state.tensors, "average")}


def export_weights(weights: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str], *, model: str, half: bool = True) -> None:
    """Write weights as a file of a model of the registry, for `rotoscope track --model MODEL --weights FILE`.

    Args:
        weights: such as `trained_weights(load_state(folder))`.
        path: the file, .safetensors.
        metadata: what else the file should say of itself.
        model: the name in the registry.
        half: floats of 16 bits, which halves the file; loading makes them 32 bits again.

    Raises:
        CheckpointError: a weight is not finite, or is too large for 16 bits.
        OutputError: the file cannot be written.
    """
    tensors = {name: tensor.half() if half and tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        message = f"{broken[0]} ({len(broken)} in all) would not be finite in {path}" + ("; export it with half=False" if half else "")
        raise CheckpointError(message)
    write_checkpoint(path, tensors, model=model, official=False, notes=metadata)


def _path(folder: Path, step: int) -> Path:
    return folder / "states" / f"step-{step:08d}.safetensors"


def _part(tensors: Mapping[str, Tensor], role: str) -> dict[str, Tensor]:
    """The tensors of a role, without it in their names."""
    return {name.removeprefix(f"{role}."): tensor for name, tensor in tensors.items() if name.startswith(f"{role}.")}
