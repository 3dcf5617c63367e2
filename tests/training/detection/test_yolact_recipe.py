import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detection_data import instances, write_coco, write_yolo
from PIL import Image

from rotoscope.datasets.detection.layouts import read_detection_set
from rotoscope.errors import InputError
from rotoscope.models.checkpoints import write_checkpoint
from rotoscope.models.registry import REGISTRY, load_detector
from rotoscope.models.yolact import CLASSES_NOTE, VARIANTS, YolactNetwork, fresh_network
from rotoscope.training.detection.annotated import AnnotatedImages
from rotoscope.training.detection.recipe import YolactRecipe, recipe_of
from rotoscope.training.detection.sources import SceneSource
from rotoscope.training.detection.ssd_augment import SsdSettings
from rotoscope.training.loop import train
from rotoscope.training.recipes import RECIPES, recipe_named
from rotoscope.training.recipes.yolact import YolactTask, build_task, describe
from rotoscope.training.state import export_weights, load_state, trained_weights
from rotoscope.training.task import Draw, Noted, Task

TINY = replace(
    recipe_of("yolact-lite"), sizes=(64,), batch_size=2, steps=2, record_every=1, picture_every=1, prefetch=0, save_every=2, least_side=1.0
)  # fmt: skip


def test_every_detector_of_the_registry_has_a_recipe():
    names = {name for name, spec in REGISTRY.items() if spec.task == "detect"}
    assert names == set(VARIANTS)
    assert names <= set(RECIPES)


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"yolact-lite", "yolact-pascal"}))
def test_released_configurations_have_the_official_schedule(name):
    recipe = recipe_named(name)
    rates = [recipe.rate_of(encoder=False).at(step) for step in (0, 250, 500, 279_999, 280_000, 600_000, 700_000, 799_999)]
    assert rates == pytest.approx([1e-4, 5.5e-4, 1e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
    assert (recipe.steps, recipe.optimiser, recipe.momentum, recipe.weight_decay) == (800_000, "sgd", 0.9, 5e-4)
    assert recipe.decays_all
    assert recipe.max_masks == (300 if name == "yolact-im700" else 100)


def test_pascal_is_trained_for_less_long():
    assert recipe_named("yolact-pascal").falls_at == (60_000, 100_000)


def test_other_batches_change_the_rate_and_the_steps_once():
    recipe = recipe_named("yolact-base", ["batch_size=16"])
    assert (recipe.rate, recipe.steps, recipe.falls_at[0]) == (2e-3, 400_000, 140_000)
    assert replace(recipe, seed=1).steps == 400_000
    assert recipe_named("yolact-base", ["batch_size=4", "accumulate=2"]).steps == 800_000
    assert recipe_named("yolact-base", ["batch_size=4", "scaled_for=0"]).rate == 1e-3


@pytest.mark.parametrize(("batch_size", "freezes"), [(5, True), (6, False)])
def test_normalisations_of_small_batches_stay_as_they_are(batch_size, freezes):
    recipe = recipe_named("yolact-resnet50", [f"batch_size={batch_size}"])
    assert recipe.freezes_norms is freezes
    assert not recipe_named("yolact-resnet50", ["batch_size=1", "frozen_norms=false"]).freezes_norms


@pytest.mark.parametrize("setting", ["sizes=", "sizes=16", "rate=0", "held_out=1", "telling_share=2", "batch_size=0"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(InputError):
        recipe_named("yolact-lite", [setting])


def finished(task: YolactTask, folder: Path, recipe: YolactRecipe = TINY) -> list[float]:
    """The losses of a training, all finite."""
    values = [progress.figures["loss"] for progress in train(task, recipe, folder)]
    assert all(torch.isfinite(torch.tensor(values)))
    return values


@pytest.mark.parametrize("layout", ["COCO", "YOLO"])
def test_lite_learns_classes_of_ones_own_and_its_weights_say_which(tmp_path, layout):
    data = write_coco(tmp_path).parent.parent if layout == "COCO" else write_yolo(tmp_path)
    task = build_task(TINY, data, device="cpu")
    assert isinstance(task, Task)
    assert isinstance(task, Noted)
    finished(task, tmp_path / "run")
    names = ["green", "red"] if layout == "COCO" else ["red", "green"]
    weights = tmp_path / "weights.safetensors"
    export_weights(trained_weights(load_state(tmp_path / "run")), weights, task.notes, model="yolact-lite")
    assert json.loads(task.notes[CLASSES_NOTE]) == names
    assert load_detector("yolact-lite", weights=weights, device="cpu").config.class_names == tuple(names)
    assert (tmp_path / "run" / "pictures").is_dir()


def test_weights_that_state_no_list_of_classes_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    network = YolactNetwork(VARIANTS["yolact-lite"])
    write_checkpoint(path, network.state_dict(), model="yolact-lite", official=False, notes={CLASSES_NOTE: "3"})
    with pytest.raises(ValueError, match="no list of names"):
        load_detector("yolact-lite", weights=path, device="cpu")


def write_masks(root: Path) -> None:
    """Images with masks and an index that says where they are from."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    items = []
    for number, source in enumerate(["Penn-Fudan pedestrians", "DUTS-TR", "DUTS-TR", "clothing"]):
        rgb, labels = Image.new("RGB", (60, 50), (20, 40, 60)), Image.new("L", (60, 50))
        for index in range(2 if source == "clothing" else 1):
            box = (10 + 12 * index, 10, 20 + 12 * index, 40)
            rgb.paste((200, 90, 40), box)
            labels.paste(1 + index, box)
        rgb.save(root / "images" / f"{number}.webp")
        labels.save(root / "masks" / f"{number}.png")
        items.append({"name": str(number), "source": source, "licence": "none"})
    (root / "index.json").write_text(json.dumps({"items": items}))


def test_lite_learns_from_masks_without_classes(tmp_path):
    write_masks(tmp_path / "data")
    recipe = replace(TINY, held_out=0.0)
    task = build_task(recipe, tmp_path / "data", device="cpu")
    source = task.source
    assert isinstance(source, SceneSource)
    assert sorted(source.class_ids[index] for index in source.telling) == [0, 0]  # both show a person, one of them in two parts
    assert [source.bank.labels(index).max() for index in source.telling] == [1, 1]
    assert task.config.class_names == ("person", "object")
    assert "4 images (0 held out), 2 of them with several objects or a class" in describe(task)[0]
    finished(task, tmp_path / "run", recipe)


def test_other_models_learn_one_class_from_masks(tmp_path):
    write_masks(tmp_path / "data")
    images = read_detection_set(tmp_path / "data")
    task = task_of(images_of(tmp_path, images))
    assert task.config.class_names == ("object",)
    assert torch.isfinite(task.losses(task.batch(Draw(0, 0, 2, 0)), 0).total.detach())


def images_of(tmp_path: Path, images: object = None, size: int = 64) -> AnnotatedImages:
    found = images or read_detection_set(write_coco(tmp_path))
    return AnnotatedImages(found, SsdSettings(least_side=1.0), (size,))


def task_of(source: AnnotatedImages, **changes: object) -> YolactTask:
    """A small YOLACT on the pictures of a source."""
    config = replace(VARIANTS["yolact-lite"], class_names=source.images.class_names, width=16, **changes)
    return YolactTask(replace(TINY, frozen_blocks=0), fresh_network(config, 0), source)


def test_a_network_learns_a_batch_by_heart(tmp_path):
    task = task_of(images_of(tmp_path))
    batch = task.batch(Draw(0, 0, 2, 4))
    optimiser = torch.optim.AdamW([{"params": list(group.parameters), "lr": 3e-3} for group in task.parameter_groups()])
    values = []
    for _ in range(14):
        losses = task.losses(batch, 0)
        values.append(float(losses.total.detach()))
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert values[-1] < 0.6 * values[0]


def test_a_batch_is_a_function_of_its_draw(tmp_path):
    source = images_of(tmp_path)
    first, again, other = (source.batch(Draw(step, 0, 2, 0)) for step in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["images"], other["images"])


def test_the_judge_of_masks_is_trained_too(tmp_path):
    task = task_of(images_of(tmp_path, size=256), mask_iou=True)
    losses = task.losses(task.batch(Draw(0, 0, 2, 1)), 0)
    losses.total.backward()
    assert "mask_iou" in losses.figures
    assert task.model.mask_iou.classify.weight.grad is not None


@pytest.mark.parametrize("content", ["nothing", "crowds"])
def test_images_without_objects_alone_can_be_trained_on(tmp_path, content):
    made = instances()
    if content == "nothing":
        made["annotations"] = []
    for one in made["annotations"]:
        one["iscrowd"] = 1
    finished(build_task(TINY, write_coco(tmp_path / "data", made), device="cpu"), tmp_path / "run")


def test_one_class_and_tiny_boxes_can_be_trained_on(tmp_path):
    made = instances()
    made["categories"] = [{"id": 3, "name": "thing"}]
    for one in made["annotations"]:
        x, y = one["bbox"][:2]
        one |= {"category_id": 3, "segmentation": [[x, y, x + 1, y, x + 1, y + 1]], "bbox": [x, y, 1, 1]}
    recipe = replace(TINY, least_side=0.0)
    task = build_task(recipe, write_coco(tmp_path / "data", made), device="cpu")
    assert task.config.num_classes == 1
    finished(task, tmp_path / "run", recipe)


def test_weights_for_other_classes_start_the_rest_of_the_network(tmp_path, caplog):
    path = tmp_path / "start.safetensors"
    start = fresh_network(replace(VARIANTS["yolact-lite"], class_names=("a", "b", "c", "d")), 3)
    write_checkpoint(path, start.state_dict(), model="yolact-lite", official=False)
    task = build_task(TINY, write_coco(tmp_path / "data"), device="cpu", weights=path)
    ours, theirs = task.model.state_dict(), start.state_dict()
    assert torch.equal(ours["head.offsets.weight"], theirs["head.offsets.weight"])
    assert ours["head.classes.weight"].shape[0] == 3 * 3
    assert "start anew" in caplog.text


def test_a_few_damaged_images_are_replaced_and_named(tmp_path):
    images = read_detection_set(write_coco(tmp_path, instances(150)))
    images.samples[0].image_path.write_bytes(b"no image")
    source = images_of(tmp_path, images)
    for step in range(40):
        source.batch(Draw(step, 0, 8, 0))
    assert source.damaged == ("1.png",)


def test_many_damaged_images_stop_the_training(tmp_path):
    images = read_detection_set(write_coco(tmp_path))
    for sample in images.samples:
        sample.image_path.write_bytes(b"no image")
    with pytest.raises(InputError, match="more than 1%"):
        images_of(tmp_path, images).batch(Draw(0, 0, 2, 0))


def test_the_official_encoders_train_with_frozen_normalisations(tmp_path):
    recipe = recipe_named("yolact-resnet50", ["batch_size=1", "sizes=64", "steps=8", "least_side=1"])
    task = build_task(recipe, write_coco(tmp_path), device="cpu")
    task.model.train()
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items() if ".norm." in name}
    losses = task.losses(task.batch(Draw(0, 0, 1, 0)), 0)
    losses.total.backward()
    assert torch.isfinite(losses.total.detach())
    after = task.model.state_dict()
    assert before
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert any("normalisations stay as they are" in line for line in describe(task))
    assert any("encoder=FILE" in line for line in describe(task))


def test_blocks_at_rest_do_not_learn(tmp_path):
    task = build_task(replace(TINY, frozen_blocks=3), write_coco(tmp_path), device="cpu")
    learning = {name for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("backbone.layers.stem", "backbone.layers.blocks.2.")) for name in learning)
    assert any(name.startswith("backbone.layers.blocks.3.") for name in learning)
