import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.training.augment import CameraSettings, MaskErrors, perturbed_masks, rounded_blocks, through_camera

NOTHING = CameraSettings(light=0.0, colour=0.0, grey_share=0.0, flicker=0.0, blur_share=0.0, streak_share=0.0, codec_share=0.0, noise_share=0.0)
FAITHFUL = MaskErrors(turn=0.0, zoom=0.0, shift=0.0, grow=0, soften=0.0, lost_share=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 3, 20, 27, generator=generator(9))


def test_a_camera_without_faults_changes_nothing():
    assert torch.allclose(through_camera(pictures(), NOTHING, generator()), pictures(), atol=1e-6)


@pytest.mark.parametrize(
    "fault",
    [
        {"light": 0.5},
        {"colour": 0.5},
        {"grey_share": 1.0},
        {"flicker": 0.3},
        {"blur_share": 1.0},
        {"streak_share": 1.0},
        {"codec_share": 1.0},
        {"noise_share": 1.0},
    ],
)
def test_each_fault_shows(fault):
    degraded = through_camera(pictures(), replace(NOTHING, **fault), generator(1))
    assert float((degraded - pictures()).abs().mean()) > 0.005
    assert torch.equal(degraded, through_camera(pictures(), replace(NOTHING, **fault), generator(1)))


def test_grey_clips_have_no_colour():
    degraded = through_camera(pictures(), replace(NOTHING, grey_share=1.0), generator())
    assert torch.allclose(degraded[:, :, 0], degraded[:, :, 2], atol=1e-6)


def test_blur_and_streaks_keep_flat_pictures_flat():
    flat = torch.full((2, 4, 3, 16, 16), 0.5)
    degraded = through_camera(flat, replace(NOTHING, blur_share=0.5, streak_share=0.5), generator())
    assert torch.allclose(degraded, flat, atol=1e-5)


def test_rounding_with_tiny_steps_changes_nothing_and_with_huge_ones_leaves_the_mean_of_each_block():
    frames = torch.rand(1, 3, 16, 16, generator=generator())
    assert torch.allclose(rounded_blocks(frames, torch.full((1, 1, 1, 1, 8, 8), 1e-6)), frames, atol=1e-5)
    steps = torch.full((1, 1, 1, 1, 8, 8), 1e6)
    steps[..., 0, 0] = 1e-6
    blocks = rounded_blocks(frames, steps)
    assert torch.allclose(blocks[0, 0, :8, :8], frames[0, 0, :8, :8].mean().expand(8, 8), atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), height=st.integers(9, 30), width=st.integers(9, 30))
def test_degraded_clips_stay_pictures(seed, height, width):
    images = torch.rand(2, 2, 3, height, width, generator=generator(seed))
    degraded = through_camera(images, CameraSettings(blur_share=0.5, streak_share=0.4, codec_share=0.5, noise_share=0.5), generator(seed))
    assert degraded.shape == images.shape
    assert float(degraded.min()) >= 0
    assert float(degraded.max()) <= 1


def square() -> torch.Tensor:
    masks = torch.zeros(2, 1, 33, 33)
    masks[:, :, 10:22, 10:22] = 1
    return masks


def test_masks_without_errors_stay_as_they_are():
    kept = perturbed_masks(square(), FAITHFUL, generator())
    assert torch.allclose(kept, square(), atol=1e-4)


@pytest.mark.parametrize("error", [{"turn": math.radians(30)}, {"zoom": 0.3}, {"shift": 0.3}, {"soften": 3.0}, {"grow": 5}])
def test_each_error_changes_a_mask_but_leaves_most_of_it(error):
    changed = perturbed_masks(square(), replace(FAITHFUL, **error), generator(4))
    assert float((changed - square()).abs().mean()) > 0.001
    shared, union = torch.minimum(changed, square()).sum(), torch.maximum(changed, square()).sum()
    assert 0.2 < float(shared / union) < 0.999


def test_a_lost_piece_is_a_hole():
    lost = perturbed_masks(torch.ones(8, 2, 33, 33), replace(FAITHFUL, lost_share=1.0), generator())
    assert float(lost.min()) == 0
    assert float(lost.mean()) > 0.8
    assert torch.equal(lost[:, 0] == 0, lost[:, 1] == 0)
