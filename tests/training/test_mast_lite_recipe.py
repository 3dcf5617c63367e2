from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import rotoscope
from rotoscope.errors import CheckpointError, InputError
from rotoscope.models.checkpoints import write_checkpoint
from rotoscope.models.mast_lite import VARIANTS, load_encoder
from rotoscope.models.mast_lite.features import extract, unit_maps
from rotoscope.models.mast_lite.objective import anchor_distance, coarse, lab_of, reconstruct, without_channel
from rotoscope.testing import moving_shapes
from rotoscope.training.loop import train
from rotoscope.training.pretrained import lite_encoder_weights
from rotoscope.training.recipes import recipe_named
from rotoscope.training.recipes.mast_lite import MastLiteRecipe, MastLiteTask, build_task, default_recipe, describe
from rotoscope.training.state import export_weights, load_state, trained_weights
from rotoscope.training.task import Draw, Task
from rotoscope.types import Frame

TINY = MastLiteRecipe(steps=3, least_rate=1e-4, batch_size=2, optimiser="adam", size=64, intervals=(2,), interval_odds=(1.0,), prefetch=0)
DRAW = Draw(step=0, part=0, size=2, seed=0)
READ = VARIANTS["mast-lite"].read


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    (root / "clip").mkdir()
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (1, 3, 12, 12), generator=random).float()
    scene = torch.nn.functional.interpolate(noise, (144, 144), mode="bicubic").clamp(0, 255).to(torch.uint8)[0]
    for index in range(10):  # a camera that moves over smooth colours, which the means over the cells hold well
        image = scene[:, 4 * index : 4 * index + 64, 6 * index : 6 * index + 64]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / "clip" / f"{index:05d}.png")
    return root


@pytest.fixture
def task(data: Path) -> MastLiteTask:
    return build_task(TINY, data)


def stepped(task: MastLiteTask, steps: int) -> list[dict[str, float]]:
    """The figures of some steps on one batch, the last of them before its own step."""
    batch = task.batch(DRAW)
    optimiser = torch.optim.Adam([{"params": list(group.parameters), "lr": group.rate.at(0)} for group in task.parameter_groups()])
    seen = []
    for step in range(steps):
        losses = task.losses(batch, step)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        seen.append({"total": float(losses.total.detach()), **{name: float(value) for name, value in losses.figures.items()}})
    return seen


def random_lab(seed: int) -> Tensor:
    """Lab of one picture of smooth colours, some of which sRGB cannot show once a channel is hidden."""
    random = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (1, 3, 8, 8), generator=random).float()
    return lab_of(torch.nn.functional.interpolate(small, (64, 64), mode="bilinear").to(torch.uint8))


def test_the_default_recipe_is_small_enough_for_a_cpu() -> None:
    recipe = default_recipe("mast-lite")
    assert (recipe.size, recipe.batch_size, recipe.steps, recipe.optimiser) == (256, 4, 1500, "adam")
    assert (recipe.rate, recipe.anchor_weight, recipe.average_decay, recipe.precision) == (1e-4, 1.0, 0.99, "float32")
    assert recipe_named("mast-lite", ["anchor_weight=0.5", "intervals=1,3"]).intervals == (1, 3)


def test_it_is_a_task_and_trains_all_of_the_encoder(task: MastLiteTask) -> None:
    assert isinstance(task, Task)
    trained = [parameter for group in task.parameter_groups() for parameter in group.parameters]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in task.model.parameters()}
    task.losses(task.batch(DRAW), 0).total.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)


def test_the_same_draw_gives_the_same_losses_and_another_part_others(task: MastLiteTask) -> None:
    once, again, other = (float(task.losses(task.batch(draw), 0).total.detach()) for draw in (DRAW, DRAW, DRAW._replace(part=1)))
    assert once == again != other


def test_one_channel_is_drawn_for_all_parts_of_a_step(task: MastLiteTask) -> None:
    channels = [[int(task.batch(Draw(step, part, 1, 0))["channel"]) for part in range(2)] for step in range(8)]
    assert all(len(set(parts)) == 1 for parts in channels)
    assert {parts[0] for parts in channels} == {1, 2}


@pytest.mark.parametrize("channel", [1, 2])
def test_the_hidden_channel_does_not_reach_the_features(channel: int) -> None:
    encoder = load_encoder(lite_encoder_weights()).requires_grad_(requires_grad=False)
    lab, noise = random_lab(0), torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(1))
    for changed, is_seen in ((channel, False), (0, True), (3 - channel, True)):
        other = lab.clone()
        other[:, changed] += 20 * noise
        before, after = (unit_maps(encoder, without_channel(one, channel)) for one in (lab, other))
        assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True)) is not is_seen


def test_a_picture_without_a_channel_keeps_the_others_where_it_can_be_shown() -> None:
    grey = torch.tensor([60.0, 0.0, 0.0])[None, :, None, None] + torch.tensor([0.0, 10.0, -10.0])[None, :, None, None]
    shown = without_channel(grey.expand(1, 3, 16, 16), 1)
    back = lab_of(shown.round().to(torch.uint8))
    assert (back[0, :, 0, 0] - torch.tensor([60.0, 0.0, -10.0])).abs().max() < 0.5


def test_the_read_is_the_trackers_and_a_still_picture_copies_itself() -> None:
    encoder = load_encoder(lite_encoder_weights()).requires_grad_(requires_grad=False)
    lab = random_lab(2)
    still = reconstruct(encoder, lab, lab, channel=2, read=READ)
    own = coarse(lab[:, 2:])
    assert still.shape == (1, 1, 8, 8)
    assert (still - own).abs().mean() < 0.3 * (own - own.mean()).abs().mean()
    sharp = reconstruct(encoder, lab, lab, channel=2, read=replace(READ, temperature=1e-4))
    assert torch.allclose(sharp, own, atol=1e-3)
    key = torch.cat(unit_maps(encoder, without_channel(lab, 2))[1:], dim=1)[0]
    shares = (own[0] - own.min()) / (own.max() - own.min())  # as the tracker holds an object: shares of one, the rest background
    read = READ(key, [key], [torch.cat((1 - shares, shares))])[1:]
    assert torch.allclose(read * (own.max() - own.min()) + own.min(), still[0], atol=1e-3)


def test_an_anchored_encoder_learns_a_batch_by_heart(task: MastLiteTask) -> None:
    seen = stepped(task, 6)
    assert seen[-1]["total"] < 0.8 * seen[0]["total"]
    assert seen[-1]["rebuilt_loss"] < 0.5 * seen[-1]["copied_loss"]
    assert seen[0]["anchor_distance"] < 1e-9
    assert seen[0]["total"] == pytest.approx(seen[0]["rebuilt_loss"])
    assert seen[-1]["anchor_distance"] > 1e-4
    assert seen[-1]["total"] == pytest.approx(seen[-1]["rebuilt_loss"] + seen[-1]["anchor_distance"])
    assert len({figures["copied_loss"] for figures in seen}) == 1


def test_a_heavier_anchor_holds_the_features_nearer(data: Path) -> None:
    distances = [stepped(build_task(replace(TINY, anchor_weight=weight), data), 4)[-1]["anchor_distance"] for weight in (0.0, 100.0)]
    assert distances[1] < 0.5 * distances[0]


def test_the_anchor_is_twice_one_less_the_cosine() -> None:
    angle = torch.tensor(0.3)
    east = torch.tensor([1.0, 0.0])[None, :, None, None]
    turned = torch.stack((angle.cos(), angle.sin()))[None, :, None, None]
    assert float(anchor_distance([east, east], [turned, east])) == pytest.approx((2 - 2 * float(angle.cos())) / 2, rel=1e-5)


def test_pictures_end_with_the_rebuilt_frame(task: MastLiteTask) -> None:
    batch = task.batch(DRAW)
    assert task.losses(batch, 0).pictures is None
    pictures = task.losses(batch, 0, with_pictures=True).pictures
    assert pictures.images.shape == (3, 3, 64, 64)
    assert not torch.equal(pictures.images[1], pictures.images[2])
    assert float((pictures.images[1].float() - pictures.images[2].float()).abs().mean()) < 40


def test_what_is_trained_loads_in_the_tracker_with_the_same_features(task: MastLiteTask, data: Path, tmp_path: Path) -> None:
    steps = list(train(task, TINY, tmp_path / "run"))
    assert [one.step for one in steps] == [1, 2, 3]
    assert {"loss", "rebuilt_loss", "copied_loss", "anchor_distance", "gradient_norm"} <= set(steps[0].figures)
    path = tmp_path / "mast-lite.safetensors"
    export_weights(trained_weights(load_state(tmp_path / "run")), path, {}, model="mast-lite", half=False)
    tracker = rotoscope.load("mast-lite", weights=path, device="cpu")
    images, _ = moving_shapes(num_frames=1, hw=(64, 64), num_objects=2)
    frame = Frame(image=images[0], index=0)
    config = replace(VARIANTS["mast-lite"], short_side=64)
    with torch.no_grad():
        loaded = extract(tracker.encoder, frame, config).key
        trained = torch.cat(unit_maps(task.model, images.float())[1:], dim=1)[0]
        shipped = extract(load_encoder(lite_encoder_weights()), frame, config).key
    assert torch.allclose(loaded, trained, atol=1e-5)
    assert not torch.allclose(loaded, shipped, atol=1e-2)
    again = build_task(replace(TINY, steps=1), data, weights=path)
    assert float(again.losses(again.batch(DRAW), 0).figures["anchor_distance"]) > 1e-4  # the anchor stays where it was


def test_a_training_says_what_it_found(task: MastLiteTask) -> None:
    assert describe(task) == ["1 clips with 10 frames, resized to 64x64: pairs 2 frames apart", "mast-lite: 0.7 M parameters to train"]


def test_what_cannot_be_trained_is_refused(data: Path, tmp_path: Path) -> None:
    for size in (72, 16, 0):
        with pytest.raises(InputError, match="multiple of 16"):
            build_task(replace(TINY, size=size), data)
    for weight in (-1.0, float("nan")):
        with pytest.raises(InputError, match="give 0 or more"):
            build_task(replace(TINY, anchor_weight=weight), data)
    with pytest.raises(InputError, match="is empty: it holds no clips"):
        build_task(TINY, tmp_path)
    write_checkpoint(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, model="rgmp", official=False)
    with pytest.raises(CheckpointError):
        build_task(TINY, data, weights=tmp_path / "other.safetensors")


def test_half_the_precision_gives_nearly_the_same_losses(data: Path, tmp_path: Path) -> None:
    first = {}
    for precision in ("float32", "bfloat16"):
        recipe = replace(TINY, steps=1, precision=precision)
        (progress,) = train(build_task(recipe, data), recipe, tmp_path / precision)
        first[precision] = progress.figures
    full, half = first["float32"], first["bfloat16"]
    assert half["copied_loss"] == full["copied_loss"]  # colours stay exact
    assert half["rebuilt_loss"] == pytest.approx(full["rebuilt_loss"], rel=0.05)
    assert half["anchor_distance"] < 1e-3  # not 0: with and without a gradient, half the precision rounds at other places


@pytest.mark.real_data
def test_real_footage_trains(shared_data: Path) -> None:
    task = build_task(replace(TINY, intervals=(2, 5, 8), interval_odds=(0.4, 0.4, 0.2)), shared_data / "train_clips")
    assert describe(task)[0].startswith("61 clips with ")
    assert torch.isfinite(task.losses(task.batch(DRAW), 0).total)
