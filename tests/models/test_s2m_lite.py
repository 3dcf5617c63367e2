"""`s2m-lite` as a maker of masks: what it accepts and refuses, where it looks, and that it never contradicts a click."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rotoscope.errors import CheckpointError, InputError, MaskError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, write_checkpoint
from rotoscope.models.s2m_lite import S2mLiteConfig, S2mLiteMaker, S2mLiteNetwork, build
from rotoscope.models.s2m_lite.views import View
from rotoscope.testing import moving_shapes
from rotoscope.types import Box, Clicks, Frame, MaskMaker, Masks, Painted, Scribble

HW = (120, 200)
IMAGE = moving_shapes(num_frames=1, hw=HW, num_objects=1)[0][0]


class Plain(S2mLiteNetwork):
    """In place of the network: the previous mask, the box, and all within 12 pixels of a positive hint, but not within 12 of a negative one."""

    def __init__(self, answer: float | None = None) -> None:
        nn.Module.__init__(self)
        self.classify = nn.Conv2d(1, 1, 1)
        self.answer = answer
        self.said: list[Tensor] = []

    def forward(self, image: Tensor, said: Tensor) -> Tensor:
        assert image.shape[2] % 16 == image.shape[3] % 16 == 1
        self.said.append(said)
        if self.answer is not None:
            return torch.full_like(said[:, :1], self.answer)
        near = nn.functional.max_pool2d(nn.functional.max_pool2d(said[:, 1:3], (25, 1), 1, (12, 0)), (1, 25), 1, (0, 12))
        return 10 * ((said[:, :1] + near[:, :1] + said[:, 3:]).clamp(max=1) - near[:, 1:] - 0.5)


@pytest.fixture
def plain() -> S2mLiteMaker:
    return S2mLiteMaker(Plain(), S2mLiteConfig(long_edge=192))


@pytest.fixture
def frame() -> Frame:
    return Frame(3, IMAGE)


def clicks(*places: tuple[float, float, bool], object_id: int = 1) -> Clicks:
    return Clicks(3, object_id, torch.tensor([place[:2] for place in places], dtype=torch.float32), torch.tensor([place[2] for place in places]))


def box(x0: float, y0: float, x1: float, y1: float) -> Box:
    return Box(3, 1, torch.tensor([x0, y0, x1, y1], dtype=torch.float32))


def current(labels: dict[tuple[int, int, int, int], int] | None = None, ids: tuple[int, ...] | None = None) -> Masks:
    drawn = torch.zeros(HW, dtype=torch.int32)
    for (x0, y0, x1, y1), object_id in (labels or {}).items():
        drawn[y0:y1, x0:x1] = object_id
    return Masks.from_labels(drawn, ids)


def extent(found: Tensor) -> tuple[int, ...]:
    rows, columns = found.any(dim=1).nonzero(), found.any(dim=0).nonzero()
    return tuple(int(value) for value in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def test_it_is_a_mask_maker(plain) -> None:
    assert isinstance(plain, MaskMaker)


def test_every_kind_of_interaction_makes_a_mask_of_its_object(plain, frame) -> None:
    painted = torch.zeros(HW, dtype=torch.bool)
    painted[100:110, 10:20] = True
    done = [
        clicks((30, 30, True)),
        Box(3, 2, torch.tensor([100.0, 20.0, 140.0, 60.0])),
        Scribble(3, 5, torch.tensor([[150.0, 90.0], [190.0, 90.0]])),
        Painted(3, 7, painted),
    ]
    made = plain.make(frame, done, current())
    assert made.object_ids == (1, 2, 5, 7)
    assert torch.allclose(made.probs.sum(dim=0), torch.ones(HW), atol=1e-5)
    labels = made.labels()
    assert int(labels[30, 30]) == 1
    assert [abs(a - b) < 3 for a, b in zip(extent(labels == 2), (100, 20, 140, 60), strict=True)] == [True] * 4
    assert labels[90, 152:188].unique().tolist() == [5]
    assert torch.equal(labels == 7, painted)


def test_objects_that_nothing_was_done_to_are_left_alone_but_for_what_is_taken(plain, frame) -> None:
    before = current({(90, 10, 150, 70): 4, (10, 90, 30, 110): 9})
    made = plain.make(frame, [box(120, 10, 180, 70)], before)
    assert made.object_ids == (4, 9, 1)
    assert torch.equal(made.labels() == 9, before.labels() == 9)
    assert int(made.labels()[40, 100]) == 4
    assert int(made.labels()[40, 130]) == 1


def test_without_interactions_the_masks_come_back(plain, frame) -> None:
    before = current({(0, 0, 5, 5): 2})
    assert plain.make(frame, [], before) is before


def test_a_correction_starts_from_the_present_mask(plain, frame) -> None:
    made = plain.make(frame, [clicks((100, 60, False))], current({(60, 30, 140, 90): 1}))
    assert int(made.labels()[60, 100]) == 0
    assert int(made.labels()[35, 65]) == 1


def test_what_is_on_one_object_is_off_another(plain, frame) -> None:
    made = plain.make(frame, [clicks((60, 60, True)), clicks((72, 60, True), object_id=2)], current())
    first = plain.network.said[0]
    assert float(first[0, 1].sum()) == float(first[0, 2].sum()) > 0
    assert int(made.labels()[60, 60]) == 1
    assert int(made.labels()[60, 72]) == 2


def test_more_done_to_a_painted_object_starts_from_the_painting(plain, frame) -> None:
    painted = torch.zeros(HW, dtype=torch.bool)
    painted[40:80, 60:120] = True
    made = plain.make(frame, [clicks((5, 5, True)), Painted(3, 1, painted), clicks((90, 60, False))], current())
    assert int(made.labels()[5, 5]) == 1  # no click is contradicted, not even one before the painting
    assert int(made.labels()[60, 90]) == 0
    assert int(made.labels()[42, 62]) == 1


def test_the_network_looks_closer_at_a_small_object(plain, frame) -> None:
    plain.make(frame, [clicks((100, 60, True))], current())
    whole, near = (said.shape[2:] for said in plain.network.said)
    assert whole == (113, 193)
    assert near[0] == near[1]
    assert float(plain.network.said[1][0, 0].mean()) > 4 * float(plain.network.said[0][0, 1].mean())
    plain.network.said.clear()
    plain.make(frame, [box(80, 40, 120, 80)], current())
    assert len(plain.network.said) == 1  # a box says where to look


def test_a_network_that_finds_nothing_looks_again_around_the_click(frame) -> None:
    maker = S2mLiteMaker(Plain(answer=-5.0), S2mLiteConfig(long_edge=96))
    labels = maker.make(frame, [clicks((100, 60, True))], current()).labels()
    assert len(maker.network.said) == 2
    assert int(labels[60, 100]) == 1
    assert 1 < int((labels == 1).sum()) < 100


def test_views_stay_in_the_frame_and_are_not_thin() -> None:
    assert View.around((0.0, 0.0, 200.0, 120.0), HW, 1.4) == View(0, 0, 200, 120)
    view = View.around((50.0, 60.0, 150.0, 61.0), HW, 1.4)
    assert view.hw == (71, 140)  # whole pixels, outwards
    assert View.around((199.0, 119.0, 200.0, 120.0), HW, 1.4) == View(167, 87, 200, 120)
    assert view.overlap(view) == 1
    assert view.overlap(View(0, 0, 10, 10)) == 0


places = st.tuples(st.integers(0, HW[1] - 1), st.integers(0, HW[0] - 1), st.booleans())


@settings(deadline=None, max_examples=12)
@given(
    st.lists(places, min_size=1, max_size=6, unique_by=lambda place: place[:2]),
    st.lists(places, max_size=3),
    st.booleans(),
    st.sampled_from((-8.0, 0.1, 8.0)),
)
def test_no_click_is_contradicted(more, others, has_mask, answer) -> None:

    done = [clicks((50.5, 50.5, True)), *(clicks(place, object_id=2) for place in others if place[2]), clicks(*more)]
    before = current({(20, 20, 90, 90): 1, (100, 20, 190, 90): 3}) if has_mask else current()
    made = S2mLiteMaker(Plain(answer), S2mLiteConfig(long_edge=64)).make(Frame(3, IMAGE), done, before)
    labels = made.labels()
    assert torch.allclose(made.probs.sum(dim=0), torch.ones(HW), atol=1e-4)
    for x, y, positive in more:
        assert (int(labels[y, x]) == 1) == positive


@pytest.mark.parametrize(
    ("done", "error", "message"),
    [
        ([clicks((200, 60, True))], InputError, "the click at 200,60 lies outside frame 3 of 200x120 pixels"),
        ([clicks((-1, 60, True))], InputError, "the click at -1,60 lies outside"),
        ([box(200, 10, 220, 20)], InputError, "the box at 200,10,220,20 lies outside"),
        ([Scribble(3, 1, torch.tensor([[-5.0, 0.0], [-9.0, 3.0]]))], InputError, "the scribble at -5,0 lies outside"),
        ([clicks((20, 60, False))], InputError, "object 1 on frame 3: there is no mask of it yet.* say also where it is"),
        ([Clicks(2, 1, torch.ones(1, 2), torch.tensor([True]))], InputError, r"interactions of frames \[2\] were given with frame 3"),
        ([Painted(3, 1, torch.ones(4, 4, dtype=torch.bool))], MaskError, "painted mask has"),
    ],
)
def test_what_cannot_be_meant_is_refused(plain, frame, done, error, message) -> None:
    with pytest.raises(error, match=message):
        plain.make(frame, done, current())


def test_masks_of_another_size_are_refused(plain, frame) -> None:
    with pytest.raises(MaskError, match="resize the masks"):
        plain.make(frame, [clicks((5, 5, True))], Masks.from_labels(torch.zeros(8, 8, dtype=torch.int32)))


def test_what_is_said_reaches_the_encoder_only_when_it_has_learnt_to() -> None:
    torch.manual_seed(0)
    network = S2mLiteNetwork().eval()
    image, said = 255 * torch.rand(2, 3, 49, 65), torch.rand(2, 4, 49, 65).round()
    seen: list[Tensor] = []
    network.encoder.blocks[-1].register_forward_hook(lambda _, __, found: seen.append(found))
    with torch.no_grad():
        assert network(image, said).shape == (2, 1, 49, 65)
        network(image, 1 - said)
        assert torch.equal(seen[0], seen[1])
        nn.init.normal_(network.enter.weight)
        network(image, said)
        assert not torch.equal(seen[0], seen[2])


def test_folding_changes_nothing_but_the_speed() -> None:
    torch.manual_seed(0)
    network = S2mLiteNetwork().eval()
    nn.init.normal_(network.enter.weight)
    image, said = 255 * torch.rand(1, 3, 49, 65), torch.rand(1, 4, 49, 65).round()
    with torch.no_grad():
        before = network(image, said)
        network.fold()
        assert torch.allclose(network(image, said), before, atol=1e-4)


def test_it_is_small_and_its_weights_survive_a_round_trip(frame, tmp_path) -> None:
    torch.manual_seed(0)
    network = S2mLiteNetwork()
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()}
    path = tmp_path / "s2m-lite.safetensors"
    write_checkpoint(path, tensors, model="s2m-lite", official=False)
    assert path.stat().st_size < 8_000_000
    maker = registry.load_mask_maker("s2m-lite", weights=path, device="cpu", long_edge=64)
    assert isinstance(maker, S2mLiteMaker)
    assert maker.make(frame, [box(20, 20, 80, 80)], current()).object_ids == (1,)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(CheckpointError):
        build(S2mLiteConfig(), Checkpoint({"a": torch.ones(1)}, "elsewhere"), "cpu")
