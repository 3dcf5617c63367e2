from pathlib import Path

import pytest
import torch

from rotoscope.errors import CheckpointError, InputError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, write_checkpoint
from rotoscope.models.registry import build, find_weights, list_models, load, pick_device, spec_of


def test_the_default_is_a_tracker_that_ships() -> None:
    spec = spec_of("default")
    assert spec.name == registry.DEFAULT_TRACKER
    assert spec.shipped
    assert spec.task == "track"


def test_models_can_be_listed_by_task() -> None:
    assert list_models("detect") == [spec for spec in list_models() if spec.task == "detect"]
    assert spec_of("mast") in list_models("track")


def test_an_unknown_model_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="no model 'sam'; models: default, mast-lite"):
        load("sam")


def test_a_model_without_weights_says_where_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROTOSCOPE_WEIGHTS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"'mast' ships no weights; get checkpoint\.pt from"):
        load("mast")


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, {"a": torch.ones(1)}, model="mast", official=True)
    with pytest.raises(CheckpointError, match="holds weights of 'mast', not of 'mast-lite'; use --model mast"):
        load("mast-lite", weights=path)


def test_every_row_has_what_the_registry_needs() -> None:
    for spec in list_models():
        module = registry.module_of(spec)
        assert spec.name in module.VARIANTS
        assert callable(module.build)
        assert module.OFFICIAL_NAMES is not None


LOADERS = {"track": load, "interact": registry.load_mask_maker, "fuse": registry.load_fuser, "detect": registry.load_detector}


def test_every_model_that_ships_loads_and_is_within_the_package() -> None:
    for spec in list_models():
        if spec.shipped:
            assert find_weights(spec).where == "package"
            assert LOADERS[spec.task](spec.name, device="cpu") is not None


def test_weights_of_nothing_fit_no_model() -> None:
    checkpoint = Checkpoint({"nothing": torch.ones(1)}, "f")
    assert registry.identify(checkpoint) == []
    with pytest.raises(CheckpointError):
        build(spec_of("mast"), checkpoint, device="cpu")


def test_a_device_that_is_not_there_is_refused_without_a_fallback() -> None:
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="device 'cuda:99' cannot be used"):
        pick_device("cuda:99")
    with pytest.raises(InputError, match="device 'abacus' cannot be used"):
        pick_device("abacus")


def test_imported_weights_go_to_a_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROTOSCOPE_WEIGHTS", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert registry.imported_weights_folder() == tmp_path / ".local" / "share" / "rotoscope" / "weights"


def test_settings_change_the_config_of_the_model() -> None:
    assert load("mast-lite", device="cpu", short_side=240).config.short_side == 240
    with pytest.raises(InputError, match="has no setting long_edge"):
        load("mast-lite", device="cpu", long_edge=300)
