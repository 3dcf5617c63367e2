"""YOLACT's networks by what they promise: sizes, priors, starts of trainings, and that `prepare` changes the speed only."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rotoscope.errors import CheckpointError, InputError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, load_strictly, read_checkpoint, write_checkpoint
from rotoscope.models.yolact import VARIANTS, MaskIouNetwork, YolactConfig, YolactNetwork, fresh_network
from rotoscope.models.yolact.backbones import ResNetBackbone
from rotoscope.models.yolact.classes import COCO_CLASSES, COCO_IDS, COCO_INDEX, LITE_CLASSES, PASCAL_CLASSES
from rotoscope.models.yolact.mask_iou import LEAST_SIDE
from rotoscope.models.yolact.priors import priors_of
from rotoscope.nn.conv_norm import FrozenBatchNorm2d

LITE = VARIANTS["yolact-lite"]


def levels_of(hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of P3 to P7."""
    return [(-(-hw[0] // stride), -(-hw[1] // stride)) for stride in (8, 16, 32, 64, 128)]


def shipped_encoder() -> Checkpoint:
    return read_checkpoint(registry.SHIPPED_WEIGHTS / "mast-lite.safetensors")


def random_norms(network: nn.Module) -> None:
    for part in network.modules():
        if isinstance(part, FrozenBatchNorm2d | nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)


def test_the_classes_are_those_of_the_data_sets() -> None:
    assert (len(COCO_CLASSES), len(PASCAL_CLASSES)) == (80, 20)
    assert len(set(COCO_CLASSES)) == len(set(COCO_IDS)) == 80
    assert (COCO_IDS[0], COCO_IDS[11], COCO_IDS[-1]) == (1, 13, 90)
    assert COCO_CLASSES[COCO_INDEX[13]] == "stop sign"
    assert COCO_CLASSES[COCO_INDEX[90]] == "toothbrush"
    assert PASCAL_CLASSES[14] == LITE_CLASSES[0] == "person"


@settings(deadline=None, max_examples=25)
@given(
    hw=st.tuples(st.integers(64, 700), st.integers(64, 700)),
    name=st.sampled_from(sorted(VARIANTS)),
)
def test_priors_lie_in_the_middle_of_their_cells(hw, name) -> None:
    config = VARIANTS[name]
    found = priors_of(config, levels_of(hw))
    assert len(found) == config.priors_per_cell * sum(rows * columns for rows, columns in levels_of(hw))
    assert bool((found[:, :2] > 0).all())
    assert bool((found[:, :2] < 1).all())
    first = found[0, :2] * torch.tensor([levels_of(hw)[0][1], levels_of(hw)[0][0]])
    torch.testing.assert_close(first, torch.tensor([0.5, 0.5]))
    assert bool((found[:, 2] == found[:, 3]).all()) == config.square_priors


def test_priors_made_elsewhere_serve_a_training() -> None:
    config = replace(LITE, image_size=353)  # not asked for before
    with torch.inference_mode(), torch.device("meta"):
        found = priors_of(config, levels_of((64, 64)))
    assert found.device.type == "cpu"
    scale = torch.ones(4, requires_grad=True)
    (found * scale).sum().backward()
    assert scale.grad is not None


@pytest.mark.parametrize("hw", [(352, 352), (200, 333), (97, 64), (240, 426)])
def test_the_lite_network_takes_any_size(hw) -> None:
    network = fresh_network(LITE, 0).prepare()
    with torch.inference_mode():
        found = network(torch.randn(2, 3, *hw))
    count = len(priors_of(LITE, levels_of(hw)))
    assert found.offsets.shape == (2, count, 4)
    assert found.class_logits.shape == (2, count, 3)
    assert found.coefficients.shape == (2, count, 32)
    assert found.prototypes.shape == (2, 32, 2 * levels_of(hw)[0][0], 2 * levels_of(hw)[0][1])
    assert found.priors.shape == (count, 4)
    assert found.semantic_logits is None


def test_the_lite_network_fits_into_ten_megabytes(tmp_path) -> None:
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in YolactNetwork(LITE).state_dict().items()}
    write_checkpoint(tmp_path / "lite.safetensors", tensors, model="yolact-lite", official=False)
    assert (tmp_path / "lite.safetensors").stat().st_size < 10e6


def test_preparing_changes_the_outputs_to_rounding_only() -> None:
    network = fresh_network(LITE, 0, backbone=shipped_encoder()).eval()
    random_norms(network)
    x = torch.randn(1, 3, 176, 240)
    with torch.inference_mode():
        before = network(x)
        after = network.prepare()(x)
        for name in ("offsets", "class_logits", "coefficients", "prototypes", "priors"):
            torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=2e-4, rtol=2e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_pictures_of_a_batch_do_not_see_each_other_and_the_result_is_repeatable() -> None:
    network = fresh_network(LITE, 0).prepare()
    x = torch.randn(3, 3, 96, 128)
    with torch.inference_mode():
        whole, alone, again = network(x), network(x[1:2]), network(x)
    torch.testing.assert_close(whole.class_logits[1:2], alone.class_logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(whole.prototypes, again.prototypes)


def test_everything_but_the_judge_of_masks_learns_from_the_raw_outputs() -> None:
    network = fresh_network(LITE, 0, backbone=shipped_encoder()).train()
    found = network(torch.randn(2, 3, 96, 96))
    assert found.semantic_logits is not None
    assert found.semantic_logits.shape == (2, 2, 12, 12)
    parts = (found.offsets, found.class_logits, found.coefficients, found.prototypes, found.semantic_logits)
    sum(part.square().mean() for part in parts).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not bool(value.grad.abs().sum() > 0)]
    assert not still


def test_the_same_seed_gives_the_same_start_and_leaves_other_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    first, same, other = (fresh_network(LITE, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.shared.weight"], other["head.shared.weight"])
    assert not any(bool(first[name].any()) for name in first if name.startswith("head.") and name.endswith("bias"))


def test_with_a_focal_loss_the_classes_begin_with_their_prior() -> None:
    network = fresh_network(LITE, 0, foreground_prior=0.01)
    head = network.head
    nn.init.zeros_(head.classes.weight)
    with torch.no_grad():
        _, logits, _ = head([torch.randn(1, LITE.width, 2, 3)])
    torch.testing.assert_close(logits.softmax(dim=-1), torch.tensor([0.99, 0.005, 0.005]).expand(1, 18, 3))


def test_the_encoder_that_ships_fills_the_first_stages() -> None:
    given_ = shipped_encoder()
    network, plain = fresh_network(LITE, 0, backbone=given_), fresh_network(LITE, 0)
    encoder, untouched = network.backbone.layers.state_dict(), plain.backbone.layers.state_dict()
    assert all(torch.equal(encoder[name], value.float()) for name, value in given_.tensors.items())
    assert all(torch.equal(encoder[name], untouched[name]) for name in encoder if name not in given_.tensors)
    assert len(given_.tensors) < len(encoder)
    with pytest.raises(CheckpointError, match=r"lacks stem.conv.weight"):
        fresh_network(LITE, 0, backbone=replace(given_, tensors={name: value for name, value in given_.tensors.items() if "stem" not in name}))


def torchvision_keys(network: ResNetBackbone) -> dict[str, Tensor]:
    """The encoder's weights under torchvision's names, with the classifier of such files."""
    parts = {"reduce": "1", "spatial": "2", "expand": "3"}
    renamed = {"fc.weight": torch.zeros(1)}
    for name, value in network.state_dict().items():
        if ".taps." in name or name.endswith("spatial.conv.bias"):
            continue
        fields = name.split(".")
        if fields[0] == "stem":
            renamed[f"{'conv1' if fields[1] == 'conv' else 'bn1'}.{fields[2]}"] = value
            continue
        kind = ("0" if fields[4] == "conv" else "1") if fields[3] == "shortcut" else ("conv" if fields[4] == "conv" else "bn") + parts[fields[3]]
        middle = f"downsample.{kind}" if fields[3] == "shortcut" else kind
        renamed[f"layer{int(fields[1]) + 1}.{fields[2]}.{middle}.{fields[5]}"] = value
    return renamed


def test_torchvisions_names_start_a_deformable_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(config: YolactConfig, *, frozen: bool) -> ResNetBackbone:
        return ResNetBackbone((1, 1, 2, 1), deformable_interval=config.deformable_interval, frozen=frozen, width=4)

    monkeypatch.setattr("rotoscope.models.yolact.network.backbone_of", tiny)
    torch.manual_seed(5)
    source = ResNetBackbone((1, 1, 2, 1), width=4)
    network = fresh_network(replace(VARIANTS["yolact-plus-base"], width=8), 0, backbone=Checkpoint(torchvision_keys(source), "start"))
    wanted, got = source.state_dict(), network.backbone.state_dict()
    assert all(torch.equal(got[name], value) for name, value in wanted.items())
    assert [name for name in got if name.endswith("taps.weight")] == [f"stages.{stage}.0.spatial.conv.taps.weight" for stage in (1, 2, 3)]
    assert not any(bool(value.any()) for name, value in got.items() if ".taps." in name)


def test_frozen_norms_have_the_same_keys_and_do_not_learn() -> None:
    config = VARIANTS["yolact-resnet50"]
    with torch.device("meta"):
        free, frozen = YolactNetwork(config), YolactNetwork(config, frozen_norms=True)
    counted = {name for name in free.state_dict() if name.endswith("num_batches_tracked")}
    assert set(free.state_dict()) - counted == set(frozen.state_dict())
    assert any("norm" in name for name, _ in free.named_parameters())
    assert not any("norm" in name for name, _ in frozen.named_parameters())
    with pytest.raises(CheckpointError, match="does not fit"):
        load_strictly(frozen, Checkpoint({}, "nothing"))


def test_masks_too_small_to_judge_are_refused_with_the_least_size() -> None:
    network = MaskIouNetwork(5).eval()
    assert network(torch.rand(2, 1, LEAST_SIDE, LEAST_SIDE)).shape == (2, 5)
    with pytest.raises(InputError, match="at least 252 pixels"):
        network(torch.rand(2, 1, LEAST_SIDE - 1, 90))
