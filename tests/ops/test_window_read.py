import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from rotoscope.ops.window_read import WindowRead


def plain_read(query: Tensor, keys: list[Tensor], values: list[Tensor], radius: int, temperature: float) -> Tensor:
    """The same with the whole matrix."""
    height, width = query.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()])
    near = ((place[:, :, None] - place[:, None]).abs() <= radius).all(0).repeat(1, len(keys))
    similarity = query.flatten(1).T @ torch.cat([key.flatten(1) for key in keys], dim=1) / temperature
    affinity = similarity.masked_fill(~near, -torch.inf).softmax(1)
    held = torch.cat([value.flatten(1) for value in values], dim=1)
    return (held @ affinity.T).view(-1, height, width)


def scene(hw: tuple[int, int], frames: int, channels: int, share: float = 1.0) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    keys = [F.normalize(torch.randn(6, *hw), dim=0) for _ in range(frames + 1)]
    values = [torch.rand(channels, *hw).softmax(0) for _ in range(frames)]
    for value in values:
        beyond = torch.arange(hw[1]) >= share * hw[1]
        value[:, :, beyond] = 0
        value[0, :, beyond] = 1
    return keys[0], keys[1:], values


@settings(deadline=None, max_examples=15)
@given(height=st.integers(1, 20), width=st.integers(1, 20), frames=st.integers(1, 3), radius=st.integers(1, 9))
def test_it_equals_the_full_matrix(height: int, width: int, frames: int, radius: int) -> None:
    query, keys, values = scene((height, width), frames, 3)
    result = WindowRead(radius=radius, temperature=0.1)(query, keys, values)
    assert torch.allclose(result, plain_read(query, keys, values, radius, 0.1), atol=1e-5)


def test_skipping_the_background_changes_nothing() -> None:
    query, keys, values = scene((16, 90), 2, 2, share=0.1)
    read = WindowRead(radius=3, temperature=0.1, negligible=0.0)
    assert torch.allclose(read(query, keys, values), plain_read(query, keys, values, 3, 0.1), atol=1e-5)


def test_most_tiles_are_skipped_where_the_object_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = []
    read_tiles = WindowRead._read
    monkeypatch.setattr(WindowRead, "_read", lambda self, query, *rest: (tiles.append(len(query)), read_tiles(self, query, *rest))[1])
    WindowRead(radius=3)(*scene((16, 160), 2, 2, share=0.1))
    assert sum(tiles) == 2 * 3  # 16 cells of object and 3 around, of 20 columns of tiles


def test_nothing_but_background_reads_as_background() -> None:
    query, keys, values = scene((9, 9), 1, 4, share=0.0)
    result = WindowRead()(query, keys, values)
    assert torch.equal(result[0], torch.ones(9, 9))
    assert float(result[1:].abs().max()) == 0


def test_the_temperature_and_the_window_matter() -> None:
    query, keys, values = scene((12, 12), 2, 3)
    reads = [WindowRead(radius=radius, temperature=temperature)(query, keys, values) for radius, temperature in ((4, 0.1), (4, 0.2), (5, 0.1))]
    assert not torch.allclose(reads[0], reads[1], atol=1e-3)
    assert not torch.allclose(reads[0], reads[2], atol=1e-3)
