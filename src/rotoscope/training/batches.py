"""Batches made ahead of time, in the order in which they are needed."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch

from rotoscope.training.task import Batch, Draw


def made_ahead(make: Callable[[Draw], Batch], draws: Iterable[Draw], *, ahead: int) -> Generator[Batch, None, None]:
    """The batch of each draw, in order, without gradients.

    An exception comes where its batch would have come. Whoever stops early closes the iterator: what was not begun is then left.

    Args:
        make: a function of the draw alone, that may run in several threads at once.
        draws: which batches.
        ahead: how many are being made before they are asked for, in as many threads; 0 makes each when it is asked for.
    """
    if ahead == 0:
        for draw in draws:
            yield _without_gradients(make, draw)
        return
    remaining = iter(draws)
    with ThreadPoolExecutor(ahead, thread_name_prefix="batches") as threads:
        try:
            waiting: deque[Future[Batch]] = deque(threads.submit(_without_gradients, make, draw) for draw in islice(remaining, ahead))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(threads.submit(_without_gradients, make, draw) for draw in islice(remaining, 1))
                yield batch
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _without_gradients(make: Callable[[Draw], Batch], draw: Draw) -> Batch:
    with torch.no_grad():  # the mode belongs to the thread
        return make(draw)
