from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from rotoscope.errors import CheckpointError, InputError
from rotoscope.models.checkpoints import write_checkpoint
from rotoscope.models.mast.network import MastEncoder, normalised_lab
from rotoscope.models.mast.objective import reconstruct, reconstruct_from_memory, reconstruction_loss
from rotoscope.testing import moving_shapes
from rotoscope.training.recipes.mast import HalvingRate, MastRecipe, MastTask, build_task, default_recipe, describe, initialised
from rotoscope.training.task import Draw, Task

TINY = MastRecipe(steps=4, batch_size=2, optimiser="adam", size=32, intervals=(2,), interval_odds=(1.0,))
DRAW = Draw(step=0, part=0, size=2, seed=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    (root / "clip").mkdir()
    images, _ = moving_shapes(num_frames=20, hw=(32, 32), num_objects=2)
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / "clip" / f"{index:05d}.png")
    return root


@pytest.fixture
def task(data: Path) -> MastTask:
    return build_task(TINY, data)


@pytest.fixture(scope="module")
def pair_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mast.safetensors"
    write_checkpoint(path, MastEncoder().state_dict(), model="mast", official=False)
    return path


def lab_of(images: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.stack([normalised_lab(image) for image in frame]) for frame in images])


def optimiser_of(task: MastTask, step: int = 0) -> torch.optim.Adam:
    return torch.optim.Adam([{"params": list(group.parameters), "lr": group.rate.at(step)} for group in task.parameter_groups()])


def test_the_default_recipe_is_the_official_one() -> None:
    pairs, memory = default_recipe("mast"), default_recipe("mast:memory")
    assert (pairs.stage, pairs.batch_size, pairs.size, pairs.intervals, pairs.interval_odds) == ("pairs", 12, 256, (2, 5, 8), (0.4, 0.4, 0.2))
    assert (pairs.optimiser, pairs.rate, pairs.clip_norm, pairs.average_decay) == ("adam", 1e-3, None, None)
    assert (memory.stage, memory.rate, memory.halve_at) == ("memory", 2e-5, ())


def test_the_rate_is_halved_by_samples() -> None:
    rate = HalvingRate(1e-3, default_recipe("mast").halve_at, 12)
    assert rate.at(0) == rate.at(33_333) == 1e-3  # 399,996 samples
    assert [rate.at(step) for step in (33_334, 50_000, 70_000, 90_000)] == [5e-4, 2.5e-4, 1.25e-4, 6.25e-5]


def test_it_is_a_task_and_trains_all_of_the_encoder(task: MastTask) -> None:
    assert isinstance(task, Task)
    trained = [parameter for group in task.parameter_groups() for parameter in group.parameters]
    assert {id(parameter) for parameter in trained} == {id(parameter) for parameter in task.model.parameters()}
    assert len(trained) == len(list(task.model.parameters()))


def test_gradients_are_those_of_the_objective(task: MastTask) -> None:
    batch = task.batch(DRAW)
    losses = task.losses(batch, 0)
    losses.total.backward()
    ours = {name: parameter.grad.clone() for name, parameter in task.model.named_parameters()}
    encoder = initialised(seed=0, logit_scale=TINY.logit_scale).to(memory_format=torch.channels_last).train()
    reference, target = lab_of(batch["images"])
    channel = int(batch["channel"])
    loss = reconstruction_loss(reconstruct(encoder, reference, target, channel=channel), target, channel=channel)
    loss.backward()
    assert torch.equal(loss, losses.total)
    assert all(torch.equal(parameter.grad, ours[name]) for name, parameter in encoder.named_parameters())
    other = reconstruction_loss(reconstruct(encoder, reference, target, channel=3 - channel), target, channel=3 - channel)
    assert not torch.equal(other, losses.total)


def test_steps_lower_the_loss_of_a_clip(data: Path) -> None:
    task = build_task(replace(TINY, rate=1e-4), data)
    batch = task.batch(DRAW)
    optimiser = optimiser_of(task)
    totals = []
    for step in range(4):
        losses = task.losses(batch, step)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_one_channel_is_drawn_for_all_parts_of_a_step(task: MastTask) -> None:
    channels = [[int(task.batch(Draw(step, part, 1, 0))["channel"]) for part in range(3)] for step in range(12)]
    assert all(len(set(parts)) == 1 for parts in channels)
    assert {parts[0] for parts in channels} == {1, 2}
    assert not torch.equal(task.batch(Draw(0, 0, 2, 0))["images"], task.batch(Draw(0, 1, 2, 0))["images"])


def scaled_by_hand(batch: dict[str, torch.Tensor], scale: float, steps: int) -> torch.Tensor:
    """Features of an encoder that was trained with a factor on the logits, times the root of the factor."""
    encoder = initialised(seed=0, logit_scale=1.0).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(encoder.parameters(), lr=TINY.rate)
    reference, target = lab_of(batch["images"])
    channel = int(batch["channel"])
    for _ in range(steps):
        rebuilt = reconstruct(encoder, reference, target, channel=channel, logit_scale=scale)
        optimiser.zero_grad()
        reconstruction_loss(rebuilt, target, channel=channel).backward()
        optimiser.step()
    return encoder.eval()(target).detach() * scale**0.5


def test_the_logit_scale_is_carried_by_the_last_layer(data: Path) -> None:
    features = {}
    for scale in (0.125, 1.0):
        task = build_task(replace(TINY, logit_scale=scale), data)
        batch = task.batch(DRAW)
        optimiser = optimiser_of(task)
        for step in range(2):
            optimiser.zero_grad()
            task.losses(batch, step).total.backward()
            optimiser.step()
        features[scale] = task.model.eval()(lab_of(batch["images"])[-1]).detach()
    by_hand = scaled_by_hand(batch, 0.125, steps=2)
    spread = by_hand.std()
    assert (features[0.125] - by_hand).abs().mean() < 0.02 * spread
    assert (features[1.0] - by_hand).abs().mean() > 0.2 * spread


def test_the_memory_stage_reads_all_references(data: Path, pair_weights: Path) -> None:
    task = build_task(replace(TINY, stage="memory", longest=19, seed=3), data, weights=pair_weights)
    batch = next(batch for step in range(20) if (batch := task.batch(Draw(step, 0, 1, 3)))["gaps"].max() > 15)  # some are localised first
    assert len(batch["images"]) == 6
    losses = task.losses(batch, 0)
    losses.total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in task.model.parameters())
    *references, target = lab_of(batch["images"])
    channel, gaps = int(batch["channel"]), batch["gaps"].tolist()
    encoder = task.model.train()
    by_hand = reconstruct_from_memory(encoder, references, gaps, target, channel=channel)
    assert torch.equal(reconstruction_loss(by_hand, target, channel=channel), losses.total)
    nearest = reconstruct_from_memory(encoder, references[-1:], gaps[-1:], target, channel=channel)
    assert not torch.equal(by_hand, nearest)


def test_pictures_end_with_the_rebuilt_frame(task: MastTask) -> None:
    losses = task.losses(task.batch(DRAW), 0, with_pictures=True)
    assert losses.pictures.images.shape == (3, 3, 32, 32)
    assert losses.pictures.truth.shape == (3, 32, 32)
    assert not torch.equal(losses.pictures.images[1], losses.pictures.images[2])
    assert float((losses.pictures.images[1].float() - losses.pictures.images[2].float()).abs().mean()) < 40
    assert float(losses.figures["copied_loss"]) > 0
    assert task.losses(task.batch(DRAW), 0).pictures is None


def test_a_training_says_what_it_found(data: Path, task: MastTask, pair_weights: Path) -> None:
    assert describe(task)[0] == "1 clips with 20 frames, resized to 32x32: pairs 2 frames apart"
    assert describe(task)[1] == "mast: 5.3 M parameters to train"
    memory = build_task(replace(TINY, stage="memory"), data, weights=pair_weights)
    assert describe(memory)[0].endswith("a frame and its memory, up to 40 frames back")


def test_what_cannot_be_trained_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        build_task(replace(TINY, size=30), data)
    with pytest.raises(InputError, match="goes on from weights of the pair stage"):
        build_task(replace(TINY, stage="memory"), data)
    with pytest.raises(InputError, match="is empty: it holds no clips"):
        build_task(TINY, tmp_path)
    write_checkpoint(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, model="rgmp", official=False)
    with pytest.raises(CheckpointError):
        build_task(TINY, data, weights=tmp_path / "other.safetensors")


@pytest.mark.real_data
def test_real_footage_trains(shared_data: Path) -> None:
    task = build_task(replace(TINY, size=64, intervals=(2, 5, 8), interval_odds=(0.4, 0.4, 0.2)), shared_data / "train_clips")
    assert describe(task)[0].startswith("61 clips with ")
    assert torch.isfinite(task.losses(task.batch(DRAW), 0).total)
