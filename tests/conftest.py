"""What every test shares: shape checks on every call, a fixed seed, and the marks that say what a test needs."""

import os

# The stored official outputs were made with AVX2 convolutions; others round differently. It is read when torch is loaded.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

_CHECKED = ["rotoscope.types", "rotoscope.memory", "rotoscope.ops", "rotoscope.nn", "rotoscope.models", "rotoscope.tracking", "rotoscope.training"]
_hook = jaxtyping.install_import_hook(_CHECKED, "beartype.beartype")

import torch  # noqa: E402 - after the hook, like everything that imports rotoscope

pytest_plugins = ["clip_fixtures", "correct_fixtures", "detect_fixtures"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real clips beside the checkout; the test is skipped where they are absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real clips of ../shared/data are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _fixed_random_state() -> Iterator[None]:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.random.set_rng_state(state)


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(1)  # the tests run in two processes, and small products gain nothing from more


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip CUDA tests without a GPU, unless the run demands one."""
    if torch.cuda.is_available() or os.environ.get("ROTOSCOPE_REQUIRE_CUDA") == "1":
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
