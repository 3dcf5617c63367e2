import pytest
import torch
from torch import nn

from rotoscope.errors import CheckpointError, MaskError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, write_checkpoint
from rotoscope.models.fusion_lite import BlendFuser, BlendNetwork, FusionLiteConfig, build
from rotoscope.testing import moving_shapes
from rotoscope.tracking.rounds import LinearBlend
from rotoscope.types import Frame, Fuser, Masks

HW = (39, 50)
IMAGES, LABELS = moving_shapes(num_frames=3, hw=HW, num_objects=2, seed=3)
FRAME = Frame(1, IMAGES[1])


def soft(labels: torch.Tensor, ids: tuple[int, ...]) -> Masks:
    certain = Masks.from_labels(torch.where(torch.isin(labels, torch.tensor(ids)), labels, 0), ids)
    return Masks(0.9 * certain.probs + 0.1 / certain.probs.shape[0], ids)


@pytest.fixture
def fuser() -> BlendFuser:
    torch.manual_seed(0)
    return BlendFuser(BlendNetwork().eval(), FusionLiteConfig())


@pytest.fixture
def learnt(fuser) -> BlendFuser:
    nn.init.normal_(fuser.network.leave.weight)
    nn.init.normal_(fuser.network.leave.bias)
    return fuser


@pytest.mark.parametrize("nearness", [0.05, 0.4, 0.95])
def test_untrained_it_is_the_linear_blend(fuser, nearness) -> None:
    assert isinstance(fuser, Fuser)
    earlier, newer = soft(LABELS[0], (1,)), soft(LABELS[2], (1,))
    ours = fuser.fuse(FRAME, earlier, newer, nearness=nearness)
    blend = LinearBlend().fuse(FRAME, earlier, newer, nearness=nearness)
    assert torch.equal(ours.labels(), blend.labels())
    assert torch.allclose(ours.probs.sum(dim=0), torch.ones(HW), atol=1e-5)


def test_where_both_masks_agree_nothing_changes(learnt) -> None:
    masks = soft(LABELS[1], (1, 2))
    assert torch.equal(learnt.fuse(FRAME, masks, masks, nearness=0.5).labels(), masks.labels())
    differs = learnt.fuse(FRAME, soft(LABELS[0], (1, 2)), masks, nearness=0.5)
    assert not torch.equal(differs.labels(), LinearBlend().fuse(FRAME, soft(LABELS[0], (1, 2)), masks, nearness=0.5).labels())


def test_objects_that_the_earlier_masks_do_not_list_stay(learnt) -> None:
    fused = learnt.fuse(FRAME, soft(LABELS[0], (1,)), soft(LABELS[2], (1, 2)), nearness=0.5)
    assert fused.object_ids == (1, 2)
    claimed = (LABELS[2] == 2) & (fused.labels() != 1)
    assert bool((fused.labels()[claimed] == 2).all())


def test_changes_and_passes_are_taken_as_they_come(learnt) -> None:
    earlier, newer = soft(LABELS[0], (1, 2)), soft(LABELS[2], (1, 2))
    told = learnt.fuse(FRAME, earlier, newer, nearness=0.5, change=torch.rand(2, 2, *HW))
    assert not torch.equal(told.probs, learnt.fuse(FRAME, earlier, newer, nearness=0.5).probs)
    apart = BlendFuser(learnt.network, FusionLiteConfig(pixels_at_once=1)).fuse(FRAME, earlier, newer, nearness=0.5)
    assert torch.allclose(apart.probs, learnt.fuse(FRAME, earlier, newer, nearness=0.5).probs, atol=1e-5)


def test_masks_of_another_size_are_refused(fuser) -> None:
    with pytest.raises(MaskError, match="resize the masks"):
        fuser.fuse(FRAME, soft(LABELS[0][:8, :8], (1,)), soft(LABELS[0], (1,)), nearness=0.5)


def test_its_weights_survive_a_round_trip_and_others_are_refused(fuser, tmp_path) -> None:
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, fuser.network.state_dict(), model="fusion-lite", official=False)
    assert path.stat().st_size < 100_000
    assert isinstance(registry.load_fuser("fusion-lite", weights=path, device="cpu"), BlendFuser)
    with pytest.raises(CheckpointError):
        build(FusionLiteConfig(), Checkpoint({"a": torch.ones(1)}, "elsewhere"), "cpu")
