"""RGMP through the command line, with a small network in place of the large one."""

import json
from pathlib import Path

import pytest
from rgmp_parity import tiny_network

from rotoscope.cli.__main__ import main
from rotoscope.models import rgmp
from rotoscope.models.checkpoints import write_checkpoint


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(rgmp, "network_of", lambda config: tiny_network())
    path = tmp_path / "weights.safetensors"
    write_checkpoint(path, tiny_network().state_dict(), model="rgmp", official=True)
    return path


@pytest.fixture
def track(weights: Path, clip_folder: Path, first_mask: Path, tmp_path: Path):
    def run(*more: str) -> int:
        fixed = ["--mask", str(first_mask), "--model", "rgmp", "--weights", str(weights), "--overlay", "none", "--device", "cpu"]
        return main(["track", str(clip_folder), *fixed, "-o", str(tmp_path / "out"), *more])

    return run


def test_objects_with_gaps_in_their_numbers_are_tracked(track, tmp_path: Path, capsys) -> None:
    assert track() == 0
    assert "objects [1, 4]" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "masks" / "clip").glob("*.png"))) == 12


def test_a_run_at_one_scale_is_gone_on_with_at_that_scale_only(track, tmp_path: Path, capsys) -> None:
    assert track("--scales", "1") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["num_frames"] == 12
    assert track("--scales", "1", "--resume") == 0
    capsys.readouterr()
    assert track("--scales", "0.5,1", "--resume") == 2
    assert "settings was {'scales': [1.0]}, is {'scales': [0.5, 1.0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--scales", "0"], "above 0 and up to 4"),
        (["--scales", "one"], "write numbers with commas"),
        (["--precision", "bfloat16"], "'rgmp' has no setting precision"),
        (["--max-memory", "1KB"], "raise the budget or follow fewer"),
        (["--weights", __file__], "is not a checkpoint of tensors alone"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(track, capsys, more: list[str], message: str) -> None:
    assert track(*more) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
