"""One file per system: how it is trained; and the table that names them."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

from rotoscope.errors import InputError
from rotoscope.models.registry import REGISTRY
from rotoscope.training.recipe import Recipe

if TYPE_CHECKING:
    from rotoscope.training.task import Task


@dataclass(frozen=True, slots=True)
class RecipeSpec:
    """A row of the table.

    Attributes:
        name: what the user calls it.
        module: its file, under `rotoscope.training.recipes`; see `RecipeModule`.
        summary: one line.
        model: the name in the registry of what it trains; by default its own.
    """

    name: str
    module: str
    summary: str
    model: str = ""

    @property
    def trains(self) -> str:
        """The registry name of the model."""
        return self.model or self.name


@runtime_checkable
class RecipeModule(Protocol):
    """What the file of a recipe offers."""

    def default_recipe(self, name: str) -> Recipe:
        """The settings that a name stands for."""
        ...

    def build_task(self, recipe: Any, data: Path, *, device: str, weights: Path | None) -> "Task":
        """The training of a recipe on the data of a folder, from a weights file or from the start."""
        ...

    def describe(self, task: Any) -> list[str]:
        """What data was found, in lines."""
        ...


_AOT_STAGES = {
    "": "static images with masks, made into clips",
    ":main": "real clips with masks",
    ":mixed": "real clips with masks and static images, from weights",
    ":finetune": "one's own clips with masks, from weights",
}
_AOT_MODELS = tuple(spec.name for spec in REGISTRY.values() if spec.module == "aot")
_YOLACT_MODELS = tuple(name for name, spec in REGISTRY.items() if spec.module == "yolact" and name != "yolact-lite")
_ROWS = (
    *(RecipeSpec(f"{model}{stage}", "aot", f"{model} on {summary}", model) for model in _AOT_MODELS for stage, summary in _AOT_STAGES.items()),
    RecipeSpec("rgmp", "rgmp", "RGMP on pairs made from static images with masks"),
    RecipeSpec("rgmp:main", "rgmp", "RGMP on real clips with masks, back-propagating through time", "rgmp"),
    RecipeSpec("rgmp-lite", "rgmp", "RGMP's design on EfficientNet-Lite0, on clips made from static images"),
    RecipeSpec("rgmp-lite:main", "rgmp", "the same on real clips with masks", "rgmp-lite"),
    RecipeSpec("mast", "mast", "MAST on pairs of frames without masks"),
    RecipeSpec("mast:memory", "mast", "MAST on frames and what is remembered of them, from weights of the pair stage", "mast"),
    RecipeSpec("mast-lite", "mast_lite", "the default tracker's features on pairs of frames without masks, held near their ImageNet start"),
    RecipeSpec("mivos", "mivos", "MiVOS's propagation on clips made from static images"),
    RecipeSpec("mivos:bl30k", "mivos", "the same on rendered clips with masks (BL30K), from weights of the first stage", "mivos"),
    RecipeSpec("mivos:main", "mivos", "the same on real clips with masks, from weights", "mivos"),
    RecipeSpec("s2m", "s2m", "S2M on static images with masks, with simulated lines"),
    RecipeSpec("s2m-lite", "s2m", "S2M's design on EfficientNet-Lite0, with simulated clicks, boxes and lines"),
    RecipeSpec("fusion", "fusion", "FusionNet on rendered clips with masks (BL30K), with weights of MiVOS"),
    RecipeSpec("fusion:main", "fusion", "the same on real clips with masks, from weights of the first stage", "fusion"),
    RecipeSpec("fusion-lite", "fusion", "our mixer of two results, on masks of static images with simulated errors"),
    *(RecipeSpec(model, "yolact", f"{model} on images whose objects have outlines and classes") for model in _YOLACT_MODELS),
    RecipeSpec("yolact-lite", "yolact", "YOLACT's design on EfficientNet-Lite0, on the same, or on images with masks alone: to find any thing"),
)

RECIPES: Mapping[str, RecipeSpec] = {row.name: row for row in _ROWS}


def spec_of(name: str) -> RecipeSpec:
    """The row of a recipe.

    Raises:
        InputError: no such recipe; the message lists those there are.
    """
    if name not in RECIPES:
        message = f"there is no recipe '{name}'; recipes: {', '.join(RECIPES) or 'none yet'}"
        raise InputError(message)
    return RECIPES[name]


def module_of(spec: RecipeSpec) -> RecipeModule:
    """The imported module of a row."""
    module: Any = importlib.import_module(f"rotoscope.training.recipes.{spec.module}")
    return module  # type: ignore[no-any-return] # its shape is the protocol's


def recipe_named(name: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a name, with some of its fields changed.

    Args:
        name: of the table.
        settings: such as "steps=5000", "clip_norm=none" or "sizes=177,241"; the last one of a field counts.

    Raises:
        InputError: no such recipe or field, or a value that is not of the field's type; the message lists the fields, or what is accepted.
    """
    recipe = module_of(spec_of(name)).default_recipe(name)
    kinds = get_type_hints(type(recipe))
    names = [field.name for field in fields(recipe) if field.name != "model"]  # which model it is, the recipe's own name says
    changes: dict[str, Any] = {}
    for setting in settings:
        field, is_pair, text = setting.partition("=")
        if not is_pair or field not in names:
            message = f"'{setting}' sets nothing of '{name}'; write FIELD=VALUE with one of {', '.join(names)}"
            raise InputError(message)
        try:
            changes[field] = parsed(text, kinds[field])
        except ValueError as error:
            message = f"'{setting}': {field} must be {_described(kinds[field])}"
            raise InputError(message) from error
    return replace(recipe, **changes)


def parsed(text: str, kind: Any) -> object:
    """The value that a text means as a type: int, float, bool, str, None, a `Literal`, a tuple, or one of several of them.

    Raises:
        ValueError: it means none.
    """
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _first_parsed(text, choices)
    if origin is Literal:
        return {str(choice): choice for choice in choices}[text] if text in map(str, choices) else _refuse(text)
    if origin is tuple:
        return _parsed_tuple(text, choices)
    if kind is NoneType:
        return None if text.lower() == "none" else _refuse(text)
    if kind is bool:
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _refuse(text)
    return kind(text) if kind in (int, float, str, Path) else _refuse(text)


def _first_parsed(text: str, kinds: Sequence[Any]) -> object:
    for kind in sorted(kinds, key=lambda kind: kind is str):  # anything is a string: that comes last
        try:
            return parsed(text, kind)
        except ValueError:
            continue
    return _refuse(text)


def _parsed_tuple(text: str, kinds: Sequence[Any]) -> tuple[object, ...]:
    items = [item for item in text.strip("()").split(",") if item.strip()]
    expected = [kinds[0]] * len(items) if Ellipsis in kinds else kinds
    if len(items) != len(expected):
        _refuse(text)
    return tuple(parsed(item.strip(), kind) for item, kind in zip(items, expected, strict=True))


def _refuse(text: str) -> object:
    raise ValueError(text)


def _described(kind: Any) -> str:
    """What is accepted, in words."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType, Literal):
        return " or ".join(repr(choice) if origin is Literal else _described(choice) for choice in choices)
    if origin is tuple:
        return "a list like 1,2,3 of " + ", ".join(_described(choice) for choice in choices if choice is not Ellipsis)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "none"}
    return names.get(kind, str(kind))
