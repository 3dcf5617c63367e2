from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from rotoscope.errors import InputError
from rotoscope.models.aot import VARIANTS, AotNetwork
from rotoscope.models.checkpoints import load_strictly
from rotoscope.testing import moving_shapes
from rotoscope.training.clip_source import MixedClips, SyntheticClips
from rotoscope.training.image_bank import Decoded, ImageBank
from rotoscope.training.loop import train
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.recipes.aot import AotTask, build_task, default_recipe, describe, fresh_network
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Draw, Task

TINY = replace(default_recipe("deaot-lite"), num_frames=3, size=49, batch_size=1, steps=100)


def shapes_bank() -> ImageBank:
    random = torch.Generator().manual_seed(0)
    items = []
    for index in range(4):
        rgb = torch.randint(0, 90, (60, 70, 3), generator=random, dtype=torch.uint8)
        labels = torch.zeros(60, 70, dtype=torch.uint8)
        labels[15:45, 20 + index : 50] = 1
        rgb[labels == 1] = rgb[labels == 1] + 150
        items.append(Decoded(f"shape-{index}", rgb.numpy(), labels.numpy()))
    return ImageBank.collect(items)


@pytest.fixture(scope="module")
def source() -> SyntheticClips:
    return SyntheticClips(shapes_bank(), range(4), SynthesisSettings(num_frames=3, size=49, num_layers=1, least_pixels=20))


@pytest.fixture
def task(source) -> AotTask:
    network = fresh_network(VARIANTS["deaot-lite"], seed=0)
    load_strictly(network.encoder.layers, lite_encoder_weights())
    return AotTask(TINY, network, source)


def test_a_task_is_one(task):
    assert isinstance(task, Task)


def test_the_same_draw_gives_the_same_losses_and_another_part_others(task):
    draw = Draw(3, 0, 2, 7)

    def total(which: Draw) -> float:
        torch.manual_seed(0)
        return float(task.losses(task.batch(which), 3).total.detach())

    assert total(draw) == total(draw)
    assert total(draw) != total(draw._replace(part=1))


def test_a_network_learns_one_clip_by_heart(task):
    batch = task.batch(Draw(0, 0, 1, 4))
    task.source = replace(task.source, settings=replace(task.source.settings, num_frames=2))
    groups = [{"params": list(group.parameters), "lr": 1e-3} for group in task.parameter_groups()]
    optimiser = torch.optim.AdamW(groups)
    first = last = 0.0
    for step in range(20):
        torch.manual_seed(step)
        losses = task.losses(batch, TINY.steps // 4)
        first = first or float(losses.total.detach())
        last, iou = float(losses.total.detach()), float(losses.figures["last_iou"])
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert last < 0.45 * first
    assert iou > 0.7


def test_each_parameter_that_learns_is_in_one_group_and_norms_do_not_decay(task):
    groups = task.parameter_groups()
    members = [parameter for group in groups for parameter in group.parameters]
    assert len({id(parameter) for parameter in members}) == len(members)
    assert len(members) == sum(parameter.requires_grad for parameter in task.model.parameters())
    assert {group.name for group in groups} == {"encoder", "encoder_plain", "id_bank", "id_bank_plain", "rest", "rest_plain"}
    for group in groups:
        if group.name.endswith("_plain"):
            assert group.weight_decay == 0
            assert all(parameter.ndim < 2 or parameter.shape[0] == 11 for parameter in group.parameters)
        else:
            assert group.weight_decay == TINY.weight_decay


def test_the_encoder_learns_slowly_and_the_id_bank_stops(task):
    rates = {group.name: group.rate for group in task.parameter_groups()}
    least, middle = TINY.least_rate, 30
    assert rates["encoder"].at(middle) == pytest.approx(least + TINY.encoder_factor * (rates["rest"].at(middle) - least))
    assert rates["id_bank"].at(49) == rates["rest"].at(49) > 0
    assert rates["id_bank"].at(50) == 0 < rates["rest"].at(50)


def test_the_id_bank_rests_once_the_network_sees_its_own_masks(task):
    torch.manual_seed(0)
    task.losses(task.batch(Draw(0, 0, 1, 1)), 60).total.backward()
    assert all(parameter.grad is None for parameter in task.model.id_bank.parameters())
    assert task.model.projector.weight.grad is not None


def test_pictures_come_only_when_asked_for(task):
    batch = task.batch(Draw(0, 0, 2, 1))
    assert task.losses(batch, 0).pictures is None
    pictures = task.losses(batch, 0, with_pictures=True).pictures
    assert pictures.images.shape == (3, 3, 49, 49)
    assert torch.equal(pictures.truth[0], pictures.predicted[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aot-t", {"stage": "static", "rate": 4e-4, "weight_decay": 0.03, "size": 465, "gap": None, "own_masks_from": 1.0, "num_frames": 5}),
        ("r50-deaot-l", {"stage": "static", "gap": 2, "batch_size": 4, "accumulate": 4, "steps": 100_000, "clip_norm": 5.0}),
        ("r50-deaot-l:main", {"stage": "main", "rate": 2e-4, "least_rate": 1e-5, "weight_decay": 0.07, "own_masks_from": 0.5}),
        ("r50-aot-l", {"encoder_factor": 0.1, "average_decay": 0.9999, "reference_until": 0.1, "hard_until": 0.5}),
        ("aot-t:main", {"least_rate": 2e-5, "reference_until": 1.0}),
        ("swinb-aot-l", {"size": 464}),
    ],
)
def test_the_recipes_have_the_official_constants(name, expected):
    recipe = default_recipe(name)
    assert {field: getattr(recipe, field) for field in expected} == expected


def test_a_start_is_drawn_from_its_seed_and_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    first, second, third = (fresh_network(VARIANTS["deaot-lite"], seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name)), name
    assert not torch.equal(first.projector.weight, third.projector.weight)
    assert float(first.id_bank.patches.weight.detach().view(256, -1).norm(dim=1).mean()) == pytest.approx(17**-2, rel=1e-3)


def test_weights_to_go_on_from_must_be_of_the_same_variant(tmp_path, source, monkeypatch):
    from rotoscope.errors import CheckpointError
    from rotoscope.models.checkpoints import write_checkpoint

    monkeypatch.setattr(SyntheticClips, "read", staticmethod(lambda *_, **__: source))
    other = AotNetwork(VARIANTS["deaot-t"])
    write_checkpoint(tmp_path / "other.safetensors", other.state_dict(), model="deaot-t", official=False)
    with pytest.raises(CheckpointError, match="deaot-t"):
        build_task(TINY, tmp_path, weights=tmp_path / "other.safetensors")


def test_an_unknown_stage_is_refused():
    with pytest.raises(InputError, match="aot-t:finetune"):
        default_recipe("aot-t:second")


def test_fine_tuning_feeds_the_network_its_own_masks_from_the_start(source):
    recipe = default_recipe("deaot-lite:finetune")
    assert (recipe.stage, recipe.own_masks_from, recipe.reference_until, recipe.merge_share) == ("main", 0.0, 0.0, 0.0)
    assert recipe.rate < default_recipe("deaot-lite:main").rate < default_recipe("deaot-lite").rate


def test_a_frozen_encoder_is_left_alone_and_a_resting_reference_is_not_decoded(source, monkeypatch):
    monkeypatch.setattr(SyntheticClips, "read", staticmethod(lambda *_, **__: source))
    task = build_task(replace(TINY, frozen="encoder", reference_until=0.0), Path("unused"))
    decoded = []
    hook = task.model.decoder.register_forward_hook(lambda *_: decoded.append(1))
    losses = task.losses(task.batch(Draw(0, 0, 1, 1)), 0)
    hook.remove()
    losses.total.backward()
    assert len(decoded) == TINY.num_frames - 1
    assert float(losses.figures["reference_loss"]) == 0
    assert all(parameter.grad is None for parameter in task.model.encoder.parameters())
    assert {group.name for group in task.parameter_groups()} == {"id_bank", "id_bank_plain", "rest", "rest_plain"}
    assert task.model.projector.weight.grad is not None


def test_the_official_start_freezes_the_first_stages_alone(source, monkeypatch):
    monkeypatch.setattr(SyntheticClips, "read", staticmethod(lambda *_, **__: source))
    learning = {
        frozen: sum(one.requires_grad for one in build_task(replace(TINY, frozen=frozen), Path("unused")).model.encoder.parameters())
        for frozen in ("nothing", "early", "encoder")
    }
    assert learning["nothing"] > learning["early"] > learning["encoder"] == 0


@pytest.mark.parametrize("dropout", [False, True])
def test_without_dropout_two_passes_over_a_batch_agree(source, monkeypatch, dropout):
    monkeypatch.setattr(SyntheticClips, "read", staticmethod(lambda *_, **__: source))
    task = build_task(replace(TINY, dropout=dropout), Path("unused"))
    task.model.train()
    picture = task.model.see(torch.rand(1, 3, 49, 49, generator=torch.Generator().manual_seed(0)))
    embedding = task.model.id_bank(torch.ones(1, 11, 49, 49))
    once, again = (task.model.match_itself(picture, embedding).outputs[-1] for _ in range(2))
    assert torch.equal(once, again) is not dropout


def write_images(root: Path) -> None:
    """The shapes, as a folder of images and masks."""
    bank = shapes_bank()
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for index in range(len(bank)):
        Image.fromarray(bank.image(index).permute(1, 2, 0).numpy()).save(root / "images" / f"{index}.png")
        Image.fromarray(bank.labels(index).numpy()).save(root / "masks" / f"{index}.png")


def write_clip(root: Path) -> None:
    """Moving shapes, as a folder of clips and masks."""
    images, labels = moving_shapes(num_frames=4, hw=(60, 80), num_objects=1)
    for part, maps in (("JPEGImages", images.permute(0, 2, 3, 1)), ("Annotations", labels.to(torch.uint8))):
        folder = root / part / "clip"
        folder.mkdir(parents=True)
        for index, one in enumerate(maps):
            Image.fromarray(one.numpy()).save(folder / f"{index:05d}.png")


def test_a_training_on_a_folder_of_images_goes_through_the_loop(tmp_path):
    write_images(tmp_path)
    recipe = replace(TINY, steps=2, held_out=0.0, picture_every=1, record_every=1, precision="float32")
    task = build_task(recipe, tmp_path)
    assert describe(task)[0].startswith("4 images")
    progress = list(train(task, recipe, tmp_path / "run"))
    assert [one.step for one in progress] == [1, 2]
    assert {"loss", "last_iou", "gradient_norm"} <= set(progress[0].figures)


def test_a_training_on_a_folder_of_clips_goes_through_the_loop(tmp_path):
    write_clip(tmp_path)
    recipe = replace(default_recipe("deaot-lite:finetune"), size=49, num_frames=3, short_edge=60, batch_size=1, steps=1, precision="float32")
    task = build_task(recipe, tmp_path)
    assert "clip" in describe(task)[0]
    assert [one.step for one in train(task, recipe, tmp_path / "run")] == [1]


def test_a_training_on_both_kinds_sees_both(tmp_path):
    write_images(tmp_path / "stills")
    write_clip(tmp_path / "clips")
    recipe = replace(
        default_recipe("deaot-lite:mixed"), size=49, num_frames=3, short_edge=60, batch_size=1, steps=4, held_out=0.0, precision="float32"
    )
    task = build_task(recipe, tmp_path)
    assert "8 images" in describe(task)[0]  # the frames of the clip are images with masks too
    assert "1 clips" in describe(task)[0]
    batches = [task.batch(Draw(step, 0, 1, 0)) for step in range(40)]
    assert 10 < sum(bool(batch["is_other"]) for batch in batches) < 30
    assert {("labels" in batch) == bool(batch["is_other"]) for batch in batches} == {True}
    assert len(list(train(task, recipe, tmp_path / "run"))) == 4


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_of_real_clips_that_is_none_is_refused(source, share):
    with pytest.raises(InputError, match="from 0 to 1"):
        MixedClips(source, source, share)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_that_share_of_the_clips_shows_an_image_twice(source, share, expected):
    many = SyntheticClips(source.bank, range(1000), replace(source.settings, num_layers=2, twin_share=share))
    images = many.batch(Draw(0, 0, 400, 7))["images"]
    again = (images[:, :-1] == images[:, -1:]).any(dim=1).float().mean().item()
    assert abs(again - expected) < 0.07
