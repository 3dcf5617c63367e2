import json
from pathlib import Path

import pytest
import torch

from rotoscope.cli.__main__ import main
from rotoscope.models import registry
from rotoscope.models.checkpoints import read_checkpoint
from rotoscope.testing import official_weights

KEYS = Path(__file__).resolve().parents[1] / "parity" / "data" / "mast" / "keys.json"


@pytest.fixture
def official_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the form of the official MAST release."""
    monkeypatch.setenv("ROTOSCOPE_WEIGHTS", str(tmp_path / "imported"))
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 1, "state_dict": official_weights(KEYS, "mast")}, path)
    return path


def test_list_names_every_model_with_its_licence(capsys) -> None:
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(spec.name in shown and spec.licence in shown for spec in registry.list_models())
    assert all(f"{name} (default): " in shown for name in ("mast-lite", "s2m-lite", "yolact-lite"))
    assert "get them from `rotoscope train fusion-lite`" in shown
    assert "get  " not in shown


def test_list_as_json_is_a_line_per_model(capsys) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(registry.REGISTRY)


def test_an_official_file_is_imported_and_then_loads_by_name(official_file: Path, capsys) -> None:
    assert main(["weights", "import", str(official_file)]) == 0
    assert "holds weights of mast;" in capsys.readouterr().out
    imported = registry.find_weights(registry.spec_of("mast"))
    assert imported.where == "imported"
    assert imported.path is not None
    assert read_checkpoint(imported.path).official
    assert registry.load("mast", device="cpu").start() is not None


def test_verify_names_the_model_and_the_hash(official_file: Path, capsys) -> None:
    assert main(["weights", "verify", str(official_file)]) == 0
    assert "mast: ok  sha256 " in capsys.readouterr().out


def test_verify_checks_all_that_ships(capsys) -> None:
    assert main(["weights", "verify"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{spec.name}: ok" in shown for spec in registry.list_models() if spec.shipped)


def test_a_file_of_no_model_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.ones(3)}, path)
    assert main(["weights", "import", str(path)]) == 2
    assert "fits none of the models" in capsys.readouterr().err


def test_weights_with_numbers_that_are_not_finite_are_refused(official_file: Path, tmp_path: Path, capsys) -> None:
    content = torch.load(official_file, weights_only=True)
    next(iter(content["state_dict"].values())).fill_(float("nan"))
    torch.save(content, official_file)
    assert main(["weights", "import", str(official_file), "--model", "mast"]) == 2
    assert "not finite" in capsys.readouterr().err
