from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from rotoscope.errors import CheckpointError
from rotoscope.models.checkpoints import write_checkpoint
from rotoscope.testing import moving_shapes
from rotoscope.training.clip_source import SyntheticClips
from rotoscope.training.image_bank import Decoded, ImageBank
from rotoscope.training.loop import train
from rotoscope.training.losses import VOID
from rotoscope.training.object_views import ViewSettings, object_views
from rotoscope.training.recipes import recipe_named
from rotoscope.training.recipes.s2m import S2mTask, build_task, default_recipe, describe, fresh_network
from rotoscope.training.synthesis import Clips, SynthesisSettings
from rotoscope.training.task import Draw, Task

LITE = replace(default_recipe("s2m-lite"), size=65, frame_size=65, batch_size=2, steps=100, prefetch=0)
FULL = replace(default_recipe("s2m"), size=64, frame_size=64, batch_size=2, accumulate=1, steps=100, prefetch=0)


@pytest.fixture(scope="module")
def source() -> SyntheticClips:
    images, labels = moving_shapes(num_frames=3, hw=(70, 90), num_objects=2)
    pairs = zip(images, labels, strict=True)
    items = [Decoded(f"shapes-{i}", image.permute(1, 2, 0).numpy(), mask.to(torch.uint8).numpy()) for i, (image, mask) in enumerate(pairs)]
    settings = SynthesisSettings(num_frames=1, size=65, num_layers=1, unlabelled_share=0.0, bare_share=0.0, least_pixels=20)
    return SyntheticClips(ImageBank.collect(items), range(3), settings)


@pytest.fixture(scope="module")
def start() -> torch.nn.Module:
    return fresh_network("s2m-lite", seed=0)


@pytest.fixture
def task(source, start) -> S2mTask:
    return S2mTask(LITE, deepcopy(start), source)


def test_a_task_is_one(task) -> None:
    assert isinstance(task, Task)


def test_the_same_draw_gives_the_same_losses_and_another_part_others(task) -> None:
    state = deepcopy(task.model.state_dict())

    def total(which: Draw) -> float:
        task.model.load_state_dict(state)  # statistics follow each batch, and earlier rounds are judged by them
        return float(task.losses(task.batch(which), 3).total.detach())

    assert total(Draw(3, 0, 2, 7)) == total(Draw(3, 0, 2, 7))
    assert total(Draw(3, 0, 2, 7)) != total(Draw(3, 1, 2, 7))


def test_a_network_learns_one_sample_by_heart(task, monkeypatch) -> None:
    task.recipe = replace(LITE, rounds=0)
    task._views = replace(task._views, size=49)
    batch = task.batch(Draw(0, 0, 2, 4))
    clips, _ = task.source.clips(batch)
    monkeypatch.setattr(SyntheticClips, "clips", lambda *_: (clips, torch.Generator().manual_seed(0)))
    optimiser = torch.optim.AdamW(task.model.parameters(), lr=4e-3)
    totals = []
    for _ in range(12):
        losses = task.losses(batch, 0)
        totals.append(float(losses.total.detach()))
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert totals[-1] < 0.5 * totals[0]
    assert float(losses.figures["iou"]) > 0.7


@pytest.mark.parametrize("recipe", [LITE, FULL], ids=["s2m-lite", "s2m"])
def test_a_recipe_goes_two_steps(recipe, source, start, tmp_path) -> None:
    recipe = replace(recipe, steps=2, picture_every=2, average_decay=0.9)
    stand_in = torch.nn.Sequential(torch.nn.Conv2d(6, 1, 3, padding=1))  # S2M itself fills a disk and takes minutes
    task = S2mTask(recipe, deepcopy(start) if recipe.model == "s2m-lite" else stand_in, source)
    done = list(train(task, recipe, tmp_path / "run"))
    assert [progress.step for progress in done] == [1, 2]
    assert {"loss", "iou", "iou_before"} <= done[0].figures.keys()
    assert list((tmp_path / "run" / "pictures").iterdir())


def test_each_parameter_is_in_one_group_and_the_encoder_learns_slowly(task) -> None:
    groups = {group.name: group for group in task.parameter_groups()}
    assert groups.keys() == {"encoder", "encoder_plain", "rest", "rest_plain"}
    assert sum(len(group.parameters) for group in groups.values()) == len(list(task.model.parameters()))
    assert groups["rest_plain"].weight_decay == 0 < groups["rest"].weight_decay
    assert groups["encoder"].rate.at(50) == pytest.approx(0.2 * groups["rest"].rate.at(50))


def test_first_interactions_are_of_every_kind_and_of_the_previous_mask(source) -> None:
    task = S2mTask(replace(LITE, empty_share=0.5), torch.nn.Conv2d(1, 1, 1), source)
    clips, generator = source.clips(source.batch(Draw(0, 0, 24, 0)))
    views = object_views(clips, ViewSettings(size=65), generator)
    random = np.random.default_rng(0)
    previous = task._previous(views, random)
    hints = task._first_hints(views, previous, random)
    boxed, marked = hints.box.flatten(1).any(dim=1), (hints.positive + hints.negative).flatten(1).any(dim=1)
    assert not bool((boxed & marked).any())
    assert 0 < int(boxed.sum()) < 20
    assert 4 < int(previous.flatten(1).any(dim=1).sum()) < 20
    overlaps = (previous & views.truth).sum(dim=(1, 2)) / (previous | views.truth).sum(dim=(1, 2)).clamp(min=1)
    assert float(overlaps.max()) < 0.95


def test_views_show_the_whole_frame_or_a_closer_look_at_the_object() -> None:
    labels = torch.zeros(1, 8, 60, 60, dtype=torch.int64)
    labels[..., 40:50, 12:22], labels[..., 0:5, :] = 1, VOID
    clips = Clips(torch.rand(1, 8, 3, 60, 60), labels, torch.tensor([1] * 7 + [0]))
    whole = object_views(clips, ViewSettings(size=60, whole_share=1.0), torch.Generator().manual_seed(0))
    assert torch.equal(whole.truth[:7], labels[0, :7] == 1)
    assert torch.allclose(whole.images, clips.images[0], atol=1e-5)
    assert not bool(whole.counts[0, :5].any())
    assert not bool(whole.counts[7].any())
    near = object_views(clips, ViewSettings(size=60, whole_share=0.0), torch.Generator().manual_seed(0))
    shares = near.truth[:7].float().mean(dim=(1, 2))
    assert float(shares.min()) > 0.19
    assert float(shares.max()) < 0.95
    assert bool((near.truth[:7].sum(dim=(1, 2)) > 0).all())


def test_a_frame_without_an_object_costs_nothing(task, monkeypatch) -> None:
    clips, generator = task.source.clips(task.batch(Draw(0, 0, 2, 4)))
    empty = replace(clips, labels=torch.zeros_like(clips.labels), num_objects=torch.zeros_like(clips.num_objects))
    monkeypatch.setattr(SyntheticClips, "clips", lambda *_: (empty, generator))
    losses = task.losses({}, 0)
    assert float(losses.total.detach()) == 0
    assert float(losses.figures["iou"]) == 0


def test_s2m_has_the_official_constants() -> None:
    recipe = default_recipe("s2m")
    expected = {
        "steps": 80_000, "batch_size": 16, "accumulate": 2, "optimiser": "adam", "rate": 1e-4, "least_rate": 1e-4, "weight_decay": 1e-7, "size": 480,
        "hard_from": 10_000, "hard_until": 30_000, "hard_share": 0.15, "empty_share": 0.33, "overlaps": (0.4, 0.95), "rounds": 0,
    }  # fmt: skip
    assert {field: getattr(recipe, field) for field in expected} == expected
    assert recipe_named("s2m-lite", ["steps=7", "overlaps=0.1,0.2"]).overlaps == (0.1, 0.2)


def test_the_rate_of_s2m_never_changes_and_few_pixels_count_at_last(source) -> None:
    task = S2mTask(default_recipe("s2m"), torch.nn.Conv2d(1, 1, 1), source)
    (group,) = task.parameter_groups()
    assert {group.rate.at(step) for step in (0, 1, 40_000, 79_999)} == {1e-4}
    clips, generator = source.clips(source.batch(Draw(0, 0, 2, 0)))
    views = object_views(clips, ViewSettings(size=65), generator)
    logits = torch.randn(2, 1, 65, 65)
    early, late = (float(task._loss(logits, views, step)) for step in (10_000, 30_000))
    assert late > 1.5 * early


def test_a_task_is_built_from_a_folder_and_from_weights(source, start, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(SyntheticClips, "read", staticmethod(lambda *_, **__: source))
    changed = {name: tensor + 1 if name == "enter.bias" else tensor for name, tensor in start.state_dict().items()}
    write_checkpoint(tmp_path / "w.safetensors", changed, model="s2m-lite", official=False)
    task = build_task(LITE, tmp_path, weights=tmp_path / "w.safetensors")
    assert float(task.model.enter.bias.detach().mean()) == 1
    assert "0.99 M parameters" in describe(task)[1]
    with pytest.raises(CheckpointError):
        build_task(FULL, tmp_path, weights=tmp_path / "w.safetensors")


def test_the_start_has_the_encoder_that_ships_and_is_drawn_from_its_seed(start) -> None:
    again, other = fresh_network("s2m-lite", seed=0), fresh_network("s2m-lite", seed=1)
    assert torch.equal(start.classify.weight, again.classify.weight)
    assert not torch.equal(start.classify.weight, other.classify.weight)
    assert torch.equal(start.encoder.stem.conv.weight, other.encoder.stem.conv.weight)
    assert float(start.enter.weight.detach().abs().sum()) == 0
