"""The table of models: what each is called, which file builds it, where its weights come from, and how to load it."""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rotoscope.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from rotoscope.models.checkpoints import Checkpoint, RenameRules
    from rotoscope.types import Fuser, MaskMaker, Tracker

Task = Literal["track", "detect", "interact", "fuse"]
"""What a model does: follow objects, find them, make masks of interactions, join the results of two rounds."""

SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A row of the table.

    Attributes:
        name: what the user calls it.
        task: what it does.
        module: the file that builds it, under `rotoscope.models`; it has VARIANTS, OFFICIAL_NAMES and `build`.
        summary: one line.
        paper: where the method is published.
        origin: where the weights come from.
        licence: the terms of the weights.
        official_files: the names of the official weights files.
        shipped: whether the weights are inside the package.
        published: the official score, with its benchmark.
    """

    name: str
    task: Task
    module: str
    summary: str
    paper: str
    origin: str
    licence: str
    official_files: tuple[str, ...] = ()
    shipped: bool = False
    published: str = ""


_ROWS = (
    ModelSpec(
        name="mast-lite",
        task="track",
        module="mast_lite",
        summary="MAST's memory read over EfficientNet-Lite0 features, with a classifier of the objects' looks learnt on the fly",
        paper="Lai et al., CVPR 2020 (memory read); Tan and Le, ICML 2019 (features)",
        origin="ImageNet weights of EfficientNet-Lite0, in the package",
        licence="Apache-2.0",
        shipped=True,
    ),
    ModelSpec(
        name="mast",
        task="track",
        module="mast",
        summary="self-supervised tracker with two-step memory localisation",
        paper="Lai, Lu and Xie, MAST, CVPR 2020",
        origin="the link in the README of the official repository (zlai0/MAST)",
        licence="none stated: the official repository has no licence",
        official_files=("checkpoint.pt",),
        published="J&F 65.5 on DAVIS-2017 val",
    ),
    ModelSpec(
        name="rgmp",
        task="track",
        module="rgmp",
        summary="reference-guided mask propagation on ResNet-50, three scales",
        paper="Oh et al., CVPR 2018",
        origin="the link in the README of the official repository (seoungwugoh/RGMP)",
        licence="non-commercial research only, says the official README",
        official_files=("weights.pth",),
        published="J&F 81.8 on DAVIS-2016 val, 66.7 on DAVIS-2017 val",
    ),
    ModelSpec(
        name="rgmp-lite",
        task="track",
        module="rgmp",
        summary="RGMP's design on EfficientNet-Lite0, half as wide",
        paper="Oh et al., CVPR 2018 (design); Tan and Le, ICML 2019 (encoder)",
        origin="your own training: `rotoscope train rgmp-lite --data IMAGES`",
        licence="none: there are no weights to download",
    ),
)

_LITE_ROW = ModelSpec(
    name="deaot-lite",
    task="track",
    module="aot",
    summary="DeAOT-T's design on EfficientNet-Lite0, trained on clips made from static images",
    paper="Yang and Yang, NeurIPS 2022 (DeAOT); Tan and Le, ICML 2019 (encoder)",
    origin="trained by this project, in the package",
    licence="research use: the terms of the training images, see the model card",
    shipped=True,
)
_AOT_PAPER = "Yang, Wei and Yang, NeurIPS 2021"
_DEAOT_PAPER = "Yang and Yang, NeurIPS 2022"
_AOT_SUMMARIES = {
    # name: summary, official file without its stage, published score
    "aot-t": ("AOT on MobileNetV2, 1 layer", "AOTT", "J&F 79.2 on DAVIS-2017 val"),
    "aot-s": ("AOT on MobileNetV2, 2 layers", "AOTS", "J&F 82.1 on DAVIS-2017 val"),
    "aot-b": ("AOT on MobileNetV2, 3 layers", "AOTB", "J&F 83.3 on DAVIS-2017 val"),
    "aot-l": ("AOT on MobileNetV2, 3 layers, growing memory", "AOTL", "J&F 83.6 on DAVIS-2017 val"),
    "r50-aot-l": ("AOT on ResNet-50, growing memory", "R50_AOTL", "J&F 85.2 on DAVIS-2017 val"),
    "r101-aot-l": ("AOT on ResNet-101, growing memory", "", ""),
    "rs101-aot-l": ("AOT on ResNeSt-101, growing memory", "", ""),
    "swinb-aot-l": ("AOT on Swin-B, growing memory", "SwinB_AOTL", "J&F 85.9 on DAVIS-2017 val"),
    "deaot-t": ("DeAOT on MobileNetV2, 1 layer", "DeAOTT", "82.0 on YouTube-VOS 2018 val"),
    "deaot-s": ("DeAOT on MobileNetV2, 2 layers", "DeAOTS", "84.0 on YouTube-VOS 2018 val"),
    "deaot-b": ("DeAOT on MobileNetV2, 3 layers", "DeAOTB", "84.6 on YouTube-VOS 2018 val"),
    "deaot-l": ("DeAOT on MobileNetV2, 3 layers, growing memory", "DeAOTL", "84.8 on YouTube-VOS 2018 val"),
    "r50-deaot-l": ("DeAOT on ResNet-50, growing memory", "R50_DeAOTL", "86.0 on YouTube-VOS 2018 val"),
    "swinb-deaot-l": ("DeAOT on Swin-B, growing memory", "SwinB_DeAOTL", "J&F 86.2 on DAVIS-2017 val"),
}
_AOT_ROWS = tuple(
    ModelSpec(
        name=name,
        task="track",
        module="aot",
        summary=summary,
        paper=_DEAOT_PAPER if "deaot" in name else _AOT_PAPER,
        origin="the model zoo of the official repository (yoxu515/aot-benchmark)" if stem else "nobody: weights of it were never released",
        licence="BSD-3-Clause (the repository's)" if stem else "none: there are no official weights",
        official_files=(f"{stem}_PRE_YTB_DAV.pth", f"{stem}_PRE.pth") if stem else (),
        published=published,
    )
    for name, (summary, stem, published) in _AOT_SUMMARIES.items()
)

_MIVOS_PAPER = "Cheng, Tai and Tang, MiVOS, CVPR 2021"
_MIVOS_ORIGIN = "the link in the README of the official repository (hkchengrex/MiVOS)"
_MIVOS_ROWS = (
    ModelSpec(
        name="mivos",
        task="track",
        module="mivos",
        summary="space-time memory read by its top 50 cells, for masks given on any frames",
        paper=_MIVOS_PAPER,
        origin=_MIVOS_ORIGIN,
        licence="MIT (the repository's)",
        official_files=("propagation_model.pth",),
        published="J&F 84.5 on DAVIS-2017 val; AUC 87.9 on DAVIS interactive, with s2m and fusion",
    ),
    ModelSpec(
        name="s2m",
        task="interact",
        module="s2m",
        summary="scribbles to masks, by DeepLabV3+",
        paper=_MIVOS_PAPER,
        origin=_MIVOS_ORIGIN,
        licence="MIT (the repository's)",
        official_files=("s2m.pth",),
    ),
    ModelSpec(
        name="fusion",
        task="fuse",
        module="fusion",
        summary="joins the masks before and after a correction, minding what it changed",
        paper=_MIVOS_PAPER,
        origin=_MIVOS_ORIGIN,
        licence="MIT (the repository's)",
        official_files=("fusion.pth",),
    ),
)

_INTERACTIVE_ROWS = (
    ModelSpec(
        name="s2m-lite",
        task="interact",
        module="s2m_lite",
        summary="clicks, boxes, lines and painted masks to masks, by EfficientNet-Lite0 and a light DeepLabV3+",
        paper="ours; Chen et al., DeepLabV3+, ECCV 2018; Tan and Le, ICML 2019 (features)",
        origin="`rotoscope train s2m-lite`",
        licence="that of the images it is trained on",
    ),
    ModelSpec(
        name="fusion-lite",
        task="fuse",
        module="fusion_lite",
        summary="mixes the masks before and after a correction by nearness, and by what the picture shows",
        paper="ours; after Cheng, Tai and Tang, MiVOS, CVPR 2021",
        origin="`rotoscope train fusion-lite`",
        licence="that of the images it is trained on",
    ),
)

REGISTRY: Mapping[str, ModelSpec] = {row.name: row for row in (*_ROWS, _LITE_ROW, *_AOT_ROWS, *_MIVOS_ROWS, *_INTERACTIVE_ROWS)}
DEFAULT_TRACKER = "mast-lite"
DEFAULT_MASK_MAKER = "s2m-lite"
_WEIGHTS_OPTIONS: Mapping[Task, str] = {"interact": "--interaction-weights"}


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


def load_mask_maker(name: str = "s2m", *, weights: str | Path | None = None, device: str = "auto", **settings: object) -> "MaskMaker":
    """A model that makes masks of interactions, with its weights; the arguments and errors are those of `load`."""
    maker: MaskMaker = _load(name, "interact", weights, device, settings)
    return maker


def load_fuser(name: str = "fusion", *, weights: str | Path | None = None, device: str = "auto", **settings: object) -> "Fuser":
    """A model that joins the results of two rounds, with its weights; the arguments and errors are those of `load`."""
    fuser: Fuser = _load(name, "fuse", weights, device, settings)
    return fuser


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
    """The model of a row with the weights of a checkpoint: a Tracker, MaskMaker or Fuser, by its task.

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
    return replace(config, **settings)


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
    """The names of the models that a checkpoint fits, by its keys and shapes alone."""
    names = []
    for spec in REGISTRY.values():
        try:
            build(spec, checkpoint, device="cpu")
        except CheckpointError:
            continue
        names.append(spec.name)
    return names


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
