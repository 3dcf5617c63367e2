import json
from pathlib import Path

import pytest
from clip_fixtures import SmearTracker
from interactive_play import NUM_FRAMES, BoxMaker, moving_clips

from rotoscope.cli.__main__ import main
from rotoscope.datasets.davis_scribbles import DavisScribbles, Line, write_scribbles
from rotoscope.models import registry

LINES = tuple(Line(2, object_id, points) for object_id, points in ((1, ((0.2, 0.2), (0.35, 0.45))), (3, ((0.6, 0.7), (0.7, 0.8)))))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    moving_clips(tmp_path, "cat", "dog")
    return tmp_path / "davis"


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, smear: SmearTracker) -> dict[str, object]:
    """The names of the models that are asked for; the tracker, the maker and the fuser are stand-ins."""
    asked: dict[str, object] = {}

    def load_mask_maker(name: str, **kwargs: object) -> BoxMaker:
        asked["interact"] = name
        return BoxMaker()

    def load_fuser(name: str, **kwargs: object) -> object:
        asked["fuse"] = name
        return None

    monkeypatch.setattr(registry, "load_mask_maker", load_mask_maker)
    monkeypatch.setattr(registry, "load_fuser", load_fuser)
    return asked


def run(root: Path, *options: str) -> int:
    return main(["evaluate", "davis-interactive", "--model", "default", "--data", str(root), *options])


def test_json_is_one_object_with_the_curve_and_all_samples(root: Path, stand_ins: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "--json", "--starts", "2", "--interactions", "3", "--fuser", "fusion") == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert [(one["clip"], one["start"]) for one in said["samples"]] == [(clip, f"robot-{i}") for clip in ("cat", "dog") for i in range(2)]
    assert len(said["curve"]["seconds"]) == 3 + 2
    assert said["curve"]["seconds"][-1] == 3 * 30 * 2
    assert 0 < said["auc"]["j_and_f"] < 1
    assert said["at_60s"]["j"] == pytest.approx(said["curve"]["j"][-1])
    assert stand_ins["fuse"] == "fusion"
    assert err == ""


def test_the_table_comes_with_files_and_the_root_s_scribbles(
    root: Path, tmp_path: Path, stand_ins: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "Scribbles" / "cat").mkdir(parents=True)
    write_scribbles(root / "Scribbles" / "cat" / "001.json", DavisScribbles("cat", LINES), NUM_FRAMES)
    assert run(root, "--clips", "cat", "--interactions", "2", "-o", str(tmp_path / "out")) == 0
    out, err = capsys.readouterr()
    assert "AUC" in out
    assert "at 60 s" in out
    assert f"wrote the figures, the curve and what was drawn to {tmp_path / 'out'}" in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"summary.json", "rounds.csv", "curve.png", "Scribbles"}
    assert (tmp_path / "out" / "Scribbles" / "cat" / "001.json").is_file()
    assert stand_ins["interact"] == next((spec.name for spec in registry.list_models("interact") if spec.shipped), "s2m")


def test_what_ended_before_a_fault_is_on_disk(root: Path, tmp_path: Path, stand_ins: dict[str, object], monkeypatch) -> None:
    make = BoxMaker.make

    def stumble(self: BoxMaker, *arguments: object) -> object:
        if len(self.calls) == 2:
            raise KeyboardInterrupt
        return make(self, *arguments)

    monkeypatch.setattr(BoxMaker, "make", stumble)
    assert run(root, "-o", str(tmp_path / "out")) == 130
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["samples"][0]["rounds"]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "{nowhere}"], "does not exist; give a DAVIS root"),
        (["--clips", "cow"], "there are: cat, dog"),
        (["--scribbles", "{nowhere}"], "has no scribbles (CLIP/001.json) for cat, dog"),
        (["--scribbles", "{bad}", "--clips", "cat"], "is not a readable scribble file"),
        (["--seconds", "0"], "each number must be above 0"),
        (["--seconds", "nan"], "each number must be above 0"),
        (["-o", "{full}"], "holds results already (summary.json); choose another folder"),
        (["-o", "{file}"], "cannot be a folder for results"),
        (["--fuser-weights", "{file}"], "--fuser blend has none"),
        (["--fuser", "s2m"], "its task is 'interact'"),
        (["--interaction-model", "mivos"], "its task is 'track'"),
        (["--model", "s2m"], "its task is 'interact'"),
        (["--model", "no-such-model"], "there is no model 'no-such-model'"),
        (["--interaction-model", "s2m", "--interaction-weights", "{file}"], "file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(root: Path, tmp_path: Path, monkeypatch, capsys, options: list[str], said: str) -> None:
    monkeypatch.setenv("ROTOSCOPE_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "file").write_text("")
    for folder, name in (("full", "summary.json"), ("bad/cat", "001.json")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text("{")
    places = {name: str(tmp_path / name) for name in ("nowhere", "bad", "full", "file")}
    if options[0] != "--interaction-model":
        monkeypatch.setattr(registry, "load_mask_maker", lambda *args, **kwargs: BoxMaker())
    assert run(root, *(option.format(**places) for option in options)) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("options", [["--interactions", "0"], ["--starts", "0"], ["--per-frame", "0"], ["--seed", "-1"], ["--year", "1999"]])
def test_options_out_of_range_are_usage_errors(root: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert run(root, *options) == 2
    assert options[0] in capsys.readouterr().err
