from dataclasses import replace

import numpy as np
import pytest
import torch
from clip_fixtures import SmearTracker

from rotoscope.models import registry
from rotoscope.models.checkpoints import write_checkpoint
from rotoscope.testing import moving_shapes
from rotoscope.training.clip_source import SyntheticClips
from rotoscope.training.image_bank import Decoded, ImageBank
from rotoscope.training.loop import train
from rotoscope.training.object_views import ViewSettings, object_views
from rotoscope.training.recipes.fusion import FusionTask, build_task, default_recipe, describe, fresh_network
from rotoscope.training.rounds_data import simulated_samples, spoiled_results, tracked_samples
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Draw, Task

LITE = replace(default_recipe("fusion-lite"), size=49, batch_size=4, prefetch=0)
FULL = replace(default_recipe("fusion"), size=49, batch_size=2, accumulate=1, prefetch=0)


def clips_of(num_frames: int) -> SyntheticClips:
    images, labels = moving_shapes(num_frames=3, hw=(60, 70), num_objects=2)
    pairs = zip(images, labels, strict=True)
    items = [Decoded(f"shapes-{i}", image.permute(1, 2, 0).numpy(), mask.to(torch.uint8).numpy()) for i, (image, mask) in enumerate(pairs)]
    settings = SynthesisSettings(num_frames=num_frames, size=49, num_layers=1, unlabelled_share=0.0, bare_share=0.0, least_pixels=20)
    return SyntheticClips(ImageBank.collect(items), range(3), settings)


@pytest.fixture(scope="module")
def source() -> SyntheticClips:
    return clips_of(1)


@pytest.fixture
def task(source) -> FusionTask:
    return FusionTask(LITE, fresh_network("fusion-lite", seed=0), source)


def test_a_task_is_one(task) -> None:
    assert isinstance(task, Task)


def test_it_starts_as_the_blend_and_the_same_draw_gives_the_same_losses(task) -> None:
    def losses(which: Draw):
        return task.losses(task.batch(which), 0)

    first = losses(Draw(3, 0, 4, 7))
    assert float(first.total.detach()) == float(losses(Draw(3, 0, 4, 7)).total.detach())
    assert float(first.total.detach()) != float(losses(Draw(3, 1, 4, 7)).total.detach())
    assert float(first.figures["iou"]) == pytest.approx(float(first.figures["blend_iou"]), abs=0.01)


def test_a_network_learns_one_batch_by_heart(task, monkeypatch) -> None:
    batch = task.batch(Draw(0, 0, 4, 4))
    samples = task._samples(batch)
    monkeypatch.setattr(FusionTask, "_samples", lambda *_: samples)
    optimiser = torch.optim.Adam(task.model.parameters(), lr=2e-2)
    totals = []
    for _ in range(25):
        losses = task.losses(batch, 0)
        totals.append(float(losses.total.detach()))
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert totals[-1] < 0.7 * totals[0]
    assert float(losses.figures["iou"]) > float(losses.figures["blend_iou"]) + 0.02


@pytest.mark.parametrize("recipe", [LITE, FULL], ids=["fusion-lite", "fusion"])
def test_a_recipe_goes_two_steps(recipe, tmp_path) -> None:
    recipe = replace(recipe, steps=2, picture_every=2)
    tracker = SmearTracker() if recipe.model == "fusion" else None
    task = FusionTask(recipe, fresh_network(recipe.model, seed=1), clips_of(4 if tracker else 1), tracker)
    done = list(train(task, recipe, tmp_path / "run"))
    assert {"loss", "iou", "blend_iou", "earlier_iou", "newer_iou"} <= done[-1].figures.keys()


def test_a_tracker_makes_samples_between_a_given_and_a_corrected_frame() -> None:
    source = clips_of(5)
    clips, _ = source.clips(source.batch(Draw(0, 0, 3, 0)))
    samples = tracked_samples(clips, SmearTracker(), np.random.default_rng(0))
    assert samples.probs.shape == (3, 2, 49, 49)
    assert set(samples.nearness.tolist()) <= {0.25, 0.5, 0.75}
    assert float(samples.change.abs().sum()) == 0  # this tracker cannot carry changes
    assert tracked_samples(replace(clips, num_objects=torch.zeros(3, dtype=torch.int64)), SmearTracker(), np.random.default_rng(0)) is None


def test_results_are_the_worse_the_farther_they_have_come(source) -> None:
    clips, generator = source.clips(source.batch(Draw(0, 0, 16, 0)))
    views = object_views(clips, ViewSettings(size=49, whole_share=0.0), generator)
    kept, lost = (spoiled_results(views, [strength] * 16, np.random.default_rng(0), generator) for strength in (0.02, 1.5))
    errors = [float((result - views.truth.float()).abs().mean()) for result in (kept, lost)]
    assert errors[0] < 0.6 * errors[1]
    samples = simulated_samples(views, np.random.default_rng(0), generator)
    assert float(samples.probs.min()) >= 0
    assert 0 < int(samples.change.flatten(1).any(dim=1).sum()) < 12


def test_a_batch_without_objects_costs_nothing(source) -> None:
    class Empty(SyntheticClips):
        def clips(self, batch):
            clips, generator = SyntheticClips.clips(self, batch)
            return replace(clips, labels=torch.zeros_like(clips.labels), num_objects=torch.zeros_like(clips.num_objects)), generator

    empty = Empty(source.bank, source.indices, source.settings)
    for tracker in (None, SmearTracker()):
        task = FusionTask(LITE, fresh_network("fusion-lite", seed=0), empty, tracker)
        losses = task.losses(task.batch(Draw(0, 0, 2, 0)), 0)
        losses.total.backward()
        assert float(losses.total.detach()) == 0


def test_fusion_has_the_official_constants() -> None:
    first, main = default_recipe("fusion"), default_recipe("fusion:main")
    shared = {
        "optimiser": "adam", "rate": 1e-4, "weight_decay": 1e-7, "batch_size": 12, "accumulate": 2, "size": 384,
        "hard_from": 0.2, "hard_until": 0.5, "hard_share": 0.15, "tracker": "mivos", "data": "clips",
    }  # fmt: skip
    for recipe, steps, falls in ((first, 30_000, 20_000), (main, 10_000, 7_500)):
        assert {field: getattr(recipe, field) for field in shared} == shared
        assert recipe.steps == steps
        (group,) = FusionTask(recipe, torch.nn.Conv2d(1, 1, 1), clips_of(1)).parameter_groups()
        assert group.rate.at(falls - 1) == 1e-4
        assert group.rate.at(falls) == pytest.approx(1e-5)


def test_a_task_is_built_from_a_folder_a_tracker_and_weights(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(SyntheticClips, "read", staticmethod(lambda *_, **__: source))
    monkeypatch.setattr(registry, "load", lambda name, **_: SmearTracker())
    start = fresh_network("fusion-lite", seed=3)
    write_checkpoint(tmp_path / "w.safetensors", start.state_dict(), model="fusion-lite", official=False)
    task = build_task(replace(LITE, tracker="mast-lite"), tmp_path, weights=tmp_path / "w.safetensors")
    assert isinstance(task.tracker, SmearTracker)
    assert "results of mast-lite" in describe(task)[1]
    assert torch.equal(task.model.enter.weight, start.enter.weight)
    assert "simulated" in describe(build_task(LITE, tmp_path))[1]
