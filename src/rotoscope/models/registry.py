"""The table of models as a whole, and how to find, load and build what is in it."""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rotoscope.errors import CheckpointError, InputError
from rotoscope.models.table import ROWS, ModelSpec, Task

if TYPE_CHECKING:
    from rotoscope.models.checkpoints import Checkpoint, RenameRules
    from rotoscope.types import Detector, Fuser, MaskMaker, Tracker

SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"

REGISTRY: Mapping[str, ModelSpec] = {row.name: row for row in ROWS}
DEFAULT_TRACKER = "mast-lite"
DEFAULT_MASK_MAKER = "s2m-lite"
DEFAULT_DETECTOR = "yolact-lite"
_WEIGHTS_OPTIONS: Mapping[Task, str] = {"interact": "--interaction-weights", "detect": "--weights (after `track --detect`: --detector-weights)"}


@dataclass(frozen=True, slots=True)
class WeightsStatus:
    """Where the weights of a model are, if they are anywhere.

    Attributes:
        path: the file, or None.
        where: "package", "imported" or "missing".
    """

    path: Path | None
    where: Literal["package", "imported", "missing"] = "missing"


def list_models(task: Task | None = None) -> list[ModelSpec]:
    """The rows of the table, in its order; with `task`, those that do it."""
    return [spec for spec in REGISTRY.values() if task in (None, spec.task)]


def spec_of(name: str) -> ModelSpec:
    """The row of a model; "default" means the tracker that ships.

    Raises:
        InputError: no such model; the message lists those there are.
    """
    spec = REGISTRY.get(DEFAULT_TRACKER if name == "default" else name)
    if spec is None:
        message = f"there is no model '{name}'; models: default, {', '.join(REGISTRY)}"
        raise InputError(message)
    return spec


def imported_weights_folder() -> Path:
    """Where `rotoscope weights import` puts converted weights: $ROTOSCOPE_WEIGHTS, or a folder in the user's home."""
    stated = os.environ.get("ROTOSCOPE_WEIGHTS")
    return Path(stated) if stated else Path.home() / ".local" / "share" / "rotoscope" / "weights"


def find_weights(spec: ModelSpec) -> WeightsStatus:
    """The weights file that `load` takes when none is named: an imported one first, then the one in the package."""
    file_name = f"{spec.name}.safetensors"
    imported = imported_weights_folder() / file_name
    if imported.is_file():
        return WeightsStatus(imported, "imported")
    if spec.shipped and (SHIPPED_WEIGHTS / file_name).is_file():
        return WeightsStatus(SHIPPED_WEIGHTS / file_name, "package")
    return WeightsStatus(None)


def load(name: str = "default", *, weights: str | Path | None = None, device: str = "auto", **settings: object) -> "Tracker":
    """A tracker with its weights, ready to follow objects.

    Args:
        name: a name from `list_models`, or "default".
        weights: a file: official weights, or ours. By default what was imported, or what ships.
        device: "cpu", "cuda", "cuda:1", ..., or "auto": CUDA where there is one.
        settings: fields of the model's config to change, such as `precision="bfloat16"`, `compile=True` or `long_edge=800` for AOT.

    Raises:
        InputError: no such model, device or setting.
        CheckpointError: no weights, or weights that do not fit the model.

    Example:
        >>> import rotoscope
        >>> tracker = rotoscope.load("mast-lite", device="cpu")
        >>> propagator = tracker.start(max_memory_bytes=512 * 2**20)
    """
    tracker: Tracker = _load(name, "track", weights, device, settings)
    return tracker


def load_mask_maker(name: str = DEFAULT_MASK_MAKER, *, weights: str | Path | None = None, device: str = "auto", **settings: object) -> "MaskMaker":
    """A model that makes masks of interactions, with its weights; the arguments and errors are those of `load`."""
    maker: MaskMaker = _load(name, "interact", weights, device, settings)
    return maker


def load_fuser(name: str = "fusion", *, weights: str | Path | None = None, device: str = "auto", **settings: object) -> "Fuser":
    """A model that joins the results of two rounds, with its weights; the arguments and errors are those of `load`."""
    fuser: Fuser = _load(name, "fuse", weights, device, settings)
    return fuser


def load_detector(name: str = DEFAULT_DETECTOR, *, weights: str | Path | None = None, device: str = "auto", **settings: object) -> "Detector":
    """A model that finds objects without being told where, with its weights; the arguments and errors are those of `load`.

    Settings of YOLACT are the fields of `YolactConfig`, such as `min_score=0.15`, `only_classes=("person",)` or `suppression="classic"`.
    """
    detector: Detector = _load(name, "detect", weights, device, settings)
    return detector


def _load(name: str, task: Task, weights: str | Path | None, device: str, settings: Mapping[str, object]) -> Any:
    from rotoscope.models.checkpoints import read_checkpoint

    spec = spec_of(name)
    if spec.task != task:
        message = (
            f"'{spec.name}' is not made for this: its task is '{spec.task}'; models that {task}: {', '.join(row.name for row in list_models(task))}"
        )
        raise InputError(message)
    path = Path(weights) if weights is not None else find_weights(spec).path
    if path is None:
        files = " or ".join(spec.official_files) or "a weights file"
        message = (
            f"'{spec.name}' ships no weights; get {files} from {spec.origin} (licence: {spec.licence}), "
            f"then run `rotoscope weights import FILE --model {spec.name}`, or name the file with {_WEIGHTS_OPTIONS.get(spec.task, '--weights')}"
        )
        raise CheckpointError(message)
    return build(spec, read_checkpoint(path), device=pick_device(device), settings=settings)


def build(spec: ModelSpec, checkpoint: "Checkpoint", *, device: str, settings: Mapping[str, object] | None = None) -> Any:
    """The model of a row with the weights of a checkpoint: a Tracker, Detector, MaskMaker or Fuser, by its task.

    Raises:
        CheckpointError: the checkpoint is of another model, or does not fit.
        InputError: the model has no such setting.
    """
    if checkpoint.model is not None and checkpoint.model != spec.name:
        message = f"{checkpoint.path} holds weights of '{checkpoint.model}', not of '{spec.name}'; use --model {checkpoint.model}"
        raise CheckpointError(message)
    module = module_of(spec)
    return module.build(_with_settings(spec, module.VARIANTS[spec.name], settings or {}), checkpoint, device)


def _with_settings(spec: ModelSpec, config: Any, settings: Mapping[str, object]) -> Any:
    known = {entry.name for entry in fields(config)}
    unknown = sorted(set(settings) - known)
    if unknown:
        message = f"'{spec.name}' has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        raise InputError(message)
    return replace(config, **{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def module_of(spec: ModelSpec) -> Any:
    """The imported module of a row."""
    return importlib.import_module(f"rotoscope.models.{spec.module}")


def official_names(spec: ModelSpec) -> "RenameRules":
    """The rules from the official keys of a model to ours; most modules have one set for all their variants."""
    module = module_of(spec)
    if hasattr(module, "official_names"):
        by_variant: RenameRules = module.official_names(module.VARIANTS[spec.name])
        return by_variant
    shared: RenameRules = module.OFFICIAL_NAMES
    return shared


def identify(checkpoint: "Checkpoint") -> list[str]:
    """The names of the models that a checkpoint fits, by its keys and shapes; of several the one whose official file is called like it, if it is."""
    names = []
    for spec in REGISTRY.values():
        try:
            build(spec, checkpoint, device="cpu")
        except CheckpointError:
            continue
        names.append(spec.name)
    named = [name for name in names if Path(checkpoint.path).name in REGISTRY[name].official_files]
    return named or names


def pick_device(device: str) -> str:
    """The device to run on; "auto" is CUDA where there is one, and the CPU otherwise.

    Raises:
        InputError: the device does not exist here; there is no silent fallback.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        message = f"device '{device}' cannot be used here ({reason}); use --device cpu, or auto"
        raise InputError(message) from error
    return device
