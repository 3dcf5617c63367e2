from functools import partial

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from rotoscope.ops import boxes as box_ops
from rotoscope.ops.boxes import (
    Kept,
    area,
    centres_of,
    classic_nms,
    corners_of,
    covered,
    crop_masks,
    cross_class_fast_nms,
    decode,
    encode,
    fast_nms,
    intersection,
    iou,
)

SEEDS = st.integers(0, 9999)
some = partial(settings, deadline=None, max_examples=40)


def boxes_of(count: int, seed: int, *, side: int = 12) -> Tensor:
    """Corners on a coarse grid, so that equal and touching boxes occur; some have no area."""
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(0, side, (count, 2, 2), generator=random).sort(dim=1).values
    return ends.flatten(1).float()


def scores_of(classes: int, count: int, seed: int, *, levels: int = 7) -> Tensor:
    """In few steps, so that ties occur."""
    return torch.randint(0, levels, (classes, count), generator=torch.Generator().manual_seed(seed)).float() / levels


def counted_overlap(one: list[float], other: list[float], *, extra: int = 0) -> tuple[float, float]:
    """Intersection and union of two boxes, written out."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]) + extra)
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]) + extra)
    areas = [(box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (one, other)]
    return width * height, sum(areas) - width * height


def one_by_one(boxes: Tensor, scores: Tensor, *, greedy: bool, threshold: float, top_k: int, least: float = -1.0) -> list[tuple[int, int]]:
    """Suppression in plain loops: `(class, box)`, best first."""
    kept = []
    for class_id, row in enumerate(scores.tolist()):
        order = sorted((index for index in range(len(row)) if row[index] > least), key=lambda index, row=row: (-row[index], index))[:top_k]
        staying: list[int] = []
        for place, index in enumerate(order):
            rivals = staying if greedy else order[:place]
            overlaps = [counted_overlap(boxes[rival].tolist(), boxes[index].tolist(), extra=int(greedy)) for rival in rivals]
            shares = [shared / union if union else 0.0 for shared, union in overlaps]
            if not any(share >= threshold if greedy else share > threshold for share in shares):
                staying.append(index)
        kept += [(-row[index], class_id, index) for index in staying]
    return [(class_id, index) for _, class_id, index in sorted(kept)]


def pairs(kept: Kept) -> list[tuple[int, int]]:
    return list(zip(kept.class_ids.tolist(), kept.indices.tolist(), strict=True))


@some()
@given(count=st.integers(0, 12), seed=SEEDS)
def test_centres_and_corners_are_inverse(count: int, seed: int) -> None:
    boxes = boxes_of(count, seed)
    assert torch.equal(corners_of(centres_of(boxes)), boxes)


@some()
@given(count=st.integers(0, 12), seed=SEEDS)
def test_decoding_undoes_encoding(count: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    priors = torch.rand(count, 4, generator=random) + 0.05
    boxes = corners_of(torch.rand(count, 4, generator=random) + 0.05)
    assert torch.allclose(decode(encode(boxes, priors), priors), boxes, atol=1e-5)
    offsets = torch.randn(count, 4, generator=random)
    assert torch.allclose(encode(decode(offsets, priors), priors), offsets, atol=1e-3)


def test_no_offset_leads_to_the_prior_itself_and_the_variances_scale_the_steps() -> None:
    prior = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    assert torch.allclose(decode(torch.zeros(1, 4), prior), corners_of(prior))
    moved = centres_of(decode(torch.tensor([[1.0, -1.0, 1.0, -1.0]]), prior))
    e = float(torch.tensor(0.2).exp())
    assert torch.allclose(moved, torch.tensor([[0.5 + 0.1 * 0.2, 0.4 - 0.1 * 0.1, 0.2 * e, 0.1 / e]]))


@some()
@given(first=st.integers(0, 7), second=st.integers(0, 7), seed=SEEDS, pixels=st.booleans())
def test_overlaps_are_those_counted_one_by_one(first: int, second: int, seed: int, pixels: bool) -> None:
    a, b = boxes_of(first, seed), boxes_of(second, seed + 1)
    shared, overlap = intersection(a, b, corner_pixels=pixels), iou(a, b, corner_pixels=pixels)
    assert shared.shape == overlap.shape == (first, second)
    for i in range(first):
        for j in range(second):
            inside, union = counted_overlap(a[i].tolist(), b[j].tolist(), extra=int(pixels))
            assert float(shared[i, j]) == inside
            assert float(overlap[i, j]) == pytest.approx(inside / union if union else 0.0)


@some()
@given(count=st.integers(0, 9), seed=SEEDS)
def test_overlap_is_symmetric_and_one_with_itself(count: int, seed: int) -> None:
    boxes = boxes_of(count, seed)
    overlap = iou(boxes, boxes)
    assert torch.equal(overlap, overlap.T)
    assert torch.equal(overlap.diagonal(), (area(boxes) > 0).float())
    assert bool(((overlap >= 0) & (overlap <= 1)).all())


def test_the_covered_share_is_of_the_first_boxes() -> None:
    small, large = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 9.0, 8.0], [0.0, 0.0, 9.0, 9.0]])
    assert covered(small, large).tolist() == [[0.5, 1.0]]
    assert covered(large, small)[1].tolist() == pytest.approx([4 / 81])
    assert covered(torch.zeros(1, 4), large).tolist() == [[0.0, 0.0]]


@some()
@given(count=st.integers(0, 14), classes=st.integers(1, 4), seed=SEEDS, threshold=st.sampled_from([0.0, 0.2, 0.5]), top_k=st.integers(1, 16))
def test_fast_suppression_is_the_loop_over_all_better_boxes(count: int, classes: int, seed: int, threshold: float, top_k: int) -> None:
    boxes, scores = boxes_of(count, seed), scores_of(classes, count, seed)
    kept = fast_nms(boxes, scores, overlap_threshold=threshold, top_k=top_k, most=1000)
    assert pairs(kept) == one_by_one(boxes, scores, greedy=False, threshold=threshold, top_k=top_k)


@some()
@given(count=st.integers(0, 40), classes=st.integers(1, 4), seed=SEEDS, depth=st.integers(1, 3), most=st.integers(1, 12), top_k=st.integers(1, 50))
def test_looking_at_the_best_first_changes_nothing(count: int, classes: int, seed: int, depth: int, most: int, top_k: int) -> None:
    boxes, scores = boxes_of(count, seed), scores_of(classes, count, seed, levels=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box_ops, "_FIRST_DEPTH", depth)
        kept = fast_nms(boxes, scores, overlap_threshold=0.2, top_k=top_k, most=most)
    assert pairs(kept) == one_by_one(boxes, scores, greedy=False, threshold=0.2, top_k=top_k)[:most]


def test_classes_that_cannot_win_any_more_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = torch.arange(300.0)[:, None] * 2 + torch.tensor([0.0, 0.0, 1.0, 1.0])
    scores = torch.linspace(1, 0.9, 300).expand(4, -1) * torch.tensor([[1.0], [0.5], [0.4], [0.3]])
    looks = []
    choose = box_ops._best_per_class
    monkeypatch.setattr(box_ops, "_best_per_class", lambda scores, k: looks.append((len(scores), k)) or choose(scores, k))
    assert pairs(fast_nms(boxes, scores)) == [(0, index) for index in range(100)]
    assert looks == [(4, 16), (4, 64), (1, 200)]


@some()
@given(count=st.integers(0, 14), classes=st.integers(1, 4), seed=SEEDS, threshold=st.sampled_from([0.1, 0.2, 0.5]), least=st.sampled_from([0.0, 0.3]))
def test_classic_suppression_is_the_greedy_loop(count: int, classes: int, seed: int, threshold: float, least: float) -> None:
    boxes, scores = boxes_of(count, seed), scores_of(classes, count, seed)
    kept = classic_nms(boxes, scores, score_threshold=least, overlap_threshold=threshold, most=1000, corner_pixels=True)
    assert pairs(kept) == one_by_one(boxes, scores, greedy=True, threshold=threshold, top_k=1000, least=least)


def test_classic_suppression_is_greedy_across_its_blocks() -> None:
    boxes, scores = boxes_of(400, seed=3, side=40), scores_of(2, 400, seed=3, levels=50)
    kept = classic_nms(boxes, scores, overlap_threshold=0.3, most=1000, corner_pixels=True)
    assert len(kept.indices) > 200
    assert pairs(kept) == one_by_one(boxes, scores, greedy=True, threshold=0.3, top_k=1000, least=0.0)


@some()
@given(count=st.integers(0, 14), classes=st.integers(1, 4), seed=SEEDS)
def test_cross_class_suppression_is_fast_suppression_of_the_best_class_alone(count: int, classes: int, seed: int) -> None:
    boxes, scores = boxes_of(count, seed), scores_of(classes, count, seed)
    kept = cross_class_fast_nms(boxes, scores, overlap_threshold=0.2)
    best = scores.max(dim=0)
    assert kept.indices.tolist() == [index for _, index in one_by_one(boxes, best.values[None], greedy=False, threshold=0.2, top_k=200)]
    assert torch.equal(kept.class_ids, best.indices[kept.indices])


@pytest.mark.parametrize("suppress", [fast_nms, cross_class_fast_nms, classic_nms])
@some()
@given(count=st.integers(0, 30), seed=SEEDS, most=st.integers(1, 5))
def test_what_is_left_is_left_again_and_fewer_are_the_first_of_more(suppress, count: int, seed: int, most: int) -> None:
    boxes, scores = boxes_of(count, seed), scores_of(1, count, seed)
    kept = suppress(boxes, scores).indices
    again = suppress(boxes[kept], scores[:, kept]).indices
    assert again.tolist() == list(range(len(kept)))
    assert suppress(boxes, scores, most=most).indices.tolist() == kept[:most].tolist()


def test_fast_suppression_lets_boxes_suppress_that_go_themselves() -> None:
    row = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0], [8.0, 0.0, 18.0, 10.0]])  # each overlaps the next by 3/7
    scores = torch.tensor([[0.9, 0.8, 0.7]])
    assert fast_nms(row, scores, overlap_threshold=0.4).indices.tolist() == [0]
    assert classic_nms(row, scores, overlap_threshold=0.4).indices.tolist() == [0, 2]


def test_the_thresholds_themselves_count_as_the_official_codes_count_them() -> None:
    half = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    scores = torch.tensor([[0.9, 0.8]])
    assert fast_nms(half, scores).indices.tolist() == [0, 1]
    assert classic_nms(half, scores).indices.tolist() == [0]
    assert classic_nms(half, scores, score_threshold=0.8, overlap_threshold=1.0).indices.tolist() == [0]


def test_corner_pixels_make_small_boxes_overlap_more() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]])
    assert float(iou(boxes, boxes)[0, 1]) == pytest.approx(2 / 6)
    assert float(iou(boxes, boxes, corner_pixels=True)[0, 1]) == pytest.approx(6 / 12)


def test_among_equals_the_lower_class_and_then_the_earlier_box_win_also_at_the_edge_of_the_candidates() -> None:
    boxes = torch.arange(600.0)[:, None] * 2 + torch.tensor([0.0, 0.0, 1.0, 1.0])
    scores = torch.full((3, 600), 0.5)
    for suppress in (fast_nms, classic_nms):
        assert pairs(suppress(boxes, scores, most=7)) == [(0, index) for index in range(7)]
    assert pairs(fast_nms(boxes, scores, top_k=2)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert pairs(cross_class_fast_nms(boxes, scores, most=3)) == [(0, 0), (0, 1), (0, 2)]


def test_threads_do_not_change_what_is_kept() -> None:
    boxes, scores = boxes_of(3000, seed=1, side=200), scores_of(20, 3000, seed=1, levels=400)
    alone = [suppress(boxes, scores) for suppress in (fast_nms, cross_class_fast_nms, classic_nms)]
    torch.set_num_threads(2)
    try:
        together = [suppress(boxes, scores) for suppress in (fast_nms, cross_class_fast_nms, classic_nms)]
    finally:
        torch.set_num_threads(1)
    assert [pairs(kept) for kept in alone] == [pairs(kept) for kept in together]


@some()
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), count=st.integers(0, 3), seed=SEEDS, padding=st.sampled_from([0.0, 0.5, 1.0]))
def test_masks_are_cut_at_each_pixel_as_the_rule_says(size: tuple[int, int], count: int, seed: int, padding: float) -> None:
    height, width = size
    boxes = corners_of(torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)))
    cut = crop_masks(torch.ones(count, height, width), boxes, padding=padding)
    for mask, box in zip(cut, boxes * torch.tensor([width, height, width, height]), strict=True):
        x0, y0, x1, y1 = box.tolist()
        for row in range(height):
            for column in range(width):
                inside = x0 - padding <= column < x1 + padding and y0 - padding <= row < y1 + padding
                assert float(mask[row, column]) == float(inside)
