"""The public makers of weights and clips."""

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rotoscope.testing import filled, moving_shapes, official_weights


def test_weights_depend_on_the_name_alone() -> None:
    assert torch.equal(filled("a.weight", (4, 3), "float32"), filled("a.weight", (4, 3), "float32"))
    assert not torch.equal(filled("a.weight", (4, 3), "float32"), filled("b.weight", (4, 3), "float32"))


@pytest.mark.parametrize(
    ("key", "shape", "mean", "spread"),
    [
        ("bn.running_mean", (4000,), 0.0, 0.1),
        ("bn.running_var", (4000,), 1.1, 0.2 / 12**0.5),
        ("conv.weight", (40, 25, 4), 0.0, 0.1),
        ("bn.weight", (4000,), 1.0, 0.1),
        ("conv.bias", (4000,), 0.0, 0.02),
    ],
)
def test_each_role_has_its_distribution(key: str, shape: tuple[int, ...], mean: float, spread: float) -> None:
    value = filled(key, shape, "float32")
    assert value.dtype == torch.float32
    assert float(value.mean()) == pytest.approx(mean, abs=5 * spread / 60)
    assert float(value.std()) == pytest.approx(spread, rel=0.1)


def test_counters_are_zero_and_the_gain_scales_matrices_only() -> None:
    assert torch.equal(filled("n", (), "int64"), torch.zeros((), dtype=torch.int64))
    assert torch.allclose(filled("a.weight", (4, 3), "float32", gain=2.0), 2 * filled("a.weight", (4, 3), "float32"))
    assert torch.equal(filled("a.bias", (4,), "float32", gain=2.0), filled("a.bias", (4,), "float32"))


def test_gain_and_overrides_of_the_key_file_are_applied(tmp_path: Path) -> None:
    shapes = {"a.weight": {"shape": [4, 3], "dtype": "float32"}, "a.bias": {"shape": [4], "dtype": "float32"}}
    (tmp_path / "keys.json").write_text(json.dumps({"models": {"m": shapes}, "weight_gain": 3.0, "overrides": {"a.bias": -2.5}}))
    weights = official_weights(tmp_path / "keys.json", "m")
    assert torch.allclose(weights["a.weight"], 3 * filled("a.weight", (4, 3), "float32"))
    assert weights["a.bias"].tolist() == [-2.5] * 4


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 5), st.integers(8, 40), st.integers(8, 40), st.integers(0, 4), st.integers(0, 9))
def test_a_clip_of_moving_shapes_has_its_size_and_only_its_objects(frames: int, height: int, width: int, objects: int, seed: int) -> None:
    images, labels = moving_shapes(num_frames=frames, hw=(height, width), num_objects=objects, seed=seed)
    again, _ = moving_shapes(num_frames=frames, hw=(height, width), num_objects=objects, seed=seed)
    assert images.shape == (frames, 3, height, width)
    assert torch.equal(images, again)
    assert set(labels.unique().tolist()) <= set(range(objects + 1))


def test_the_objects_move_and_look_unlike_the_background() -> None:
    images, labels = moving_shapes(num_frames=6, hw=(48, 64), num_objects=2)
    assert not torch.equal(labels[0], labels[-1])
    brightness = images.float().mean(dim=1)
    assert float(brightness[labels > 0].mean()) > float(brightness[labels == 0].mean()) + 40
