"""S2M as a maker of masks: what it is given, what it refuses. Its numbers are in tests/parity/test_mivos_*.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mivos_parity import checkpoint, maker
from torch import Tensor, nn

from rotoscope.errors import CheckpointError, InputError, MaskError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, read_checkpoint, rename, write_checkpoint
from rotoscope.models.s2m import OFFICIAL_NAMES, S2mConfig, S2mMaker, S2mNetwork, build
from rotoscope.testing import moving_shapes
from rotoscope.types import Clicks, Frame, Interaction, MaskMaker, Masks, Scribble

HW = (40, 50)


class Plain(S2mNetwork):
    """In place of the network: what is on an object belongs to it, and its previous mask, less what is off it; it notes the sizes of its inputs."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.classify = nn.Conv2d(1, 1, 1)
        self.inputs: list[Tensor] = []

    def forward(self, maps: Tensor) -> Tensor:
        self.inputs.append(maps)
        return 9 * (maps[:, 3:4] + maps[:, 4:5] - 2 * maps[:, 5:6] - 0.5)


@pytest.fixture
def plain() -> S2mMaker:
    return S2mMaker(Plain(), S2mConfig())


@pytest.fixture
def frame() -> Frame:
    return Frame(3, moving_shapes(num_frames=1, hw=HW, num_objects=1)[0][0])


def line(object_id: int, row: int, *, positive: bool = True, frame_index: int = 3) -> Scribble:
    return Scribble(frame_index, object_id, torch.tensor([[5.0, row], [30.0, row]]), positive)


def nothing(*object_ids: int) -> Masks:
    return Masks.from_labels(torch.zeros(HW, dtype=torch.int32), object_ids)


def test_it_is_a_mask_maker(plain) -> None:
    assert isinstance(plain, MaskMaker)


def test_lines_make_masks_of_the_objects_they_speak_of(plain, frame) -> None:
    made = plain.make(frame, [line(4, 10), line(9, 20)], nothing(4))
    assert made.object_ids == (4, 9)
    assert made.hw == HW
    assert made.labels()[10, 5:31].unique().tolist() == [4]
    assert made.labels()[20, 5:31].unique().tolist() == [9]
    assert torch.allclose(made.probs.sum(dim=0), torch.ones(HW), atol=1e-5)
    assert float(((made.probs - 0.5).abs() > 0.49).float().mean()) > 0.99  # hard


def test_the_previous_mask_stays_but_for_what_is_said_to_be_off_it(plain, frame) -> None:
    labels = torch.zeros(HW, dtype=torch.int32)
    labels[5:15, 5:30] = 4
    made = plain.make(frame, [line(4, 10, positive=False)], Masks.from_labels(labels))
    assert int(made.labels()[10, 10]) == 0
    assert int(made.labels()[13, 10]) == 4


def test_clicks_are_dots(plain, frame) -> None:
    made = plain.make(frame, [Clicks(3, 1, torch.tensor([[20.0, 20.0], [40.0, 20.0]]), torch.tensor([True, False]))], nothing(1))
    assert int(made.labels()[20, 20]) == 1
    assert int(made.labels()[20, 40]) == 0


def test_frames_get_a_border_that_is_cut_again(plain, frame) -> None:
    plain.make(frame, [line(1, 10)], nothing(1))
    assert plain.network.inputs[0].shape == (1, 6, 48, 64)
    assert float(plain.network.inputs[0][0, 4, 14, 12]) == 1  # row 10 and column 5, behind a border of 4 and 7


def test_masks_with_the_border_come_back_with_it(plain, frame) -> None:
    current = Masks.from_labels(torch.zeros((48, 64), dtype=torch.int32), [1])
    made = plain.make(frame, [line(1, 10)], current)
    assert made.hw == (48, 64)
    assert made.labels()[10, 5:31].unique().tolist() == [1]


def test_many_objects_go_in_several_passes_with_the_same_result(frame) -> None:
    drawn: list[Interaction] = [line(object_id, 3 * object_id) for object_id in range(1, 6)]
    apart, together = S2mMaker(Plain(), S2mConfig(pixels_at_once=2 * 48 * 64)), S2mMaker(Plain(), S2mConfig())
    results = [one.make(frame, drawn, nothing()) for one in (apart, together)]
    assert [len(maps) for maps in apart.network.inputs] == [2, 2, 1]
    assert torch.equal(results[0].probs, results[1].probs)


def test_soft_masks_keep_the_winner(frame) -> None:
    soft, hard = (S2mMaker(Plain(), S2mConfig(hard=hard)).make(frame, [line(1, 10)], nothing(1)) for hard in (False, True))
    assert torch.equal(soft.labels(), hard.labels())
    assert float(soft.probs.max()) < float(hard.probs.max())


def test_without_objects_nothing_changes(plain, frame) -> None:
    current = nothing()
    assert plain.make(frame, [], current) is current
    assert plain.network.inputs == []


def test_lines_of_other_frames_and_masks_of_other_sizes_are_refused(plain, frame) -> None:
    with pytest.raises(InputError, match=r"interactions of frames \[2\] were given with frame 3"):
        plain.make(frame, [line(1, 10, frame_index=2)], nothing(1))
    with pytest.raises(MaskError, match="resize the masks"):
        plain.make(frame, [line(1, 2)], Masks.from_labels(torch.zeros((8, 8), dtype=torch.int32), [1]))


def test_its_weights_survive_a_round_trip_through_our_format(frame, tmp_path: Path) -> None:
    path = tmp_path / "s2m.safetensors"
    write_checkpoint(path, rename(checkpoint("s2m"), OFFICIAL_NAMES).tensors, model="s2m", official=True)
    again = registry.load_mask_maker("s2m", weights=path, device="cpu", hard=False)
    assert isinstance(again, S2mMaker)
    assert again.config == replace(S2mConfig(), hard=False)
    drawn = [line(1, 10)]
    ours = S2mMaker(maker().network, again.config)
    assert torch.equal(again.make(frame, drawn, nothing(1)).probs, ours.make(frame, drawn, nothing(1)).probs)
    assert registry.identify(read_checkpoint(path)) == ["s2m"]


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(CheckpointError, match="which the model does not know"):
        build(S2mConfig(), Checkpoint(checkpoint("fusion").tensors, "synthetic"), "cpu")
