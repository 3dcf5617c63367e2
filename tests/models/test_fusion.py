"""FusionNet as a fuser: what it is given, what it refuses. Its numbers are in tests/parity/test_mivos_*.py."""

from pathlib import Path

import pytest
import torch
from mivos_parity import checkpoint, fuser
from torch import Tensor, nn

from rotoscope.errors import CheckpointError, InputError, MaskError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, rename, write_checkpoint
from rotoscope.models.fusion import OFFICIAL_NAMES, DifferenceAwareFuser, FusionConfig, FusionNetwork, build
from rotoscope.types import Frame, Fuser, Masks

HW = (20, 30)


class Plain(FusionNetwork):
    """In place of the network: the mean of both masks, by time; it notes its inputs."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.classify = nn.Conv2d(1, 1, 1)
        self.inputs: list[tuple[Tensor, ...]] = []

    def forward(self, image: Tensor, probs: Tensor, change: Tensor, times: Tensor) -> Tensor:
        self.inputs.append((image, probs, change, times))
        weights = times.flip(1)[:, :, None, None]
        return torch.logit((probs * weights).sum(dim=1, keepdim=True), eps=1e-6)


@pytest.fixture
def plain() -> DifferenceAwareFuser:
    return DifferenceAwareFuser(Plain(), FusionConfig(pixels_at_once=10**6))


def frame(hw: tuple[int, int] = HW) -> Frame:
    return Frame(3, torch.randint(0, 255, (3, *hw), dtype=torch.uint8))


def masks(*object_ids: int, hw: tuple[int, int] = HW, seed: int = 0) -> Masks:
    random = torch.Generator().manual_seed(seed)
    return Masks(torch.randn(1 + len(object_ids), *hw, generator=random).softmax(dim=0), object_ids)


def test_it_is_a_fuser(plain) -> None:
    assert isinstance(plain, Fuser)


def test_earlier_and_newer_masks_enter_by_object_with_both_distances(plain) -> None:
    earlier, newer = masks(7, 5), masks(5, 7, seed=1)
    fused = plain.fuse(frame(), earlier, newer, nearness=0.25)
    _, probs, change, times = plain.network.inputs[0]
    assert torch.equal(probs[:, 0], earlier.probs[[2, 1]])
    assert torch.equal(probs[:, 1], newer.probs[1:])
    assert times.tolist() == [[0.25, 0.75], [0.25, 0.75]]
    assert float(change.abs().max()) == 0
    assert fused.object_ids == (5, 7)
    assert torch.allclose(fused.probs.sum(dim=0), torch.ones(HW), atol=1e-5)


def test_an_object_that_was_not_there_before_stays_as_it_is(plain) -> None:
    newer = masks(5, 7)
    alone = Masks(torch.stack((1 - newer.probs[2], newer.probs[2])), (7,))
    fused = plain.fuse(frame(), masks(5, seed=1), Masks(torch.cat((alone.probs, torch.zeros(1, *HW))), (7, 5)), nearness=0.5)
    assert len(plain.network.inputs[0][0]) == 1
    kept = (fused.probs[1] > 0.5) == (alone.probs[1] > 0.5)
    assert float(kept.float().mean()) > 0.9
    nothing_known = plain.fuse(frame(), masks(), newer, nearness=0.5)
    assert len(plain.network.inputs) == 1
    assert nothing_known.object_ids == (5, 7)


def test_changes_reach_the_network(plain) -> None:
    change = torch.rand(2, 2, *HW)
    plain.fuse(frame(), masks(5, 7), masks(5, 7), nearness=0.5, change=change)
    assert torch.equal(plain.network.inputs[0][2], change)


def test_objects_share_a_pass_as_far_as_memory_goes(plain) -> None:
    small = DifferenceAwareFuser(Plain(), FusionConfig(pixels_at_once=1))
    earlier, newer, picture = masks(1, 2, 3), masks(1, 2, 3, seed=1), frame()
    apart, together = (one.fuse(picture, earlier, newer, nearness=0.5).probs for one in (small, plain))
    assert torch.allclose(apart, together, atol=1e-6)
    assert [len(entry[0]) for entry in small.network.inputs] == [1, 1, 1]


def test_masks_may_have_a_border_but_one_size(plain) -> None:
    wide = plain.fuse(frame(), masks(5, hw=(32, 32)), masks(5, hw=(32, 32)), nearness=0.5)
    assert wide.hw == (32, 32)
    image = plain.network.inputs[0][0]
    assert float(image[..., :6, :].abs().max()) == 0
    assert float(image[..., 6:26, 1:31].abs().max()) > 0
    for earlier, newer in ((masks(5), masks(5, hw=(32, 32))), (masks(5, hw=(8, 8)), masks(5, hw=(8, 8)))):
        with pytest.raises(MaskError, match="resize the masks"):
            plain.fuse(frame(), earlier, newer, nearness=0.5)


def test_its_weights_survive_a_round_trip_through_our_format(tmp_path: Path) -> None:
    path = tmp_path / "fusion.safetensors"
    write_checkpoint(path, rename(checkpoint("fusion"), OFFICIAL_NAMES).tensors, model="fusion", official=True)
    again = registry.load_fuser(weights=path, device="cpu")
    one, other, picture = masks(5, 7), masks(5, 7, seed=1), frame()
    assert torch.equal(again.fuse(picture, one, other, nearness=0.3).probs, fuser().fuse(picture, one, other, nearness=0.3).probs)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    changed = dict(checkpoint("fusion").tensors)
    del changed["final_conv.bias"]
    with pytest.raises(CheckpointError, match=r"lacks classify\.bias"):
        build(FusionConfig(), Checkpoint(changed, "synthetic"), "cpu")


def test_a_model_is_loaded_for_its_own_task_alone() -> None:
    with pytest.raises(InputError, match="'fusion' is not made for this: its task is 'fuse'; models that track: mast-lite"):
        registry.load("fusion")
    with pytest.raises(InputError, match="its task is 'track'; models that interact: s2m"):
        registry.load_mask_maker("mivos")
    with pytest.raises(CheckpointError, match=r"'fusion' ships no weights; get fusion\.pth"):
        registry.load_fuser()
