"""Who belongs to whom: the best one-to-one assignment of two lists."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError


def best_assignment(scores: Float[Tensor, "n m"]) -> list[tuple[int, int]]:
    """The pairs (row, column) that use no row and no column twice and whose scores have the largest sum, in the order of the rows.

    Exact. There are always min(n, m) pairs, also where scores are zero or negative: pairs that are not good enough are the caller's to drop. Of
    several assignments with the same sum one is taken, on all machines the same one. None where there are no rows or no columns.

    The Hungarian method with shortest augmenting paths (Kuhn 1955; Jonker and Volgenant, Computing 38, 1987): rows join one by one, each along the
    path over those that joined before that costs least. It takes n * n * m steps for n <= m, in double precision on the CPU.

    Raises:
        InputError: a score is not a finite number.
    """
    if not bool(torch.isfinite(scores).all()):
        message = "scores to assign by must be finite numbers; give a large negative number to a pair that must not be"
        raise InputError(message)
    if scores.shape[0] > scores.shape[1]:
        return sorted((row, column) for column, row in best_assignment(scores.T))
    costs = (-scores.detach().double().cpu()).tolist()
    row_of = _cheapest_rows(costs, scores.shape[1])
    return sorted((row, column) for column, row in enumerate(row_of) if row is not None)


def _cheapest_rows(costs: list[list[float]], num_columns: int) -> list[int | None]:
    """The row that each column has in the assignment of all rows that costs least."""
    row_of: list[int | None] = [None] * num_columns
    row_prices, column_prices = [0.0] * len(costs), [0.0] * num_columns  # the dual: row + column price <= cost, equal for pairs that are assigned
    for new_row in range(len(costs)):
        distances = [math.inf] * num_columns
        before: list[int | None] = [None] * num_columns  # the column before this one on the shortest path from the new row
        reached: list[int] = []
        left = set(range(num_columns))
        row, last, travelled = new_row, None, 0.0
        while True:
            for column in left:
                distance = travelled + costs[row][column] - row_prices[row] - column_prices[column]
                if distance < distances[column]:
                    distances[column], before[column] = distance, last
            last = min(left, key=lambda column: (distances[column], column))
            travelled = distances[last]
            occupant = row_of[last]
            if occupant is None:
                break
            left.remove(last)
            reached.append(last)
            row = occupant
        row_prices[new_row] += travelled
        for column in reached:
            occupant = row_of[column]
            assert occupant is not None, "only occupied columns are passed through"
            row_prices[occupant] += travelled - distances[column]
            column_prices[column] -= travelled - distances[column]
        _shift_along(row_of, before, last, new_row)
    return row_of


def _shift_along(row_of: list[int | None], before: list[int | None], end: int, new_row: int) -> None:
    """Give the free column at the end of a path to the row before it, that row's column to the one before, and so on up to the new row."""
    column = end
    while (earlier := before[column]) is not None:
        row_of[column] = row_of[earlier]
        column = earlier
    row_of[column] = new_row
