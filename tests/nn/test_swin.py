import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.nn.swin import PatchMerging, SwinBlock, SwinTransformer, WindowAttention, shifted_separation, window_position_index


def _tiny(**options: float) -> SwinTransformer:
    return SwinTransformer(8, blocks=(2, 2, 2), heads=(1, 2, 4), window=3, **options)


@settings(deadline=None, max_examples=10)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_maps_cover_the_image_at_strides_4_8_16_16(height: int, width: int) -> None:
    encoder = _tiny().eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, 3, height, width))
    assert [tuple(part.shape[2:]) for part in maps] == [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 16)]
    assert tuple(part.shape[1] for part in maps) == encoder.channels == (8, 16, 32, 32)


def test_outputs_lie_in_channels_last_memory() -> None:
    with torch.inference_mode():
        maps = _tiny().eval()(torch.randn(1, 3, 48, 64))
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in maps)


def test_a_batch_gives_what_its_images_give() -> None:
    encoder = _tiny().eval()
    images = torch.randn(3, 3, 50, 41)
    with torch.inference_mode():
        together = encoder(images)
        apart = [encoder(image[None]) for image in images]
    for index, both in enumerate(together):
        torch.testing.assert_close(both, torch.cat([maps[index] for maps in apart]), atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 20), width=st.integers(1, 20), window=st.sampled_from([2, 3, 5, 7]))
def test_pixels_are_separated_where_the_shift_tore_them_from_their_distance(height: int, width: int, window: int) -> None:
    shift = window // 2
    padded = [length + -length % window for length in (height, width)]
    rolled = torch.stack(torch.meshgrid(*(torch.arange(length) for length in padded), indexing="ij"), -1).roll((-shift, -shift), (0, 1))
    separated = shifted_separation(height, width, window)
    assert separated.shape[0] == padded[0] * padded[1] // window**2
    offsets = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1).reshape(-1, 2)
    for index, entry in enumerate(separated):
        top, left = (window * part for part in divmod(index, padded[1] // window))
        pixels = rolled[top : top + window, left : left + window].reshape(-1, 2)
        torn = (pixels[:, None] - pixels[None]) != (offsets[:, None] - offsets[None])
        assert torch.equal(entry, torn.any(-1))


def test_the_position_index_counts_offsets_row_by_row() -> None:
    index = window_position_index(2)
    # query (0, 0): keys at offsets (0, 0), (0, -1), (-1, 0), (-1, -1) of the 3x3 table with its middle at 4
    assert index[0].tolist() == [4, 3, 1, 0]
    assert index[3].tolist() == [8, 7, 5, 4]


def test_window_attention_equals_its_formula() -> None:
    attention = WindowAttention(6, heads=2, window=2)
    windows = torch.randn(3, 4, 6)
    separated = torch.rand(3, 4, 4) > 0.5
    separated[:, range(4), range(4)] = False
    expected = torch.empty(3, 4, 6)
    for window in range(3):
        query, key, value = attention.query_key_value(windows[window]).split(6, dim=1)
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            scores = query[:, part] @ key[:, part].T / 3**0.5 + attention.position_bias[attention.position_index, head]
            expected[window][:, part] = (scores - 100.0 * separated[window]).softmax(1) @ value[:, part]
    torch.testing.assert_close(attention(windows, separated), attention.project(expected))


def test_a_shifted_block_sees_over_the_border_of_a_window_but_not_round_the_map() -> None:
    block = SwinBlock(4, 1, window=4, shift=2, drop_path=0.0).eval()
    x = torch.randn(1, 8, 8, 4, requires_grad=True)
    block(x, shifted_separation(8, 8, 4))[0, 3, 3].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(-1) > 1e-9
    assert seen[2:6, 2:6].all()
    assert seen.sum() == 16
    corner = torch.autograd.grad(block(x, shifted_separation(8, 8, 4))[0, 0, 0].sum(), x)[0][0].abs().sum(-1) > 1e-9
    assert corner[:2, :2].all()
    assert corner.sum() == 4


def test_merging_orders_the_corners_column_by_column() -> None:
    merging = PatchMerging(1)
    seen: list[torch.Tensor] = []
    merging.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    merging(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, :, :, None])
    assert seen[0].tolist() == [[[[1.0, 4.0, 2.0, 5.0], [3.0, 6.0, 0.0, 0.0]]]]


def test_training_reaches_all_but_the_frozen_parts() -> None:
    encoder = _tiny(drop_path=0.0).train()
    encoder.freeze_early()
    sum(part.square().mean() for part in encoder(torch.randn(2, 3, 40, 41))).backward()
    frozen = ("patches.", "patch_norm.", "stages.0.")
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name


def test_the_frozen_part_is_as_large_as_the_official_one() -> None:
    with torch.device("meta"):
        encoder = SwinTransformer()
    encoder.freeze_early()
    frozen = sum(parameter.numel() for parameter in encoder.parameters() if not parameter.requires_grad)
    assert frozen / 1e6 == pytest.approx(65.399 - 64.994, abs=1e-3)  # the sheet's parameters less its trainable ones


def test_drop_path_skips_branches_of_whole_samples_and_keeps_the_mean() -> None:
    block = SwinBlock(4, 1, window=2, shift=0, drop_path=0.25).train()
    branch = torch.ones(4000, 2, 1, 3)
    dropped = block._dropped(branch)
    assert torch.equal(dropped, dropped[:, :1, :1, :1].expand_as(dropped))
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(block.eval()._dropped(branch), branch)


def test_drop_path_rates_rise_over_the_nominal_blocks_and_leave_the_frozen_stage() -> None:
    with torch.device("meta"):
        encoder = SwinTransformer()
    rates = [block.drop_path for stage in encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0.3 * index / 23 for index in range(22)])
    encoder.freeze_early()
    assert [block.drop_path for block in encoder.stages[0].blocks] == [0.0, 0.0]


def test_folding_changes_nothing() -> None:
    encoder = _tiny().eval()
    image = torch.randn(1, 3, 20, 20)
    with torch.inference_mode():
        before = encoder(image)
        encoder.fold()
        assert torch.equal(encoder(image)[3], before[3])
