import pytest
import torch

from rotoscope.nn.attention import GatedAttention, SelfAttention, WindowedAttention, WindowedGatedAttention, attend, join_heads, split_heads
from rotoscope.nn.blocks import CellGroupNorm, DepthwiseConv, DropPath, cells_to_map, map_to_cells
from rotoscope.nn.fpn import PyramidDecoder
from rotoscope.nn.position import sine_position


def test_splitting_and_joining_heads_are_inverse():
    cells = torch.randn(2, 5, 12)
    assert torch.equal(join_heads(split_heads(cells, 3)), cells)


@pytest.mark.parametrize("scores_at_once", [1, 2**21])
def test_wide_values_are_read_as_the_formula_says(monkeypatch, scores_at_once):
    monkeypatch.setattr("rotoscope.nn.attention._SCORES_AT_ONCE", scores_at_once)
    query, key, value = torch.randn(1, 2, 70, 4), torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 11)
    expected = (query @ key.transpose(-1, -2) / 2).softmax(dim=-1) @ value
    assert torch.allclose(attend(query, key, value), expected, atol=1e-5)


def test_the_order_of_memory_cells_does_not_matter():
    attention = SelfAttention(16, 4)
    cells = torch.randn(1, 6, 16)
    order = torch.randperm(6)
    assert torch.allclose(attention(cells, cells, cells), attention(cells, cells[:, order], cells[:, order]), atol=1e-5)


@pytest.mark.parametrize("hw", [(1, 1), (1, 9), (3, 20)])
def test_windows_larger_than_the_grid_work(hw):
    cells = torch.randn(2, hw[0] * hw[1], 16)
    assert WindowedAttention(16, 4)(cells, cells, cells, hw).shape == cells.shape
    gated = WindowedGatedAttention(16, 32, 8)
    assert gated(cells, cells, torch.randn(2, hw[0] * hw[1], 32), torch.ones(2, hw[0] * hw[1], 32), hw).shape == (2, hw[0] * hw[1], 8)


def test_a_closed_gate_lets_only_the_bias_through():
    attention = GatedAttention(8, 4)
    cells, value = torch.randn(1, 6, 2), torch.randn(1, 6, 8)
    read = attention(cells, cells, value, torch.zeros(1, 6, 8), (2, 3))
    assert torch.allclose(read, attention.projection.bias.expand(1, 6, 4))


def test_drop_path_drops_whole_samples_in_training_only():
    x = torch.ones(100, 3)
    dropped = DropPath(0.5).train()(x)
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped.min(dim=1).values, dropped.max(dim=1).values)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_depthwise_convolution_keeps_channels_apart():
    conv = DepthwiseConv(3).eval()
    cells = torch.zeros(1, 12, 3)
    cells[0, :, 1] = torch.randn(12)
    result = conv(cells, (3, 4))
    assert bool((result[..., [0, 2]] == 0).all())
    assert bool((result[..., 1] != 0).any())


def test_cells_and_maps_are_views_of_each_other():
    cells = torch.randn(2, 6, 4)
    assert torch.equal(map_to_cells(cells_to_map(cells, (2, 3))), cells)
    assert map_to_cells(cells_to_map(cells, (2, 3))).data_ptr() == cells.data_ptr()


def test_group_norm_of_cells_normalises_each_group_over_all_cells():
    normed = CellGroupNorm(2, 8)(torch.randn(1, 50, 8) * 5 + 3)
    assert torch.allclose(normed[..., :4].mean(), torch.tensor(0.0), atol=1e-5)
    assert torch.allclose(normed[..., :4].var(unbiased=False), torch.tensor(1.0), atol=1e-3)


def test_positions_differ_in_every_cell():
    codes = sine_position(4, 6, 32)
    distances = torch.cdist(codes, codes) + torch.eye(24) * 10
    assert float(distances.min()) > 1e-2


def test_the_decoder_answers_at_the_finest_shortcut():
    decoder = PyramidDecoder(8, 3, (2, 4, 6), width=16)
    adapted = decoder.adapt([torch.randn(1, 2, 9, 13), torch.randn(1, 4, 5, 7), torch.randn(1, 6, 3, 4)])
    assert decoder(torch.randn(1, 8, 3, 4), adapted).shape == (1, 3, 9, 13)
