import json
import os
import re
import signal
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from training_task import SquareTask

from rotoscope.cli.__main__ import main
from rotoscope.errors import InputError
from rotoscope.models.checkpoints import load_strictly, read_checkpoint
from rotoscope.training import recipes
from rotoscope.training.recipe import Recipe
from rotoscope.training.recipes import RecipeSpec, parsed, recipe_named, spec_of
from rotoscope.training.state import load_state, saved_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareRecipe(Recipe):
    sizes: tuple[int, ...] = (8,)
    mode: Literal["plain", "odd"] = "plain"
    flip: bool = False
    note: str | None = None


def build_task(recipe: SquareRecipe, data: Path, *, device: str, weights: Path | None) -> SquareTask:
    if not data.is_dir():
        raise InputError(f"there is no folder {data}")
    task = SquareTask()
    if recipe.mode == "odd":
        task.batch = lambda draw: {"images": torch.full((draw.size, 3, 8, 8), float("nan")), "labels": torch.zeros((draw.size, 8, 8), dtype=int)}
    if weights is not None:
        load_strictly(task.model, read_checkpoint(weights))
    return task


@pytest.fixture(autouse=True)
def _square(monkeypatch) -> None:
    module = types.ModuleType("square")
    module.default_recipe = lambda name: SquareRecipe(steps=6, batch_size=2, average_decay=0.9, save_every=4, record_every=2, picture_every=0)
    module.build_task = build_task
    module.describe = lambda task: ["12 squares", "none damaged"]
    monkeypatch.setitem(sys.modules, "rotoscope.training.recipes.square", module)
    monkeypatch.setattr(recipes, "RECIPES", {"square": RecipeSpec("square", "square", "finds squares", model="square-lite")})


def run(folder: Path, *more: str) -> int:
    return main(["train", "square", "--data", str(folder), "--out", str(folder / "out"), "--device", "cpu", *more])


def test_training_writes_weights_and_says_how_to_try_them(tmp_path, capsys) -> None:
    assert run(tmp_path) == 0
    said = capsys.readouterr()
    assert "6 steps are done" in said.out
    assert "--model square-lite" in said.out
    assert said.err == ""
    checkpoint = read_checkpoint(tmp_path / "out" / "square-lite.safetensors")
    assert checkpoint.model == "square-lite"
    load_strictly(SquareTask().model, checkpoint)


def test_json_is_a_line_per_record_and_then_the_weights(tmp_path, capsys) -> None:
    assert run(tmp_path, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("step") for line in lines] == [2, 4, 6, None]
    assert lines[0]["loss"] > 0
    assert Path(lines[-1]["weights"]).is_file()


def test_settings_change_the_recipe_and_weights_can_be_started_from(tmp_path) -> None:
    assert run(tmp_path, "--set", "steps=2", "--set", "seed=9") == 0
    state = load_state(tmp_path / "out")
    assert (state.step, state.recipe["seed"]) == (2, 9)
    weights = str(tmp_path / "out" / "square-lite.safetensors")
    assert main(["train", "square", "--data", str(tmp_path), "--out", str(tmp_path / "next"), "--from", weights, "--set", "steps=1"]) == 0
    assert load_state(tmp_path / "next").step == 1


def test_a_dry_run_writes_nothing_and_tells_everything(tmp_path, capsys) -> None:
    assert run(tmp_path, "--dry-run", "--set", "clip_norm=2.5") == 0
    said = capsys.readouterr().out
    for line in (
        "clip_norm        2.5",
        "note             none",
        "data             12 squares",
        "parameters       130; 130 are trained: early 120, late 10",
    ):
        assert line in said
    assert "GB for each of 2 samples" in said
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path, "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    memory = told["memory_bytes"]
    assert memory["total"] == memory["present"] + memory["training"] + 2 * memory["sample"]
    assert memory["training"] == 4 * 130 * 4  # gradients, two moments, the average
    images, hidden = 3 * 64 * 4, 4 * 64 * 4
    assert images + 2 * hidden <= memory["sample"] <= images + 12 * hidden
    assert told["data"] == ["12 squares", "none damaged"]


def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path, capsys, monkeypatch) -> None:
    real = SquareTask.losses

    def interrupting(self, batch, step, *, with_pictures=False):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch, step, with_pictures=with_pictures)

    monkeypatch.setattr(SquareTask, "losses", interrupting)
    assert run(tmp_path) == 130
    assert "--resume" in capsys.readouterr().err
    assert saved_steps(tmp_path / "out") == [0, 3]
    monkeypatch.setattr(SquareTask, "losses", real)
    assert run(tmp_path, "--resume") == 0
    assert load_state(tmp_path / "out").step == 6
    assert run(tmp_path, "--resume") == 0  # nothing is left to do; the weights are written again


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "stepz=3"], 2, "write FIELD=VALUE with one of steps, batch_size"),
        (["--set", "steps"], 2, "write FIELD=VALUE"),
        (["--set", "steps=many"], 2, "steps must be a whole number"),
        (["--set", "sizes=a,b"], 2, "sizes must be a list like 1,2,3 of a whole number"),
        (["--set", "clip_norm=x"], 2, "clip_norm must be a number or none"),
        (["--set", "mode=loud"], 2, "mode must be 'plain' or 'odd'"),
        (["--set", "steps=0"], 2, "give 1 or more"),
        (["--set", "average_decay=1"], 2, "average_decay=1.0 is no average"),
        (["--set", "clip_norm=0"], 2, "clip_norm=0.0 leaves no gradient"),
        (["--resume"], 2, "holds no training to resume"),
        (["--data", "nowhere"], 2, "there is no folder nowhere"),
        (["--device", "cuda:99"], 2, "cannot be used here"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, capsys, more, code, message) -> None:
    assert run(tmp_path, *more) == code
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_is_one_line_and_exit_code_1(tmp_path, capsys) -> None:
    assert run(tmp_path, "--set", "mode=odd") == 1
    assert "step 0: loss is nan" in capsys.readouterr().err
    assert (tmp_path / "out" / "not-finite-step-0.safetensors").is_file()


def test_a_training_is_not_overwritten(tmp_path, capsys) -> None:
    assert run(tmp_path) == 0
    assert run(tmp_path) == 2
    assert "use --resume" in capsys.readouterr().err
    assert run(tmp_path, "--resume", "--set", "batch_size=3") == 2
    assert "batch_size was 2, is 3" in capsys.readouterr().err


def test_a_recipe_that_is_none_lists_them() -> None:
    with pytest.raises(InputError, match="there is no recipe 'circle'; recipes: square"):
        spec_of("circle")


def test_other_processes_write_and_say_nothing(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("rotoscope.training.processes.is_first", lambda: False)
    assert run(tmp_path) == 0
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "out" / "square-lite.safetensors").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps=20_000", 20_000),
        ("clip_norm=none", None),
        ("clip_norm=5", 5.0),
        ("sizes=177,241", (177, 241)),
        ("sizes=(8,)", (8,)),
        ("mode=odd", "odd"),
        ("flip=true", True),
        ("note=a=b", "a=b"),
        ("note=none", None),
    ],
)
def test_settings_have_the_types_of_their_fields(setting, value) -> None:
    assert getattr(recipe_named("square", [setting]), setting.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("text", "kind"),
    [("1.5", int), ("yes", bool), ("1", tuple[int, int]), ("x", tuple[int, ...]), ("c", Literal["a", "b"]), ("x", int | None), ("1", list)],
)
def test_values_of_other_types_are_refused(text, kind) -> None:
    with pytest.raises(ValueError, match=text):
        parsed(text, kind)


def test_the_last_setting_of_a_field_counts() -> None:
    assert recipe_named("square", ["steps=1", "steps=2"]).steps == 2
    assert recipe_named("square").steps == 6


def test_the_table_names_modules_that_are_there() -> None:
    command = "from rotoscope.training import recipes; [recipes.module_of(row) for row in recipes.RECIPES.values()]"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_a_terminal_shows_the_loss_the_speed_and_the_time_left(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(tmp_path) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"training .* 6/6 loss \d\.\d{4}  \d+\.\d samples/s \d:\d\d:\d\d", shown)
