import pytest
import torch

from rotoscope.training.detection.scenes import LabelledImages, SceneSettings, make_scenes
from rotoscope.training.detection.truth import ANY_CLASS, boxes_around
from rotoscope.training.losses import VOID

PLAIN = SceneSettings(view=(1.0, 1.0), stretch=0.0, layers=0, least_pixels=1)
SIZE = 64


def images(count: int = 2, *, void: bool = False) -> LabelledImages:
    """Dark images of 40 x 60 with a light object at the left and one at the right, padded to 48 x 64."""
    rgb = torch.full((count, 3, 48, 64), 40, dtype=torch.uint8)
    labels = torch.full((count, 48, 64), VOID, dtype=torch.uint8)
    labels[:, :40, :60] = 0
    labels[:, 10:30, 5:20], labels[:, 5:35, 40:55] = 1, 2
    rgb[(labels == 1)[:, None].expand_as(rgb)] = 200
    if void:
        labels[:, 0:4, 0:4] = VOID
    return LabelledImages(rgb, labels, torch.tensor([[40, 60]] * count), torch.tensor([ANY_CLASS, 3])[:count])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_whole_image_keeps_its_objects_where_they_are():
    scenes = make_scenes(images(), [], SIZE, PLAIN, generator(1))
    assert scenes.images.shape == (2, 3, SIZE, SIZE)
    for truth, class_id in zip(scenes.truths, (ANY_CLASS, 3), strict=True):
        assert truth.class_ids.tolist() == [class_id] * 2
        assert truth.crowd_boxes.shape == (0, 4)
        boxes = torch.tensor([[5 / 60, 10 / 40, 20 / 60, 30 / 40], [40 / 60, 5 / 40, 55 / 60, 35 / 40]])
        mirrored = torch.stack((1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]), dim=1)
        error = min(float((truth.boxes - expected).abs().max()) for expected in (boxes, mirrored))
        assert error <= 1.5 / SIZE


def test_masks_lie_on_the_pixels_of_their_objects():
    scenes = make_scenes(images(), [], SIZE, SceneSettings(layers=0), generator(2))
    for image, truth in zip(scenes.images, scenes.truths, strict=True):
        light = image[0] > 120 / 255
        first = truth.masks[0].bool()
        assert (light & first).sum() > 0.9 * first.sum()


def test_boxes_are_those_of_the_masks_and_lie_within_the_picture():
    for seed in range(5):
        for truth in make_scenes(images(), [images()], SIZE, SceneSettings(layer_share=1.0), generator(seed)).truths:
            assert torch.equal(truth.boxes, boxes_around(truth.masks.bool()))
            assert ((truth.boxes[:, 2:] - truth.boxes[:, :2]) > 0).all()


def test_objects_of_other_images_are_laid_over_with_their_class():
    grounds = LabelledImages(images().images, torch.zeros_like(images().labels), images().hw, torch.tensor([ANY_CLASS, ANY_CLASS]))
    settings = SceneSettings(layer_share=1.0, layer_extent=(0.4, 0.5), least_pixels=1)
    truths = make_scenes(grounds, [images(), images()], SIZE, settings, generator(3)).truths
    assert [truth.class_ids.unique().tolist() for truth in truths] == [[ANY_CLASS], [3]]
    assert not (truths[0].masks.sum(dim=0) > 1).any()


def test_without_layers_nothing_is_laid_over():
    grounds = LabelledImages(images().images, torch.zeros_like(images().labels), images().hw, torch.tensor([0, 0]))
    truths = make_scenes(grounds, [images()], SIZE, SceneSettings(layer_share=0.0), generator()).truths
    assert all(len(truth) == 0 for truth in truths)


def test_void_and_hardly_seen_objects_are_neither_taught_nor_background():
    truths = make_scenes(images(void=True), [], SIZE, SceneSettings(view=(1.0, 1.0), layers=0, least_pixels=600), generator(1)).truths
    for truth in truths:
        assert len(truth) == 1  # the larger one
        assert len(truth.crowd_boxes) == 2  # the smaller one and the void


def test_beyond_the_image_lies_the_mean_colour():
    scenes = make_scenes(images(), [], SIZE, SceneSettings(view=(2.0, 2.0), stretch=0.0, layers=0), generator(1))
    assert (scenes.images * 255 - torch.tensor([124.0, 116.0, 104.0])[:, None, None]).abs().amax(dim=1).le(1).float().mean() > 0.6


def test_scenes_are_a_function_of_the_state_of_the_generator():
    first, again, other = (make_scenes(images(), [images()], SIZE, SceneSettings(), generator(seed)) for seed in (4, 4, 5))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("labels", [0, VOID])
def test_an_image_without_objects_gives_no_layer(labels):
    bare = LabelledImages(images().images, torch.full_like(images().labels, labels), images().hw, torch.tensor([0, 0]))
    truths = make_scenes(bare, [bare], SIZE, SceneSettings(layer_share=1.0), generator()).truths
    assert all(len(truth) == 0 for truth in truths)
