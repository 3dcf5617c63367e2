"""Weights in and out: read them safely, rename official keys to ours, and load them strictly or not at all."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rotoscope._files import write_atomically
from rotoscope.errors import CheckpointError

SOURCE_KEY = "rotoscope.source"
"""Metadata entry of our safetensors files: "official" for converted official weights, "rotoscope" for our own."""
MODEL_KEY = "rotoscope.model"
"""Metadata entry of our safetensors files: the registry name of the model."""

RenameRules = Sequence[tuple[str, str]]
"""Regular expressions and what replaces them, tried in order; the first that matches a whole key renames it, or with "" leaves the entry out."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Named tensors and where they come from.

    Attributes:
        tensors: the state dict, without any `module.` prefix.
        path: the file, for messages.
        official: whether they are (converted) weights of the official release, so that its known bugs must be reproduced.
        converted: whether the keys are ours already.
        model: the registry name the file states, or None.
        notes: what else our files state.
    """

    tensors: dict[str, Tensor]
    path: str
    official: bool = True
    converted: bool = False
    model: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Weights from a .safetensors file of ours, or from a PyTorch file of tensors alone.

    PyTorch files are opened with `weights_only=True` and nothing else is ever tried: a file that needs more could run code.

    Raises:
        CheckpointError: no such file, not a checkpoint, unsafe, or without tensors.
    """
    path = Path(path)
    if not path.is_file():
        message = f"there is no weights file {path}; `rotoscope weights list` names the files and where they come from"
        raise CheckpointError(message)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _unpickle(path)
    tensors = _find_state_dict(content)
    if not tensors:
        message = f"{path} holds no named tensors; expected a state dict, or a dict with one under 'state_dict', 'model' or 'net'"
        raise CheckpointError(message)
    return Checkpoint({key.removeprefix("module."): value for key, value in tensors.items()}, str(path))


def rename(checkpoint: Checkpoint, rules: RenameRules) -> Checkpoint:
    """The checkpoint under our names; unchanged if it has them already.

    Raises:
        CheckpointError: a key that no rule knows, or two keys that would get the same name.
    """
    if checkpoint.converted:
        return checkpoint
    tensors: dict[str, Tensor] = {}
    unknown = []
    for key, value in checkpoint.tensors.items():
        ours = _apply_rules(key, rules)
        if ours is None:
            unknown.append(key)
        elif not ours:
            continue
        elif ours in tensors:
            message = f"{checkpoint.path}: two entries mean '{ours}'; the file mixes two models"
            raise CheckpointError(message)
        else:
            tensors[ours] = value
    if unknown:
        message = f"{checkpoint.path} is not of this model: it holds {_some(unknown)}, which the model does not know"
        raise CheckpointError(message)
    return Checkpoint(tensors, checkpoint.path, official=checkpoint.official, converted=True, model=checkpoint.model)


def load_strictly(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Fill a module with a checkpoint whose names are ours: every tensor, of the right shape, all finite.

    Raises:
        CheckpointError: names the entries that are missing, left over, of another shape, or not finite; the module is then unchanged.
    """
    wanted = module.state_dict()
    problems = []
    if missing := [key for key in wanted if key not in checkpoint.tensors and not key.endswith("num_batches_tracked")]:
        problems.append(f"lacks {_some(missing)}")
    if extra := [key for key in checkpoint.tensors if key not in wanted and not key.endswith("num_batches_tracked")]:
        problems.append(f"holds {_some(extra)}, which the model does not know")
    shared = [key for key in wanted if key in checkpoint.tensors]
    if reshaped := [_shapes(key, checkpoint.tensors[key], wanted[key]) for key in shared if checkpoint.tensors[key].shape != wanted[key].shape]:
        problems.append(f"has other shapes: {_some(reshaped)}")
    if broken := [key for key in shared if not bool(torch.isfinite(checkpoint.tensors[key]).all())]:
        problems.append(f"holds numbers that are not finite in {_some(broken)}")
    if problems:
        message = f"{checkpoint.path} does not fit the model: it " + "; it ".join(problems)
        raise CheckpointError(message)
    module.load_state_dict({key: checkpoint.tensors[key].to(wanted[key].dtype) for key in shared}, strict=False)


def write_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], *, model: str, official: bool, notes: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically, with the model's name and origin in the metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    metadata = {SOURCE_KEY: "official" if official else "rotoscope", MODEL_KEY: model, **(notes or {})}
    content = safetensors.torch.save({key: value.contiguous() for key, value in tensors.items()}, metadata)
    write_atomically(Path(path), content)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict: it cannot be iterated
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        message = f"{path} is not a readable safetensors file: {error}"
        raise CheckpointError(message) from error
    source = metadata.get(SOURCE_KEY)
    model = metadata.get(MODEL_KEY)
    return Checkpoint(tensors, str(path), official=source != "rotoscope", converted=source is not None, model=model, notes=metadata)


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        message = f"{path} is not a checkpoint of tensors alone, so it was not opened (it could run code, or it is damaged): {reason}"
        raise CheckpointError(message) from error


def _find_state_dict(content: Any) -> dict[str, Tensor]:
    """The first mapping of names to tensors: the content itself, or under one of the usual keys."""
    if not isinstance(content, Mapping):
        return {}
    for candidate in (content, *(content.get(key) for key in ("state_dict", "model", "net", "network"))):
        if isinstance(candidate, Mapping) and candidate and all(isinstance(value, Tensor) for value in candidate.values()):
            return {str(key): value for key, value in candidate.items()}
    return {}


def _apply_rules(key: str, rules: RenameRules) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return None


def _shapes(key: str, got: Tensor, wanted: Tensor) -> str:
    return f"{key} {list(got.shape)} instead of {list(wanted.shape)}"


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
