import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.errors import InputError, MemoryBudgetError, PropagationError
from rotoscope.memory import FrameCache, FrameMemory, MaskMemory, MemorySchedule
from rotoscope.types import Frame, Masks

MAST = MemorySchedule(anchors=(0, 5), recent=(1, 3, 5))
MIVOS = MemorySchedule(anchors=(0,), recent=(1,), every=5)
PIXELS = torch.zeros(3, 4, 6, dtype=torch.uint8)


def steps_after(schedule: MemorySchedule, steps: int, *, given: frozenset[int] = frozenset(), max_bytes: int | None = None) -> FrameMemory[str]:
    memory: FrameMemory[str] = FrameMemory(schedule, lambda entry: 10, max_bytes=max_bytes)
    for step in range(steps):
        memory.add(step, str(step), given=step in given or step == 0)
    return memory


@pytest.mark.parametrize(
    ("target", "expected"),
    [(1, [0]), (2, [0, 1]), (4, [0, 1, 3]), (6, [0, 1, 3, 5]), (7, [0, 2, 4, 5, 6]), (10, [0, 5, 7, 9]), (30, [0, 5, 25, 27, 29])],
)
def test_the_references_are_those_of_the_schedule(target: int, expected: list[int]) -> None:
    assert [step for step, _ in steps_after(MAST, target).references(target)] == expected


@given(st.integers(1, 200), st.frozensets(st.integers(0, 199), max_size=5))
@settings(deadline=None, max_examples=40)
def test_the_memory_never_holds_more_than_the_schedule_and_the_given_frames(steps: int, given_steps: frozenset[int]) -> None:
    memory = steps_after(MAST, steps, given=given_steps)
    kept = {step for step, _, _ in memory}
    assert kept <= {0, 5, *range(steps - 5, steps), *given_steps}
    assert {step for step in given_steps if step < steps} <= kept


def test_given_frames_serve_for_ever() -> None:
    references = [step for step, _ in steps_after(MAST, 500, given=frozenset({17, 230})).references(500)]
    assert references == [0, 5, 17, 230, 495, 497, 499]


def test_over_the_budget_old_long_term_frames_go_first() -> None:
    memory = steps_after(MIVOS, 41, max_bytes=50)
    assert [step for step, _, _ in memory] == [0, 25, 30, 35, 40]
    assert memory.used_bytes <= 50


@given(st.integers(30, 90), st.integers(2, 60), st.frozensets(st.integers(0, 59), max_size=2))
@settings(deadline=None, max_examples=40)
def test_the_budget_holds_at_all_times_and_given_frames_stay(max_bytes: int, steps: int, given_steps: frozenset[int]) -> None:
    memory: FrameMemory[str] = FrameMemory(MIVOS, lambda entry: 10, max_bytes=max_bytes)
    must_stay = {0} | {step for step in given_steps if step < steps}
    try:
        for step in range(steps):
            memory.add(step, "", given=step in must_stay)
            assert memory.used_bytes <= max_bytes
    except MemoryBudgetError:
        assert 10 * (len(must_stay) + 1) > max_bytes
        return
    assert must_stay <= {step for step, _, _ in memory}


def test_a_budget_that_the_given_frames_alone_exceed_is_an_error_that_says_how_much_is_needed() -> None:
    memory: FrameMemory[str] = FrameMemory(MAST, lambda entry: 2**20, max_bytes=2**21)
    memory.add(0, "", given=True)
    memory.add(1, "", given=True)
    with pytest.raises(MemoryBudgetError, match=r"need 3\.0 MB, but the budget is 2\.0 MB"):
        memory.add(2, "", given=True)


def test_a_cleared_memory_is_empty() -> None:
    memory = steps_after(MAST, 9)
    memory.clear()
    assert len(memory) == 0
    assert memory.references(3) == []


@pytest.mark.parametrize("make", [lambda: MemorySchedule(recent=(0,)), lambda: MemorySchedule(every=0), lambda: FrameCache(0)])
def test_schedules_and_caches_that_hold_nothing_are_refused(make) -> None:
    with pytest.raises(InputError):
        make()


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="holds nothing"):
        FrameMemory(MAST, len, max_bytes=0)


def test_the_cache_computes_a_frame_once_and_forgets_the_least_recently_used() -> None:
    cache = FrameCache(2)
    computed = []

    def feature(index: int) -> int:
        return cache.get(Frame(index, PIXELS), lambda: computed.append(index) or index * 10)

    assert [feature(1), feature(2), feature(1), feature(3), feature(2)] == [10, 20, 10, 30, 20]
    assert computed == [1, 2, 3, 2]
    assert cache.hits == 1
    assert len(cache) == 2


def test_a_cache_keeps_the_first_frames_as_far_as_its_budget_reaches_and_the_newest() -> None:
    cache = FrameCache(1, max_bytes=2 * (PIXELS.nbytes + 400))
    computed = []

    def feature(index: int) -> tuple[torch.Tensor, int]:
        return cache.get(Frame(index, PIXELS), lambda: computed.append(index) or (torch.full((100,), float(index)), index))

    walk = [0, 1, 2, 3, 3]
    assert [feature(index)[1] for index in (*walk, *walk)] == [*walk, *walk]
    assert computed == [0, 1, 2, 3, 2, 3]
    assert len(cache) == 3


def test_a_frame_with_other_pixels_is_computed_anew_and_takes_the_place_of_the_old() -> None:
    cache = FrameCache(1, max_bytes=2**20)
    other = PIXELS + 1
    for image in (PIXELS, PIXELS.clone(), other, other):
        cache.get(Frame(0, image), lambda: float(image.sum()))  # noqa: B023 - called at once
    assert cache.hits == 2
    assert cache.get(Frame(0, other), lambda: 0.0) == float(other.sum())
    assert len(cache) == 1


def test_frames_that_a_clip_lacks_are_not_counted_as_recent_ones() -> None:
    memory: FrameMemory[str] = FrameMemory(MAST, lambda entry: 10)
    for step in (0, 10, 20, 30, 40, 50, 60):
        memory.add(step, str(step), given=step == 0)
    assert [step for step, _ in memory.references(70)] == [0, 20, 40, 60]


def test_objects_join_a_mask_memory_and_are_read_in_every_frame() -> None:
    memory = MaskMemory(MemorySchedule(anchors=(), recent=(1, 2)))
    assert memory.object_ids == ()
    first, second = (Masks.from_labels(torch.tensor([[object_id, 0]], dtype=torch.int32)) for object_id in (4, 9))
    memory.add(7, torch.zeros(2, 1, 2), memory.with_all_objects(first), given=True)
    memory.add(6, torch.ones(2, 1, 2), memory.with_all_objects(second), given=False)
    read = memory.references(5)
    assert memory.object_ids == (4, 9)
    assert [(one.gap, one.masks.object_ids, one.masks.labels().tolist()) for one in read] == [(2, (4, 9), [[4, 0]]), (1, (4, 9), [[9, 0]])]


def test_a_mask_memory_survives_the_way_through_its_state() -> None:
    memory, other = MaskMemory(MAST), MaskMemory(MAST)
    masks = Masks.from_labels(torch.tensor([[3, 0]], dtype=torch.int32))
    memory.add(0, torch.rand(2, 1, 2), masks, given=True)
    other.restore(memory.state(), torch.device("cpu"))
    assert torch.equal(other.references(1)[0].features, memory.references(1)[0].features)
    damaged = {**memory.state(), "frames.0.object_ids": torch.tensor([3, 4])}
    with pytest.raises(InputError, match="not the state"):
        other.restore(damaged, torch.device("cpu"))
    assert other.object_ids == (3,)


def test_a_mask_memory_with_nothing_in_it_cannot_be_read() -> None:
    with pytest.raises(PropagationError, match="frame 4 cannot be predicted"):
        MaskMemory(MAST).references(4)


def test_a_dropped_step_is_gone_even_if_it_was_given() -> None:
    memory: FrameMemory[str] = FrameMemory(MemorySchedule(), len)
    memory.add(0, "first", given=True)
    memory.add(1, "second", given=True)
    memory.drop(0)
    memory.drop(7)
    assert [entry for _, entry, _ in memory] == ["second"]
