import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from rotoscope.models.yolact import assembly
from rotoscope.models.yolact.assembly import enlarged, soft_masks

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def blobs(count: int, hw: tuple[int, int], seed: int) -> Tensor:
    """Smooth masks with parts above and below a half; some are empty, some full."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, count, 3, 3, generator=random) + torch.randint(-1, 2, (count, 1, 1), generator=random) * 0.4
    return F.interpolate(coarse, hw, mode="bilinear", align_corners=False)[0].clamp(0, 1)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(0, 4), source=SIZES, target=SIZES, seed=st.integers(0, 9999))
def test_enlarging_is_interpolating_everything(count: int, source: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    soft = blobs(count, source, seed) if count else torch.zeros(0, *source)
    expected = F.interpolate(soft[None], target, mode="bilinear", align_corners=False)[0] if count else torch.zeros(0, *target)
    found = enlarged(soft, target)
    assert found.shape == expected.shape
    assert found.dtype == torch.bool
    undecided = (expected - 0.5).abs() < 1e-5
    assert torch.equal(found | undecided, (expected > 0.5) | undecided)


@pytest.mark.parametrize("pixels", [1, 50, 777])
def test_blocks_of_any_size_give_the_same_masks(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    soft = blobs(5, (30, 20), seed=4)
    whole = enlarged(soft, (97, 120))
    monkeypatch.setattr(assembly, "_PIXELS_AT_ONCE", pixels)
    assert torch.equal(enlarged(soft, (97, 120)), whole)


def test_the_numbers_held_at_a_time_do_not_grow_with_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    compare = torch.gt

    def noting(values: Tensor, *rest: object, **more: object) -> Tensor:
        sizes.append(values.numel())
        return compare(values, *rest, **more)

    monkeypatch.setattr(torch, "gt", noting)
    masks = enlarged(torch.ones(2, 138, 138), (2160, 3840))
    assert bool(masks.all())
    assert max(sizes) <= 1 << 17
    assert sum(sizes) == masks.numel()


def test_nothing_is_interpolated_where_no_mask_is(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = torch.zeros(3, 138, 138)
    soft[1, 40:60, 50:60] = 1.0
    sizes = []
    compare = torch.gt
    monkeypatch.setattr(torch, "gt", lambda values, *rest, **more: sizes.append(values.numel()) or compare(values, *rest, **more))
    masks = enlarged(soft, (480, 854))
    assert 0 < sum(sizes) < 1.5 * int(masks[1].sum())
    assert not bool(masks[[0, 2]].any())


def test_soft_masks_are_the_sigmoid_of_the_products_within_the_box() -> None:
    prototypes, coefficients = torch.randn(4, 9, 12), torch.randn(2, 4)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5]])
    soft = soft_masks(prototypes, coefficients, boxes)
    whole = torch.einsum("nk,kyx->nyx", coefficients, prototypes).sigmoid()
    assert torch.allclose(soft[0], whole[0], atol=1e-6)
    assert torch.allclose(soft[1, :6, 5:], whole[1, :6, 5:], atol=1e-6)
    assert float(soft[1, :, :5].abs().sum() + soft[1, 6:].abs().sum()) == 0
    assert torch.allclose(soft_masks(prototypes, coefficients, boxes, crop=False), whole, atol=1e-6)


def test_no_coefficients_give_no_masks() -> None:
    soft = soft_masks(torch.randn(4, 9, 12), torch.zeros(0, 4), torch.zeros(0, 4))
    assert soft.shape == (0, 9, 12)
    assert enlarged(soft, (48, 50)).shape == (0, 48, 50)
