from dataclasses import replace

import pytest
import torch

from rotoscope.errors import InputError
from rotoscope.models.registry import find_weights, spec_of
from rotoscope.training.clip_source import SyntheticClips
from rotoscope.training.image_bank import Decoded, ImageBank
from rotoscope.training.loop import train
from rotoscope.training.losses import VOID
from rotoscope.training.recipes import recipe_named
from rotoscope.training.recipes.rgmp import RgmpTask, default_recipe, describe, fresh_network, one_object
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Draw, Task

TINY = replace(default_recipe("rgmp-lite"), size=32, batch_size=1, steps=6, precision="float32", record_every=1, picture_every=1, prefetch=0)


def bank() -> ImageBank:
    random = torch.Generator().manual_seed(0)
    items = []
    for index in range(3):
        rgb = torch.randint(0, 90, (48, 56, 3), generator=random, dtype=torch.uint8)
        labels = torch.zeros(48, 56, dtype=torch.uint8)
        labels[12:36, 16 + index : 40] = 1
        rgb[labels == 1] = rgb[labels == 1] + 150
        items.append(Decoded(f"shape-{index}", rgb.numpy(), labels.numpy()))
    return ImageBank.collect(items)


def task_of(recipe: object) -> RgmpTask:
    settings = SynthesisSettings(num_frames=1 + recipe.most_frames, size=recipe.size, num_layers=1, least_pixels=10)
    return RgmpTask(recipe, fresh_network("rgmp-lite", seed=0), SyntheticClips(bank(), range(3), settings))


def test_a_task_is_one_and_says_what_it_trains():
    task = task_of(TINY)
    assert isinstance(task, Task)
    assert "3 images" in describe(task)[0]
    assert "rgmp-lite" in describe(task)[1]


@pytest.mark.parametrize("stage", ["pairs", "made"])
def test_a_network_learns_one_clip_by_heart(stage):
    task = task_of(replace(TINY, stage=stage, steps=100))
    batch = task.batch(Draw(0, 0, 1, 5))
    optimiser = torch.optim.AdamW([{"params": list(group.parameters), "lr": 1e-3} for group in task.parameter_groups()])
    values = []
    for _ in range(20):
        torch.manual_seed(0)
        losses = task.losses(batch, 0)
        values.append(float(losses.total.detach()))
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert values[-1] < 0.5 * values[0]
    assert float(losses.figures["last_iou"]) > 0.6


def test_chains_grow_from_their_first_to_their_last_length():
    recipe = replace(TINY, steps=300, first_frames=1, most_frames=3)
    assert [recipe.frames_at(step) for step in (0, 99, 100, 199, 200, 299)] == [1, 1, 2, 2, 3, 3]
    task = task_of(recipe)
    batch = task.batch(Draw(0, 0, 1, 0))
    lengths = [len(task.losses(batch, step, with_pictures=True).pictures.images) for step in (0, 150, 299)]
    assert lengths == [2, 3, 4]


def test_the_training_goes_through_the_loop(tmp_path):
    recipe = replace(TINY, steps=2, most_frames=2)
    assert [one.step for one in train(task_of(recipe), recipe, tmp_path / "run")] == [1, 2]
    assert list((tmp_path / "run" / "pictures").iterdir())


def test_each_clip_follows_one_of_its_objects():
    labels = torch.tensor([[0, 1, 2, VOID]]).repeat(1, 64, 1, 1).view(1, 64, 1, 4)
    one = one_object(labels, torch.full((64,), 2), torch.Generator().manual_seed(0))
    rows = {tuple(row) for row in one[0, :, 0].tolist()}
    assert rows == {(0, 1, 0, VOID), (0, 0, 1, VOID)}


def test_the_mask_has_no_say_in_a_fresh_encoder_but_the_picture_has_its_pretrained_one():
    network = fresh_network("rgmp-lite", seed=0)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        without, with_mask = (network.encoder(image, mask) for mask in (torch.zeros(1, 64, 64), torch.ones(1, 64, 64)))
    assert all(torch.allclose(one, other) for one, other in zip(without, with_mask, strict=True))
    assert find_weights(spec_of("mast-lite")).path is not None
    assert float(network.encoder.layers.stem.conv.weight[:, 3].detach().abs().max()) == 0


def test_the_recipes_are_the_papers_where_it_says_how():
    pairs, main = recipe_named("rgmp"), recipe_named("rgmp:main")
    assert (pairs.optimiser, pairs.rate, pairs.least_rate, pairs.size, pairs.stage) == ("adam", 1e-5, 1e-5, 256, "pairs")
    assert (main.stage, main.first_frames, main.most_frames, main.largest_gap, main.batch_size) == ("main", 1, 5, 5, 1)
    task = RgmpTask(pairs, fresh_network("rgmp-lite", seed=0), SyntheticClips(bank(), range(3), SynthesisSettings()))
    assert {group.rate.at(step) for group in task.parameter_groups() for step in (0, 1000, 199_999)} == {1e-5}


@pytest.mark.parametrize("setting", ["size=250", "most_frames=0", "first_frames=4"])
def test_settings_that_lead_nowhere_are_refused(setting):
    with pytest.raises(InputError, match="give"):
        recipe_named("rgmp-lite", [setting])
