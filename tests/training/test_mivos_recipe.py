from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rotoscope.datasets.clips import ClipSet
from rotoscope.datasets.davis import AnnotatedClip
from rotoscope.models.mivos import PropagationNetwork
from rotoscope.models.mivos.network import Picture
from rotoscope.ops.affinity import KeyValue
from rotoscope.testing import moving_shapes
from rotoscope.training.clip_source import SyntheticClips
from rotoscope.training.image_bank import Decoded, ImageBank
from rotoscope.training.loop import train
from rotoscope.training.recipes import mivos
from rotoscope.training.recipes.mivos import MivosTask, build_task, default_recipe, describe, gap_stages
from rotoscope.training.synthesis import SynthesisSettings
from rotoscope.training.task import Draw, Task
from rotoscope.training.video_clips import VideoClips

TINY = replace(default_recipe("mivos"), size=48, batch_size=2, accumulate=1, prefetch=0, hard_from=0, hard_until=1000)


class Small(PropagationNetwork):
    """The same steps with a few channels: what is seen are means of cells, what is remembered is the mask beside them."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.key = nn.Conv2d(3, 8, 16, stride=16)
        self.value = nn.Conv2d(5, 8, 16, stride=16)
        self.norm = nn.BatchNorm2d(8)
        self.classify = nn.Conv2d(8, 256, 1)

    def see(self, image: Tensor) -> Picture:
        key = self.norm(self.key(image))
        return Picture(key[0].flatten(1).T, key, key, key)

    def memorise(self, image: Tensor, masks: Tensor, others: Tensor) -> list[KeyValue]:
        maps = torch.cat((image.expand(len(masks), -1, -1, -1), masks[:, None], others[:, None]), dim=1)
        values = self.value(maps).flatten(2).transpose(1, 2)
        key = self.norm(self.key(image))[0].flatten(1).T
        return [KeyValue(key, value) for value in values]

    def segment(self, picture: Picture, readouts: Tensor) -> Tensor:
        height, width = picture.entry.shape[2:]
        maps = readouts.transpose(1, 2).reshape(len(readouts), -1, height, width)
        return nn.functional.pixel_shuffle(self.classify(maps), 16)[:, 0].sigmoid()


@pytest.fixture(scope="module")
def source() -> SyntheticClips:
    images, labels = moving_shapes(num_frames=3, hw=(60, 70), num_objects=2)
    pairs = zip(images, labels, strict=True)
    items = [Decoded(f"shapes-{i}", image.permute(1, 2, 0).numpy(), mask.to(torch.uint8).numpy()) for i, (image, mask) in enumerate(pairs)]
    settings = SynthesisSettings(num_frames=3, size=48, num_layers=0, max_kept=2, whole_share=1.0, least_pixels=20)
    return SyntheticClips(ImageBank.collect(items), range(3), settings)


@pytest.fixture
def task(source) -> MivosTask:
    torch.manual_seed(0)
    return MivosTask(TINY, Small(), source)


def test_a_task_is_one_and_the_same_draw_gives_the_same_losses(task) -> None:
    def total(which: Draw) -> float:
        return float(task.losses(task.batch(which), 3).total.detach())

    assert isinstance(task, Task)
    assert total(Draw(3, 0, 2, 7)) == total(Draw(3, 0, 2, 7))
    assert total(Draw(3, 0, 2, 7)) != total(Draw(3, 1, 2, 7))


def test_a_network_learns_one_clip_by_heart(task, monkeypatch) -> None:
    batch = task.batch(Draw(0, 0, 1, 4))
    clips, _ = task.source.clips(batch)
    monkeypatch.setattr(SyntheticClips, "clips", lambda *_: (clips, torch.Generator().manual_seed(0)))
    optimiser = torch.optim.Adam(task.model.parameters(), lr=3e-2)
    totals = []
    for _ in range(18):
        losses = task.losses(batch, 0)
        totals.append(float(losses.total.detach()))
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert totals[-1] < 0.65 * totals[0]


def test_it_goes_two_steps_and_leaves_the_statistics_alone(task, tmp_path) -> None:
    recipe = replace(TINY, steps=2, picture_every=2)
    before = task.model.norm.running_mean.clone()
    done = list(train(task, recipe, tmp_path / "run"))
    assert {"loss", "last_iou"} <= done[-1].figures.keys()
    assert torch.equal(task.model.norm.running_mean, before)
    assert list((tmp_path / "run" / "pictures").iterdir())


def test_gradients_of_the_third_frame_reach_the_mask_that_was_predicted_before_it(task, monkeypatch) -> None:
    given: list[Tensor] = []
    real = Small.memorise

    def noting(self, image, masks, others):
        given.append(masks)
        if masks.requires_grad:
            masks.retain_grad()
        return real(self, image, masks, others)

    monkeypatch.setattr(Small, "memorise", noting)
    task.losses(task.batch(Draw(0, 0, 1, 4)), 0).total.backward()
    assert not given[0].requires_grad
    assert float(given[1].grad.abs().sum()) > 0


def test_a_batch_without_objects_costs_nothing(task, monkeypatch) -> None:
    clips, generator = task.source.clips(task.batch(Draw(0, 0, 2, 4)))
    empty = replace(clips, labels=torch.zeros_like(clips.labels), num_objects=torch.zeros_like(clips.num_objects))
    monkeypatch.setattr(SyntheticClips, "clips", lambda *_: (empty, generator))
    assert float(task.losses({}, 0).total.detach()) == 0


def test_the_recipes_have_the_official_constants(source) -> None:
    shared = {
        "optimiser": "adam", "rate": 1e-5, "weight_decay": 1e-7, "size": 384, "hard_from": 20_000, "hard_until": 70_000, "hard_share": 0.15,
        "accumulate": 2,
    }  # fmt: skip
    rows = (
        ("mivos", "static", 7, 300_000, 250_000, 1),
        ("mivos:bl30k", "bl30k", 4, 500_000, 450_000, 2),
        ("mivos:main", "main", 4, 150_000, 125_000, 2),
    )
    for name, stage, batch, steps, falls, objects in rows:
        recipe = default_recipe(name)
        assert {field: getattr(recipe, field) for field in shared} == shared
        assert (recipe.stage, recipe.batch_size, recipe.steps, recipe.falls_at, recipe.max_objects) == (stage, batch, steps, (falls,), objects)
        (group,) = MivosTask(recipe, Small(), source).parameter_groups()
        assert group.rate.at(falls - 1) == 1e-5
        assert group.rate.at(falls) == pytest.approx(1e-6)


def test_gaps_grow_and_shrink_at_the_official_shares(monkeypatch) -> None:
    clip = AnnotatedClip("one", (Path("a"), Path("b")), (Path("a"), Path("b")), merged=False)
    monkeypatch.setattr(mivos, "read_clips", lambda _: [ClipSet("DAVIS", (clip,), 12, 5), ClipSet("YouTube-VOS", (clip,), 3)])
    recipe = default_recipe("mivos:main")
    source = mivos._source(recipe, Path(), "cpu")
    assert isinstance(source, VideoClips)
    assert [one.max_gap for one in source.sets] == [26, 6]
    gaps = [source.sampling.gap_at(int(share * recipe.steps), 26) for share in (0, 0.1, 0.2, 0.3, 0.4, 0.89, 0.9)]
    assert gaps == [6, 11, 16, 21, 26, 26, 6]
    assert gap_stages(default_recipe("mivos:bl30k"))[-1][0] == 400_000
    assert "1 clips" in describe(MivosTask(recipe, Small(), source))[0]


def test_a_start_ignores_masks_and_is_built_from_a_folder(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(SyntheticClips, "read", staticmethod(lambda *_, **__: source))
    task = build_task(TINY, tmp_path)
    assert "53.7 M parameters" in describe(task)[1]
    image, masks = torch.randn(1, 3, 48, 48), torch.ones(1, 48, 48)
    with torch.no_grad():
        here, there = (task.model.eval().memorise(image, mask, 0 * mask)[0].value for mask in (masks, 0 * masks))
    assert torch.equal(here, there)
