"""Whether a model's confidence means what it says: the overlap that it leads one to expect beside the overlap there is.

A calibration is fitted on clips whose masks are known and that were not trained on, and ships with the model; `scripts/calibrate.py` makes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rotoscope.errors import InputError

_BINS = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidences in bins of equal width, beside what really was.

    Attributes:
        counts: results in each bin.
        confidence: their mean confidence; NaN in an empty bin.
        overlap: their mean intersection over union with the truth; NaN in an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    overlap: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap between the two, each bin counting by its results (Naeini et al., AAAI 2015)."""
        used = self.counts > 0
        return float(np.average(np.abs(self.confidence - self.overlap)[used], weights=self.counts[used]))


def fit(raw: Sequence[float], overlaps: Sequence[float], *, num_knots: int = 11) -> tuple[float, ...]:
    """The overlap to expect at raw confidences of 0, ..., 1 in even steps: the best non-decreasing fit to the pairs, read off at the steps.

    (Isotonic regression by pooling adjacent violators; Barlow et al., 1972. Between two pairs it is linear, beyond the last ones constant.)

    Raises:
        InputError: no pairs, or not as many of one as of the other, or values outside 0..1.
    """
    x, y = _checked(raw, overlaps)
    order = np.argsort(x, kind="stable")
    blocks: list[tuple[float, float, int]] = []  # mean of x, mean of y, how many
    for one_x, one_y in zip(x[order], y[order], strict=True):
        blocks.append((float(one_x), float(one_y), 1))
        while len(blocks) > 1 and blocks[-2][1] >= blocks[-1][1]:
            blocks.append(_pooled(blocks.pop(), blocks.pop()))
    means = np.array(blocks)
    return tuple(np.interp(np.linspace(0, 1, num_knots), means[:, 0], means[:, 1]).round(4).tolist())


def _pooled(later: tuple[float, float, int], earlier: tuple[float, float, int]) -> tuple[float, float, int]:
    total = later[2] + earlier[2]
    x, y = ((earlier[place] * earlier[2] + later[place] * later[2]) / total for place in (0, 1))
    return x, y, total


def reliability(confidences: Sequence[float], overlaps: Sequence[float]) -> Reliability:
    """How far confidences can be relied on.

    Raises:
        InputError: see `fit`.
    """
    x, y = _checked(confidences, overlaps)
    bins = np.minimum((x * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bins, weights=values, minlength=_BINS) / counts for values in (x, y)]
    return Reliability(counts, *means)


def plot(measured: Reliability, path: Path, *, title: str) -> None:
    """A picture of the reliability: on the diagonal, confidence is what it says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.scatter(measured.confidence, measured.overlap, s=10 + 200 * measured.counts / max(measured.counts.sum(), 1), color="#1f5fa8")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="overlap with the truth (J)", title=f"{title}: error {measured.error:.3f}")
    axes.set_aspect("equal")
    figure.savefig(path, dpi=110)


def _checked(first: Sequence[float], second: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not len(x) or len(x) != len(y):
        message = f"{len(x)} confidences and {len(y)} overlaps; give one overlap for each confidence, and at least one"
        raise InputError(message)
    if not all(bool(((values >= 0) & (values <= 1)).all()) for values in (x, y)):
        message = "confidences and overlaps must lie in 0..1"
        raise InputError(message)
    return x, y
