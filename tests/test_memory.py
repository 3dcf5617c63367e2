import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.errors import InputError, MemoryBudgetError
from rotoscope.memory import FrameCache, FrameMemory, MemorySchedule

MAST = MemorySchedule(anchors=(0, 5), recent=(1, 3, 5))
MIVOS = MemorySchedule(anchors=(0,), recent=(1,), every=5)


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
    cache: FrameCache[int] = FrameCache(2)
    computed = []

    def feature(index: int) -> int:
        return cache.get(index, lambda: computed.append(index) or index * 10)

    assert [feature(1), feature(2), feature(1), feature(3), feature(2)] == [10, 20, 10, 30, 20]
    assert computed == [1, 2, 3, 2]
    assert cache.hits == 1
    assert len(cache) == 2
