"""The shape of the project: what is public, what importing costs, and that the documents' examples run."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rotoscope
import rotoscope.jobs.detect
import rotoscope.jobs.discover
import rotoscope.jobs.track
import rotoscope.models.registry
import rotoscope.video.read

ROOT = Path(__file__).resolve().parent.parent


def in_fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_public_name_exists_and_they_are_at_most_thirty() -> None:
    assert len(rotoscope.__all__) <= 30
    assert sorted(rotoscope.__all__) == sorted(dir(rotoscope))
    assert all(getattr(rotoscope, name) is not None for name in rotoscope.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rotoscope.no_such_name


@pytest.mark.parametrize("module", ["rotoscope", "rotoscope.cli.__main__", "rotoscope.models.registry"])
def test_importing_loads_no_torch(module: str) -> None:
    heavy = in_fresh_python(f"import sys, {module}; print([m for m in ('torch', 'cv2', 'av', 'numpy', 'matplotlib') if m in sys.modules])")
    assert heavy == "[]"


def test_every_module_can_be_imported_and_has_a_docstring() -> None:
    names = [info.name for info in pkgutil.walk_packages(rotoscope.__path__, "rotoscope.") if not info.name.endswith("__main__")]
    assert len(names) > 20
    assert [name for name in names if not importlib.import_module(name).__doc__] == []


@pytest.mark.parametrize(
    "module", [rotoscope, rotoscope.jobs.detect, rotoscope.jobs.discover, rotoscope.jobs.track, rotoscope.video.read, rotoscope.models.registry]
)
def test_the_examples_of_the_docstrings_run(module) -> None:
    results = doctest.testmod(module, verbose=False)
    assert results.attempted > 0
    assert results.failed == 0


def test_the_readme_is_short_and_its_python_is_valid() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_every_model_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [spec.name for spec in rotoscope.list_models() if f"`{spec.name}`" not in text] == []


def test_no_committed_file_names_a_path_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.toml", "*.txt", "Makefile", "scripts/*"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    private = re.compile("/" + "work/|/" + "root/|/" + "opt/pypi")
    assert [name for name in listed.stdout.split() if private.search((ROOT / name).read_text(encoding="utf-8", errors="ignore"))] == []
