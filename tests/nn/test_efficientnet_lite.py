"""EfficientNet-Lite0 against stored outputs of the PyPI port, with the weights that ship; and what its options promise."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rotoscope.models import registry
from rotoscope.models.checkpoints import load_strictly, read_checkpoint
from rotoscope.nn.efficientnet_lite import LITE0_STAGES, EfficientNetLite, fold, normalise

STORED = Path(__file__).with_name("efficientnet_lite0_outputs.safetensors")
STAGES = LITE0_STAGES[:5]


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return safetensors.torch.load_file(STORED)


def shipped(**options: object) -> EfficientNetLite:
    encoder = EfficientNetLite(STAGES, folded=True, **options).eval()
    load_strictly(encoder, read_checkpoint(registry.SHIPPED_WEIGHTS / "mast-lite.safetensors"))
    return encoder


@torch.no_grad()
def worst_error(encoder: EfficientNetLite, stored: dict[str, Tensor]) -> float:
    """The largest relative error of any stage, by norm; infinite where a size differs."""
    errors = [0.0]
    for stride, features in encoder(normalise(stored["image"][None])).items():
        wanted = stored[f"stride{stride}"]
        same = features[0].shape == wanted.shape
        errors.append(float((features[0] - wanted).norm() / wanted.norm()) if same else float("inf"))
    return max(errors)


def test_the_shipped_weights_give_the_ports_features_on_an_odd_size(stored) -> None:
    assert worst_error(shipped(), stored) < 0.004  # fp16 weights: 0.002 seen


@pytest.mark.parametrize("change", ["padding", "dilation", "activation"])
def test_the_comparison_notices_a_wrong_network(stored, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"padding": {"padding": "centred"}, "dilation": {"output_stride": 8}}.get(change, {})
    if change == "activation":
        monkeypatch.setattr("rotoscope.nn.efficientnet_lite.F.relu6", lambda x, **_: x.clamp(0, 4))
    assert worst_error(shipped(**options), stored) > 0.02


def test_folding_keeps_the_function() -> None:
    stages = STAGES[:3]
    encoder = EfficientNetLite(stages)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5), (module.running_var, 0.5)):
                tensor.data = low + torch.rand(len(tensor))
    encoder.eval()
    image = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        before, after = encoder(image), fold(encoder, lambda: EfficientNetLite(stages, folded=True))(image)
    assert all(torch.allclose(before[stride], after[stride], rtol=1e-3, atol=1e-4) for stride in (2, 4, 8))


def test_the_output_stride_keeps_the_grid_and_changes_no_shallower_feature() -> None:
    image = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        full, dilated = shipped()(image), shipped(output_stride=8)(image)
    assert {stride: tuple(map_.shape[2:]) for stride, map_ in dilated.items()} == {2: (32, 24), 4: (16, 12), 8: (8, 6), 16: (8, 6)}
    assert torch.equal(full[8], dilated[8])
    assert full[16].shape[2:] == (4, 3)


def response_centres(padding: str, stride: int) -> float:
    """The mean pixel that moves a cell's value, less the middle of the pixels that the cell stands for."""
    encoder = EfficientNetLite(STAGES[:3], folded=True, padding=padding).eval()
    with torch.no_grad():
        for name, tensor in encoder.named_parameters():
            tensor.fill_(1e-3 if name.endswith("weight") else 0.1)  # all positive, symmetric, and away from the bounds of ReLU6
    image = torch.zeros(1, 3, 160, 160, requires_grad=True)
    cell = 80 // stride
    encoder(image)[stride][0, 0, cell, cell].backward()
    pull = image.grad[0].sum(dim=(0, 1))
    return float((pull * torch.arange(160)).sum() / pull.sum()) - (stride * cell + (stride - 1) / 2)


@pytest.mark.parametrize(("stride", "same", "centred"), [(2, 0.5, 0.5), (4, 1.5, -0.5), (8, 3.5, 1.5)])
def test_centred_padding_puts_cells_near_the_middle_of_their_pixels(stride: int, same: float, centred: float) -> None:
    assert response_centres("same", stride) == pytest.approx(same, abs=1e-3)
    assert response_centres("centred", stride) == pytest.approx(centred, abs=1e-3)
