from itertools import permutations
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from davis_roots import HW, SQUARE, given_frames, labels_of, write_labels, write_root
from hypothesis import given, settings

from rotoscope.datasets.davis import VOID, read_davis
from rotoscope.errors import InputError
from rotoscope.evaluation import davis_unsupervised
from rotoscope.evaluation.davis import ClipScores, find_predictions, mean_scores, score_clips
from rotoscope.evaluation.davis_unsupervised import MOST_PROPOSALS, as_dict, find_proposals, score_label_maps, score_proposals
from rotoscope.evaluation.measures import Summary, boundary_f, jaccard

SECOND = (slice(7, 9), slice(8, 11))


def scored(given: list[np.ndarray], predicted: list[np.ndarray]) -> ClipScores:
    return score_label_maps("clip", [f"{index:05d}" for index in range(len(given))], given, predicted)


def renamed(frames: list[np.ndarray], **names: int) -> list[np.ndarray]:
    """Label maps with `old` ids of the form `id_3=7` given new names."""
    new = {int(old.removeprefix("id_")): name for old, name in names.items()}
    return [np.select([frame == old for old in new], list(new.values()), 0).astype(np.uint8) for frame in frames]


def test_the_right_objects_by_other_names_score_1() -> None:
    clip = scored(given_frames(), renamed(given_frames(), id_1=40, id_2=3))
    assert [(one.object_id, one.proposal_id) for one in clip.objects] == [(1, 40), (2, 3)]
    assert mean_scores(clip.objects).j_and_f == 1
    assert clip.notes == ()


def test_all_frames_count_the_first_and_the_last_too() -> None:
    empty = np.zeros(HW, dtype=np.uint8)
    predicted = [empty, *given_frames()[1:-1], empty]
    first, second = scored(given_frames(), predicted).objects
    assert first.j.per_frame == (0, 1, 1, 1, 0)
    assert first.j.summary == Summary(pytest.approx(0.6), pytest.approx(0.6), 0)
    assert second.j.per_frame == (0, 1, 1, 1, 1)  # it is gone in the last two frames


def test_the_sum_over_all_objects_decides_and_not_the_best_pair() -> None:
    left, right = (slice(0, 8), slice(0, 6)), (slice(0, 8), slice(6, 12))
    given = [labels_of((1, left), (2, right))] * 5
    predicted = [labels_of((5, left))] * 3 + [labels_of((6, left), (5, right))] * 2
    qualities = [quality(predicted, given, proposal, one) for one, proposal in ((1, 5), (1, 6), (2, 5), (2, 6))]
    assert qualities == pytest.approx([0.6, 0.4, 0.4, 0], abs=0.2)
    assert qualities[0] == max(qualities)
    assert [(one.object_id, one.proposal_id) for one in scored(given, predicted).objects] == [(1, 6), (2, 5)]


def quality(predicted: list[np.ndarray], given: list[np.ndarray], proposal: int, object_id: int) -> float:
    pairs = [(maps == proposal, truth == object_id) for maps, truth in zip(predicted, given, strict=True)]
    return float(np.mean([(jaccard(*pair) + boundary_f(*pair)) / 2 for pair in pairs]))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999), num_objects=st.integers(1, 3), num_proposals=st.integers(0, 4))
def test_no_other_matching_of_the_clip_scores_more(seed: int, num_objects: int, num_proposals: int) -> None:
    random = np.random.default_rng(seed)

    def drawn(count: int) -> np.ndarray:
        boxes = [(object_id, *random.integers(0, 30, 2), *random.integers(1, 14, 2)) for object_id in range(1, count + 1)]
        return labels_of(*((i, (slice(y, y + height), slice(x, x + width))) for i, y, x, height, width in boxes), hw=(40, 40))

    given_maps, predicted = [drawn(num_objects) for _ in range(3)], [drawn(num_proposals) for _ in range(3)]
    object_ids = [value for value in np.unique(given_maps[0]).tolist() if value]
    proposals = sorted({value for maps in predicted for value in np.unique(maps).tolist()} - {0})
    columns = proposals + [-1] * max(len(object_ids) - len(proposals), 0)
    table = {(one, column): quality(predicted, given_maps, column, one) for one in object_ids for column in columns}
    best = max(sum(table[one, column] for one, column in zip(object_ids, order, strict=True)) for order in permutations(columns, len(object_ids)))
    clip = scored(given_maps, predicted)
    assert sum(one.j_and_f for one in clip.objects) == pytest.approx(best)
    assert all(one.j_and_f == pytest.approx(table[one.object_id, one.proposal_id or -1]) for one in clip.objects)


def test_proposals_that_are_left_over_cost_nothing() -> None:
    predicted = [frame.copy() for frame in given_frames()]
    for frame in predicted:
        frame[0, :9], frame[9, :5] = 7, 8
    assert mean_scores(scored(given_frames(), predicted).objects).j_and_f == 1


def test_an_object_without_a_proposal_is_compared_with_nothing() -> None:
    first, second = scored(given_frames(), renamed(given_frames(), id_1=1)).objects
    assert (first.proposal_id, first.j_and_f) == (1, 1)
    assert second.proposal_id is None
    assert second.j.per_frame == second.f.per_frame == (0, 0, 0, 1, 1)  # as officially: it is gone in the last two frames


def test_no_proposals_at_all_score_0_where_objects_are_seen() -> None:
    clip = scored(given_frames()[:3], [np.zeros(HW, dtype=np.uint8)] * 3)
    assert [one.j_and_f for one in clip.objects] == [0, 0]
    assert [one.proposal_id for one in clip.objects] == [None, None]


def test_20_proposals_are_allowed_and_21_are_not() -> None:
    def with_proposals(count: int) -> list[np.ndarray]:
        frames = [frame.copy() for frame in given_frames()]
        frames[1][0, :] = np.arange(11, 23)
        frames[2][9, : count - 14] = np.arange(30, 16 + count)  # beside objects 1 and 2
        return frames

    assert mean_scores(scored(given_frames(), with_proposals(MOST_PROPOSALS)).objects).j_and_f == 1
    with pytest.raises(InputError, match="clip 'clip' has 21 proposals; at most 20 are allowed"):
        scored(given_frames(), with_proposals(MOST_PROPOSALS + 1))


def test_void_is_left_out_and_an_id_of_255_alone_is_a_proposal() -> None:
    given_maps = [labels_of((1, SQUARE), (VOID, (slice(6, 8), slice(2, 6))))] * 3
    taller = [labels_of((1, (slice(2, 8), slice(2, 6))))] * 3
    assert scored(given_maps, taller).objects[0].j.summary.mean == 1
    one = scored(given_maps, renamed(taller, id_1=VOID)).objects[0]
    assert (one.proposal_id, one.j.summary.mean) == (VOID, 1)
    beside = [np.where(maps == 0, VOID, maps).astype(np.uint8) for maps in taller]
    assert scored(given_maps, beside).objects[0].proposal_id == 1


def test_objects_that_join_later_are_noted_and_not_scored() -> None:
    given_maps = [frame.copy() for frame in given_frames()]
    given_maps[3][0, 0] = 9
    clip = scored(given_maps, given_frames())
    assert [one.object_id for one in clip.objects] == [1, 2]
    assert clip.notes == ("clip 'clip': annotated ids [9] are not in the first frame; they are not scored",)


@settings(deadline=None, max_examples=150)
@given(st.tuples(*[st.integers(0, 60)] * 4), st.tuples(*[st.integers(0, 60)] * 4))
def test_pairs_far_apart_are_what_the_pixels_say(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    masks = [np.zeros((90, 90), dtype=bool) for _ in range(2)]
    for mask, (x, y, width, height) in zip(masks, (first, second), strict=True):
        mask[y : y + height, x : x + width // 4] = True
    assert davis_unsupervised._j_and_f(*masks) == pytest.approx((jaccard(*masks), boundary_f(*masks)))


def test_a_full_frame_and_an_empty_one_have_no_boundary_to_miss() -> None:
    full, empty = np.ones((20, 20), dtype=bool), np.zeros((20, 20), dtype=bool)
    assert davis_unsupervised._j_and_f(full, empty) == (0, 1)


@pytest.mark.parametrize(
    ("given_maps", "predicted", "said"),
    [
        (given_frames(), given_frames()[:4], "5 frames, 5 annotations and 4 predictions"),
        (given_frames(), [np.zeros((9, 12), dtype=np.uint8)] * 5, "the prediction of frame 00000 is 12x9 but its annotation is 12x10"),
        ([np.zeros(HW, dtype=np.uint8), *given_frames()[1:]], given_frames(), "the first annotation holds no object"),
    ],
)
def test_maps_that_do_not_fit_are_refused(given_maps: list[np.ndarray], predicted: list[np.ndarray], said: str) -> None:
    with pytest.raises(InputError, match=said):
        scored(given_maps, predicted)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "davis", {"cat": given_frames(), "dog": given_frames()})


@pytest.mark.parametrize("workers", [1, 2])
def test_folders_are_scored_in_one_process_or_more(tmp_path: Path, root: Path, workers: int) -> None:
    write_labels(tmp_path / "out" / "cat", renamed(given_frames(), id_1=9, id_2=4))
    write_labels(tmp_path / "out" / "dog", renamed(given_frames(), id_2=6))
    clips = list(score_proposals(find_proposals(read_davis(root), tmp_path / "out"), workers=workers))
    assert [clip.name for clip in clips] == ["cat", "dog"]
    said = as_dict(clips)
    assert said["clips"]["cat"]["j_and_f"] == 1
    assert {name: one["proposal"] for name, one in said["clips"]["cat"]["objects"].items()} == {"1": 9, "2": 4}
    assert {name: one["proposal"] for name, one in said["clips"]["dog"]["objects"].items()} == {"1": None, "2": 6}


def test_the_semi_supervised_score_keeps_its_ways(tmp_path: Path, root: Path) -> None:
    write_labels(tmp_path / "out" / "cat", given_frames())
    clip = next(score_clips(find_predictions(read_davis(root, clips=["cat"]), tmp_path / "out")))
    assert [one.proposal_id for one in clip.objects] == [None, None]


def test_a_merged_object_has_the_best_of_the_proposals(tmp_path: Path) -> None:
    masks = [(frame == 1).astype(np.uint8) * 255 for frame in given_frames()]
    root = write_root(tmp_path / "davis16", {"cat": masks}, indexed=False)
    write_labels(tmp_path / "out" / "cat", renamed(given_frames(), id_1=5, id_2=6))
    clip = next(score_proposals(find_proposals(read_davis(root), tmp_path / "out")))
    assert [(one.object_id, one.proposal_id, one.j_and_f) for one in clip.objects] == [(1, 5, 1)]


@pytest.mark.parametrize("missing", ["00000", "00004", "00002"])
def test_every_frame_needs_a_prediction(tmp_path: Path, root: Path, missing: str) -> None:
    for name in ("cat", "dog"):
        write_labels(tmp_path / "out" / name, given_frames())
    (tmp_path / "out" / "dog" / f"{missing}.png").unlink()
    with pytest.raises(InputError, match=rf"clip 'dog': .*{missing}"):
        find_proposals(read_davis(root), tmp_path / "out")
