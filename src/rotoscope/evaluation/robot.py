"""A stand-in for the person of the DAVIS interactive track: it looks where masks are wrong, and draws lines through those places.

Procedure: Caelles et al., "The 2018 DAVIS Challenge on Video Object Segmentation", arXiv:1803.00557, and the pages of the challenge. The constants
are the official robot's (`davisinteractive`, which no longer installs). Written anew from those facts. What is as published: an error region for each
true id, background included; an opening by a kernel that grows with the region; a skeleton; its longest path in each piece; pieces of fewer than four
nodes left out; a Bezier curve through the path; the frame with the lowest mean over objects, no frame twice before each was had.

What is not:

- Of pixels that the medial axis may lose in any order, the official one draws the order; here it is fixed. The code is ours: OpenCV's main
  package has no skeletons, and scikit-image with SciPy is much to install for thirty lines.
- A curve that would leave the error region is smoothed in shorter pieces. The official one may run through pixels that were right all along.
- Points are whole pixels, and as many as the curve needs; the official ones are a thousand samples.
- A piece as round as a disc, whose skeleton is hardly more than a point, gets a short level line; by the official rule it has none.
- If no line can be drawn on the worst frame, the next worst is taken; the official robot draws nothing.

Nothing here is random but the choice of the first frame, which a seed fixes.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from rotoscope.datasets.davis_scribbles import Line
from rotoscope.errors import InputError

KERNEL_SHARE = 0.2
"""Diameter of the opening's kernel, as a share of the square root of the region's area (official)."""
MAX_KERNEL_RADIUS = 16.0
"""In pixels (official)."""
KERNEL_SHRINKAGE = 0.9
"""By what the kernel is made smaller while it removes the whole region (official)."""
MIN_NODES = 4
"""Pieces of the skeleton with fewer pixels get no line (official)."""
START_AREA = 100
"""An object of fewer pixels is taken for too small to start from; ours."""

Mask = NDArray[np.bool_]
Path = NDArray[np.int64]
"""Pixels (x, y) of a line, `[n, 2]`; each beside the next."""

_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # (y, x), clockwise from above
_ROWS_AT_ONCE = 256


def error_regions(given: NDArray[np.integer], predicted: NDArray[np.integer], object_ids: Iterable[int]) -> dict[int, Mask]:
    """Where each object, and the background (0), is but was not predicted, by id; only ids with such pixels.

    Together they are all wrong pixels, each once: what an object was wrongly given is missed by what is there in truth. Void, and ids that are not
    listed, are nobody's.

    Raises:
        InputError: the maps differ in size.
    """
    if given.shape != predicted.shape:
        message = f"the predicted labels are {predicted.shape} but the given ones {given.shape}; predict at the size of the annotations"
        raise InputError(message)
    wrong = given != predicted
    regions = {object_id: wrong & (given == object_id) for object_id in (0, *object_ids)}
    return {object_id: region for object_id, region in regions.items() if region.any()}


def draw_corrections(
    given: NDArray[np.integer], predicted: NDArray[np.integer], object_ids: Iterable[int], frame_index: int, *, thorough: bool = False
) -> list[Line]:
    """The lines that a person would draw on a frame, the background's first; none if nothing is wrong, or all that is wrong is too small or thin.

    With `thorough` no region is too small or thin.

    Raises:
        InputError: the maps differ in size.
    """
    lines = []
    for object_id, region in error_regions(given, predicted, object_ids).items():
        for path in region_paths(region, thorough=thorough):
            lines.append(Line(frame_index, object_id, shares(path, given.shape)))
    return lines


def region_paths(region: Mask, *, thorough: bool = False) -> list[Path]:
    """A smooth line through each piece of a region that is left by an opening; each of its pixels lies in the region.

    With `thorough` a region that the opening removes is taken as it is, and no piece is too short; then only an empty region has no line.
    """
    kept = opened(region)
    if thorough and not kept.any():
        kept = region
    least = 1 if thorough else MIN_NODES
    widened = [_crossing(path, kept) if len(path) < MIN_NODES else path for path in longest_paths(skeleton(kept), min_nodes=1)]
    return [smoothed(path, region) for path in widened if len(path) >= least]


def opened(region: Mask) -> Mask:
    """The region without what is small or thin beside its size; as it is below 100 pixels, possibly empty if it is thin everywhere."""
    radius = min(KERNEL_SHARE * np.sqrt(np.count_nonzero(region)) / 2, MAX_KERNEL_RADIUS)
    result = region
    while radius > 1:
        side = 2 * int(radius) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        result = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_OPEN, kernel).astype(np.bool_)
        if result.any():
            break
        radius *= KERNEL_SHRINKAGE
    return result


def skeleton(region: Mask) -> Mask:
    """The medial axis of a region, one pixel wide: as many pieces (8-connected) and holes as it has, and a branch into each corner.

    Pixels are taken away one by one, those nearest to the border first, of these the ones with most neighbours, of these the upper left; what the
    region's connection needs stays, and so do ends.
    """
    padded = np.pad(region, 1).astype(np.uint8)
    width = padded.shape[1]
    pixels = np.flatnonzero(padded)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).reshape(-1)[pixels]
    steps = [y * width + x for y, x in _AROUND]
    neighbours = padded.reshape(-1)[pixels[:, None] + steps].sum(axis=1, dtype=np.int64)
    ordered = pixels[np.lexsort((pixels, -neighbours, distance))].tolist()
    left, removable = bytearray(padded.tobytes()), _removable()
    n, ne, e, se, s, sw, w, nw = steps
    for p in ordered:  # a sum of eight products, written out: it runs for every pixel
        code = left[p + n] + 2 * left[p + ne] + 4 * left[p + e] + 8 * left[p + se]
        code += 16 * left[p + s] + 32 * left[p + sw] + 64 * left[p + w] + 128 * left[p + nw]
        if removable[code]:
            left[p] = 0
    return np.frombuffer(left, dtype=np.bool_).reshape(padded.shape)[1:-1, 1:-1].copy()


def longest_paths(lines: Mask, *, min_nodes: int = MIN_NODES) -> list[Path]:
    """For each piece of a skeleton with enough pixels, in the order of their first pixels, the longest way through it.

    Loops are cut open first, at one of their longest (diagonal) steps. Of equally long ways one is taken, always the same.
    """
    nodes = np.argwhere(lines)
    tree = _spanning_forest(lines, nodes)
    paths, seen = [], np.zeros(len(nodes), dtype=np.bool_)
    for start in range(len(nodes)):
        if not seen[start]:
            piece = _walk(tree, start)
            seen[list(piece)] = True
            if len(piece) >= min_nodes:
                end = next(reversed(piece))
                way = _walk(tree, end)
                node: int | None = next(reversed(way))
                path = []
                while node is not None:
                    path.append(node)
                    node = way[node]
                paths.append(nodes[path][:, ::-1])
    return paths


def smoothed(path: Path, region: Mask) -> Path:
    """The path as a Bezier curve whose control points are its pixels; in shorter curves, where that would leave the region."""
    curve = _without_repeats(np.floor(_bezier(path) + 0.5).astype(np.int64))
    if region[curve[:, 1], curve[:, 0]].all():
        return curve
    if len(path) <= 3:
        return path
    middle = len(path) // 2
    return _without_repeats(np.concatenate((smoothed(path[: middle + 1], region), smoothed(path[middle:], region))))


def shares(path: Path, hw: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """Pixels as DAVIS writes points: shares of the width and height less one, 0..1.

    A quarter of a pixel is added so that readers that cut, and readers that round, find the same pixel again.
    """
    extent = np.maximum(np.array((hw[1], hw[0]), dtype=np.float64) - 1, 1)
    return tuple((float(x), float(y)) for x, y in np.minimum((path + 0.25) / extent, 1))


def frames_by_need(scores: NDArray[np.float64], had: Collection[int]) -> list[int]:
    """Frames from the worst to the best: of `scores` `[frames, objects]` the lowest mean, and of equals the first.

    Frames that were had are left out, unless all were.
    """
    order = [int(index) for index in np.argsort(scores.mean(axis=1), kind="stable")]
    return [index for index in order if index not in had] or order


def first_lines(annotations: Sequence[NDArray[np.integer]], object_ids: Sequence[int], *, seed: int = 0) -> list[Line]:
    """What a person might start with: a line through each object, on a frame that shows as many as possible; the seed chooses among such frames.

    Raises:
        InputError: no frame shows an object.
    """
    areas = np.array([[np.count_nonzero(labels == object_id) for object_id in object_ids] for labels in annotations])
    shown = (areas >= START_AREA).sum(axis=1) * (len(object_ids) + 1) + (areas > 0).sum(axis=1)
    if not shown.any():
        message = f"no frame shows one of the objects {list(object_ids)}; there is nothing to draw on"
        raise InputError(message)
    frame_index = int(np.random.default_rng(seed).choice(np.flatnonzero(shown == shown.max())))
    given = annotations[frame_index]
    lines = draw_corrections(given, np.zeros_like(given), object_ids, frame_index, thorough=True)
    return [line for line in lines if line.object_id]


@lru_cache(maxsize=1)
def _removable() -> bytes:
    """For each of 256 neighbourhoods (bits clockwise from above) whether the pixel is no end, and the rest stays connected, and no hole opens."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1
    n, ne, e, se, s, sw, w, nw = bits.T
    crossings = sum((~a & (b | c)).astype(int) for a, b, c in ((n, ne, e), (e, se, s), (s, sw, w), (w, nw, n)))  # Hilditch 1969
    return bytes(((crossings == 1) & (bits.sum(axis=1) >= 2)).tolist())


def _crossing(path: Path, region: Mask) -> Path:
    """A level line through the first pixel of a path, as long as the radius of the circle around it that the region holds; or the longer path."""
    x, y = (int(value) for value in path[0])
    around = np.pad(region, 1).astype(np.uint8)
    reach = int(cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[y + 1, x + 1]) // 2
    level = np.stack((np.arange(x - reach, x + reach + 1), np.full(2 * reach + 1, y)), axis=1)
    return level if len(level) >= len(path) else path


def _spanning_forest(lines: Mask, nodes: NDArray[np.intp]) -> list[list[int]]:
    """The neighbours of each node (row, column), of which as many are kept as leave no loop: straight steps before diagonal ones (Kruskal)."""
    numbers = np.full((lines.shape[0] + 2, lines.shape[1] + 2), -1)
    numbers[nodes[:, 0] + 1, nodes[:, 1] + 1] = np.arange(len(nodes))
    tree: list[list[int]] = [[] for _ in nodes]
    group = list(range(len(nodes)))
    for y, x in ((0, 1), (1, 0), (1, 1), (1, -1)):
        others = numbers[nodes[:, 0] + 1 + y, nodes[:, 1] + 1 + x]
        for node in np.flatnonzero(others >= 0).tolist():
            other = int(others[node])
            roots = _root(group, node), _root(group, other)
            if roots[0] != roots[1]:
                group[roots[0]] = roots[1]
                tree[node].append(other)
                tree[other].append(node)
    return tree


def _root(group: list[int], node: int) -> int:
    while group[node] != node:
        group[node] = group[group[node]]
        node = group[node]
    return node


def _walk(tree: Sequence[Sequence[int]], start: int) -> dict[int, int | None]:
    """The nodes of a tree in the order of their distance from one, each with the node before it."""
    came_from: dict[int, int | None] = {start: None}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        for other in tree[node]:
            if other not in came_from:
                came_from[other] = node
                waiting.append(other)
    return came_from


def _bezier(points: Path) -> NDArray[np.float64]:
    """Samples of the Bezier curve of some points, less than a pixel apart where the points are neighbours.

    The weights are computed from logarithms of binomials, which do not overflow for long paths.
    """
    degree = len(points) - 1
    if degree == 0:
        return points.astype(np.float64)
    log_factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, degree + 1)))))
    binomials = log_factorials[-1] - log_factorials - log_factorials[::-1]
    inner = np.linspace(0, 1, 2 * degree + 1)[1:-1]  # a step is at most degree * sqrt(2) / (2 * degree) pixels
    samples = [points[:1].astype(np.float64), *_weighted(inner, binomials, points), points[-1:].astype(np.float64)]
    return np.concatenate(samples)


def _weighted(shares_of_way: NDArray[np.float64], binomials: NDArray[np.float64], points: Path) -> Iterator[NDArray[np.float64]]:
    """Bernstein's sums, for some rows at a time: 4000 points at once would take 256 MB."""
    powers = np.arange(len(points))
    for start, stop in pairwise((*range(0, len(shares_of_way), _ROWS_AT_ONCE), len(shares_of_way))):
        t = shares_of_way[start:stop, None]
        yield np.exp(binomials + powers * np.log(t) + powers[::-1] * np.log1p(-t)) @ points


def _without_repeats(path: Path) -> Path:
    """The path without pixels that equal the one before."""
    moves = (np.diff(path, axis=0) != 0).any(axis=1)
    return path[np.concatenate(([True], moves))]
