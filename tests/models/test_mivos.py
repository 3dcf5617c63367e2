"""MiVOS's tracker: what it keeps, what it reads, what it refuses. Its numbers are in tests/parity/test_mivos_*.py."""

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from mivos_parity import checkpoint, tracker
from torch import Tensor, nn

from rotoscope.errors import CheckpointError, InputError, MaskError, MemoryBudgetError, PropagationError
from rotoscope.memory import FrameCache
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, read_checkpoint
from rotoscope.models.mivos import MivosConfig, MivosPropagator, MivosTracker, PropagationNetwork, build
from rotoscope.models.mivos import propagator as propagator_module
from rotoscope.models.mivos.memory import ClipMemory, Remembered
from rotoscope.models.mivos.network import Picture, sum_of_others
from rotoscope.ops.affinity import KeyValue, read_memory
from rotoscope.testing import moving_shapes
from rotoscope.tracking.propagate import propagate
from rotoscope.types import Change, ChangeCarrier, Frame, Masks

HW = (30, 44)  # 2 x 3 cells, with a border


class Plain(PropagationNetwork):
    """In place of the network: cells are known by their mean colour, values are the means of masks, and it notes what it is asked."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.decoder = nn.Module()
        self.decoder.classify = nn.Conv2d(1, 1, 1)
        self.contrast = 40.0
        self.seen: list[float] = []
        self.batches: list[int] = []

    def see(self, image: Tensor) -> Picture:
        self.seen.append(round(float(image.sum()), 2))
        key = nn.functional.avg_pool2d(image, 16)[0].flatten(1).T.contiguous() * self.contrast
        grid = [side // 16 for side in image.shape[2:]]
        return Picture(key, torch.zeros(1, 1, *grid), torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 4))

    def memorise(self, image: Tensor, masks: Tensor, others: Tensor) -> list[KeyValue]:
        self.batches.append(len(masks))
        key = nn.functional.avg_pool2d(image, 16)[0].flatten(1).T.contiguous() * self.contrast
        return [KeyValue(key, nn.functional.avg_pool2d(mask[None], 16)[0].flatten()[:, None].expand(-1, 512).contiguous()) for mask in masks]

    def segment(self, picture: Picture, readouts: Tensor) -> Tensor:
        height, width = picture.entry.shape[2:]
        coarse = readouts[:, :, 0].view(len(readouts), 1, height, width)
        return nn.functional.interpolate(coarse, scale_factor=16, mode="nearest")[:, 0]


@pytest.fixture
def network() -> Plain:
    return Plain()


@pytest.fixture
def clip() -> list[Frame]:
    images, _ = moving_shapes(num_frames=14, hw=HW, num_objects=1)
    return [Frame(index, image) for index, image in enumerate(images)]


def start(network: Plain, *, max_memory_bytes: int | None = None, features: FrameCache | None = None, **config: object) -> MivosPropagator:
    return MivosTracker(network, MivosConfig(**config)).start(max_memory_bytes=max_memory_bytes, features=features)


def masks_of(*columns: tuple[int, int, int]) -> Masks:
    """Objects as (id, first column, column behind the last)."""
    labels = torch.zeros(HW, dtype=torch.int32)
    for object_id, begin, end in columns:
        labels[:, begin:end] = object_id
    return Masks.from_labels(labels, sorted({object_id for object_id, _, _ in columns}))


def entry(frame_index: int, ids: tuple[int, ...] = (1,)) -> Remembered:
    return Remembered(frame_index, ids, torch.randn(len(ids), 6, 4), torch.randn(len(ids), 6, 3))


# what is kept


def test_a_pass_keeps_given_frames_every_fifth_and_the_one_before(network, clip) -> None:
    propagator = start(network)
    kept = []
    for frame, _ in propagate(clip, propagator, {0: masks_of((1, 0, 20))}):
        kept.append(propagator.remembered_frames)
        assert frame.index in kept[-1]
    assert kept[3] == [0, 3]
    assert kept[6] == [0, 5, 6]
    assert kept[13] == [0, 5, 10, 13]


def test_the_count_starts_anew_at_each_given_frame_also_backwards(network, clip) -> None:
    propagator = start(network)
    propagator.remember(clip[1], masks_of((1, 0, 20)), given=True)
    for index in (12, 11, 10, 9, 8, 7, 6):
        propagator.remember(clip[index], masks_of((1, 0, 20)), given=index == 12)
    assert propagator.remembered_frames == [1, 12, 7, 6]


def test_given_frames_on_both_sides_of_the_pass_stay_and_serve() -> None:
    memory = ClipMemory(2)
    for index in (2, 10, 6):
        memory.add(entry(index), given=True)
    for index in (7, 8, 9):
        memory.add(entry(index), given=False)
    assert memory.frame_indices == [2, 10, 6, 8, 9]
    assert len(memory.serving(9, 1)) == 4  # frames 2, 10, 6 and 8: frame 9 is not its own reference
    assert len(memory.serving(11, 1)) == 5


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.lists(st.booleans(), min_size=1, max_size=40))
def test_memory_never_exceeds_its_schedule(every: int, given_at: list[bool]) -> None:
    memory = ClipMemory(every)
    since, longterm, num_given = 0, 0, 0
    for index, is_given in enumerate([True, *given_at[1:]]):
        memory.add(entry(index), given=is_given)
        since = 0 if is_given else since + 1
        num_given += is_given
        longterm += since > 0 and since % every == 0
        assert num_given + longterm <= len(memory) <= num_given + longterm + 1


def test_a_frame_given_again_takes_the_place_of_what_was_given_before() -> None:
    for keep_replaced, expected in ((False, [6, 2]), (True, [2, 6, 2])):
        memory = ClipMemory(5, keep_replaced=keep_replaced)
        latest = [entry(index) for index in (2, 6, 2)]
        for one in latest:
            memory.add(one, given=True)
        assert memory.frame_indices == expected
        assert memory.given_at(2) is latest[2]
    assert memory.given_at(3) is None


def test_a_predicted_frame_that_is_corrected_is_remembered_once() -> None:
    memory = ClipMemory(5)
    for index, is_given in ((0, True), (1, False), (1, True)):
        memory.add(entry(index), given=is_given)
    assert memory.frame_indices == [0, 1]


def test_a_budget_drops_predicted_frames_but_never_given_ones(network, clip) -> None:
    one_frame = 6 * (3 + 512) * 4
    propagator = start(network, max_memory_bytes=3 * one_frame, memory_every=1)
    for frame, _ in propagate(clip, propagator, {0: masks_of((1, 0, 20)), 4: masks_of((1, 0, 20))}):
        assert propagator._memory.used_bytes <= 3 * one_frame
        assert frame.index in propagator.remembered_frames
    assert propagator.remembered_frames == [0, 4, 13]
    with pytest.raises(MemoryBudgetError, match="raise the budget"):
        list(propagate(clip, start(network, max_memory_bytes=one_frame), {0: masks_of((1, 0, 20)), 1: masks_of((1, 0, 20))}))


def test_memory_stays_bounded_over_four_hundred_frames(network) -> None:
    one_frame = 6 * (3 + 512) * 4
    propagator = start(network, max_memory_bytes=20 * one_frame)
    image, masks = torch.zeros(3, *HW, dtype=torch.uint8), masks_of((1, 0, 20))
    for index in range(400):
        propagator.remember(Frame(index, image), masks, given=index == 0)
    assert propagator._memory.used_bytes == 20 * one_frame
    assert propagator.remembered_frames[0] == 0


# what is computed, and how often


def test_each_frame_is_seen_once_and_shared_by_all_objects(network, clip) -> None:
    list(propagate(clip[:6], start(network), {0: masks_of((1, 0, 10), (2, 10, 20), (3, 20, 30))}))
    assert len(network.seen) == 5  # the given frame is only memorised
    assert network.batches == [3] * 6


def test_objects_share_a_pass_as_far_as_memory_goes(network, clip) -> None:
    given = {0: masks_of((1, 0, 10), (2, 10, 20), (3, 20, 30))}
    apart = list(propagate(clip[:3], start(network, pixels_at_once=1), given))
    assert network.batches == [1] * 9
    together = list(propagate(clip[:3], start(network), given))
    assert all(torch.equal(a.probs, b.probs) for (_, a), (_, b) in zip(apart, together, strict=True))


def test_a_second_round_sees_no_frame_that_is_in_the_cache(network, clip) -> None:
    propagator = start(network, features=FrameCache(max_bytes=2**24))
    given = {0: masks_of((1, 0, 20))}
    first = list(propagate(clip, propagator, given))
    seen = len(network.seen)
    propagator.restore(start(network).state())
    second = list(propagate(clip, propagator, given))
    assert len(network.seen) == seen
    assert all(torch.equal(a.probs, b.probs) for (_, a), (_, b) in zip(first, second, strict=True))


def test_another_picture_under_the_same_number_is_seen_afresh(network, clip) -> None:
    propagator = start(network, features=FrameCache(max_bytes=2**24))
    list(propagate(clip[:2], propagator, {0: masks_of((1, 0, 20))}))
    before = propagator.predict(clip[1])
    other = propagator.predict(Frame(1, 255 - clip[1].image))
    assert not torch.equal(before.probs, other.probs)
    assert torch.equal(propagator.predict(clip[1]).probs, before.probs)


def test_permuted_objects_give_permuted_masks(network, clip) -> None:
    straight, other = masks_of((1, 0, 20), (2, 20, 30)), masks_of((1, 0, 20), (2, 20, 30)).select([2, 1])
    one, two = (list(propagate(clip[:4], start(network), {0: first}))[-1][1] for first in (straight, other))
    assert two.object_ids == (2, 1)
    assert torch.allclose(two.select([1, 2]).probs, one.probs, atol=1e-6)


def test_the_kernel_and_the_number_of_cells_that_count_are_settings(network, clip) -> None:
    network.contrast = 2.0
    masks = [
        list(propagate(clip[:4], start(network, **config), {0: masks_of((1, 0, 20))}))[-1][1] for config in ({}, {"top_k": 1}, {"kernel_sigma": 0.3})
    ]
    assert not torch.equal(masks[0].probs, masks[1].probs)
    assert not torch.equal(masks[0].probs, masks[2].probs)


def test_a_clip_without_objects_is_all_background(network, clip) -> None:
    nothing = Masks(torch.ones(1, *HW), ())
    results = [masks for _, masks in propagate(clip[:3], start(network), {0: nothing})]
    assert all(masks.object_ids == () and bool((masks.probs == 1).all()) for masks in results)


def test_others_are_the_sum_of_the_rest() -> None:
    masks = torch.rand(3, 4, 5)
    assert torch.allclose(sum_of_others(masks)[1], masks[0] + masks[2])
    assert float(sum_of_others(masks[:1]).abs().max()) == 0


# changes


def test_a_change_stays_where_it_was_in_the_same_picture(network, clip) -> None:
    image = torch.zeros(3, *HW, dtype=torch.uint8)
    image[:, :, 18:] = 200  # two kinds of cells, told apart by their colour
    propagator = start(network)
    assert isinstance(propagator, ChangeCarrier)
    propagator.remember(Frame(3, image), masks_of((5, 0, 18)), given=True)
    change = Change.between(3, None, masks_of((5, 0, 18)))
    carried = propagator.carry(change, Frame(4, image))
    assert carried.shape == (1, 2, *HW)
    assert float(carried[0, 0, :, :8].min()) > 0.5
    assert float(carried[0, 0, :, 36:].max()) < 0.2
    assert float(carried[0, 1].max()) == 0
    with pytest.raises(InputError, match="frame 4 is not remembered with a given mask"):
        propagator.carry(Change.between(4, None, masks_of((5, 0, 18))), Frame(3, image))
    unknown = propagator.carry(Change.between(3, None, masks_of((9, 0, 18))), Frame(4, image))
    assert float(unknown.abs().max()) == 0


# state


def test_a_pass_goes_on_from_its_state_with_given_frames_ahead(network, clip) -> None:
    propagator = start(network)
    propagator.remember(clip[13], masks_of((1, 10, 20)), given=True)
    whole = list(propagate(clip[:9], propagator, {0: masks_of((1, 0, 20))}))
    before = start(network)
    before.remember(clip[13], masks_of((1, 10, 20)), given=True)
    list(propagate(clip[:7], before, {0: masks_of((1, 0, 20))}))
    after = start(network)
    after.restore(before.state())
    assert after.object_ids == (1,)
    rest = list(propagate(clip[7:9], after, {}, resumed=True))
    assert all(torch.equal(a.probs, b.probs) for (_, a), (_, b) in zip(whole[7:], rest, strict=True))


@pytest.mark.parametrize("lost", ["origin", "hw", "object_ids", "frames.0.keys", "frames.0.about"])
def test_a_state_that_is_not_whole_is_refused(network, clip, lost: str) -> None:
    propagator = start(network)
    propagator.remember(clip[0], masks_of((1, 0, 20)), given=True)
    state = propagator.state()
    del state[lost]
    with pytest.raises(InputError, match="not the state of"):
        start(network).restore(state)


def test_an_empty_state_empties_a_pass(network, clip) -> None:
    propagator = start(network)
    propagator.remember(clip[0], masks_of((1, 0, 20)), given=True)
    propagator.restore(start(network).state())
    with pytest.raises(PropagationError, match="remember one"):
        propagator.predict(clip[1])


# what is refused


def test_frames_and_masks_of_other_sizes_are_refused(network, clip) -> None:
    propagator = start(network)
    with pytest.raises(MaskError, match="resize the masks"):
        propagator.remember(clip[0], Masks.from_labels(torch.ones(8, 8, dtype=torch.int32)), given=True)
    propagator.remember(clip[0], masks_of((1, 0, 20)), given=True)
    small = Frame(1, torch.zeros(3, 16, 16, dtype=torch.uint8))
    for refused in (lambda: propagator.predict(small), lambda: propagator.remember(small, masks_of((1, 0, 20)), given=False)):
        with pytest.raises(InputError, match="frame 1 is 16x16 but the clip started with 44x30"):
            refused()


def test_with_the_border_masks_may_have_the_size_of_the_canvas_or_of_the_frame(network, clip) -> None:
    propagator = start(network, border=True)
    propagator.remember(clip[0], masks_of((1, 0, 20)), given=True)
    whole = propagator.predict(clip[1])
    assert whole.hw == (32, 48)
    propagator.remember(clip[1], whole.select([1]), given=False)
    assert propagator.carry(Change.between(0, None, whole), clip[1]).shape == (1, 2, 32, 48)


@pytest.mark.parametrize("setting", ["top_k", "memory_every", "pixels_at_once"])
def test_settings_that_mean_nothing_are_refused(setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting} 0 is not possible"):
        MivosConfig(**{setting: 0})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("decoder.pred.bias"), "lacks decoder.classify.bias"),
        (lambda w: w.update({"rgb_encoder.fc.weight": torch.ones(1)}), "rgb_encoder.fc.weight, which the model does not know"),
        (
            lambda w: w.update({"mask_rgb_encoder.conv1.weight": torch.ones(64, 4, 7, 7)}),
            r"memory_encoder.stem.conv.weight \[64, 4, 7, 7\] instead of",
        ),
        (lambda w: w.update({"decoder.pred.bias": torch.tensor([float("nan")])}), "not finite in decoder.classify.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, named: str) -> None:
    changed = dict(checkpoint("propagation").tensors)
    change(changed)
    with pytest.raises(CheckpointError, match=named):
        build(MivosConfig(), Checkpoint(changed, "synthetic"), "cpu")


def test_the_registry_builds_it_with_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "propagation_model.pth"
    torch.save(checkpoint("propagation").tensors, path)
    assert registry.spec_of("mivos").official_files == (path.name,)
    built = registry.build(registry.spec_of("mivos"), read_checkpoint(path), device="cpu", settings={"top_k": 20})
    assert built.config == replace(MivosConfig(), top_k=20)


def test_the_real_network_needs_no_border_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last prediction is remembered with what lies in its border; other masks of the same frame are not."""
    frame, following = (Frame(index, torch.full((3, 20, 20), 90, dtype=torch.uint8)) for index in range(2))
    labels = torch.zeros(20, 20, dtype=torch.int32)
    labels[4:12, 4:12] = 1
    given_masks, kept = [], []
    plain = propagator_module.sum_of_others
    monkeypatch.setattr(propagator_module, "sum_of_others", lambda masks: (given_masks.append(masks.clone()), plain(masks))[1])
    for change in (lambda masks: masks, lambda masks: masks.select(masks.object_ids)):
        propagator = tracker().start()
        propagator.remember(frame, Masks.from_labels(labels), given=True)
        propagator.remember(following, change(propagator.predict(following)), given=False)
        kept.append(given_masks[-1])
    assert float(kept[0][0, :6].sum()) > 0
    assert float(kept[1][0, :6].sum()) == 0
    assert torch.equal(kept[0][0, 6:26, 6:26], kept[1][0, 6:26, 6:26])


def test_gradients_reach_every_part_of_the_network() -> None:
    """As in training: one frame into memory, the next one read from it, with all cells having a say."""
    network = PropagationNetwork().eval()
    first, second = torch.randn(2, 1, 3, 32, 32)
    memory = network.memorise(first, torch.rand(2, 32, 32), torch.rand(2, 32, 32))
    picture = network.see(second)
    readouts = torch.stack([read_memory(picture.key, [part], top_k=None) for part in memory])
    network.segment(picture, readouts).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    assert float(network.memory_encoder.stem.norm.weight.grad.abs().sum()) > 0
