from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.training.synthesis import Sources, SynthesisSettings, synthesise
from rotoscope.training.warps import Motion, Paths, draw_paths, thin_plate_basis, warped_grid

STILL = Motion(shift=0.0, turn=0.0, zoom=0.0, shear=0.0, tilt=0.0, bend=0.0)
SMALL = SynthesisSettings(num_frames=3, size=32, num_layers=1, least_pixels=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc_sources(count: int, layers: int) -> Sources:
    """A red background with a green square, labelled 1, under blue images with a yellow square."""
    images = torch.zeros(count, layers, 3, 40, 40, dtype=torch.uint8)
    labels = torch.zeros(count, layers, 40, 40, dtype=torch.uint8)
    images[:, 0, 0], images[:, 1:, 2] = 255, 255
    images[:, 0, :, 14:26, 14:26] = torch.tensor([0, 255, 0], dtype=torch.uint8)[:, None, None]
    images[:, 1:, :, 10:30, 10:30] = torch.tensor([255, 255, 0], dtype=torch.uint8)[:, None, None]
    labels[:, 0, 14:26, 14:26] = 1
    labels[:, 1:, 10:30, 10:30] = 1
    return Sources(images, labels, torch.full((count, layers, 2), 40))


def test_masks_lie_exactly_on_what_was_drawn():
    clips = synthesise(disc_sources(6, 2), replace(SMALL, unlabelled_share=0.0, bare_share=0.0, least_pixels=0), generator(1))
    green = (clips.images[:, :, 1] > 0.9) & (clips.images[:, :, 0] < 0.1)
    yellow = (clips.images[:, :, 1] > 0.9) & (clips.images[:, :, 0] > 0.9)
    pure = green | yellow | (clips.images[:, :, 1] < 0.1)
    assert torch.equal((clips.labels > 0)[pure], (green | yellow)[pure])
    assert pure.float().mean() > 0.6
    for sample in range(6):  # one colour, one label
        seen = {int(value) for value in clips.labels[:, sample][green[:, sample]].unique()}
        assert len(seen) <= 1


def test_a_still_background_does_not_change():
    clips = synthesise(disc_sources(2, 2), replace(SMALL, whole_share=1.0, background_motion=STILL), generator())
    assert torch.equal(clips.labels[0], clips.labels[2])
    assert torch.allclose(clips.images[0], clips.images[2])
    assert clips.num_objects.tolist() == [1, 1]


def test_an_unlabelled_layer_hides_what_lies_below():
    still = replace(
        SMALL, background_motion=STILL, layer_motion=STILL, whole_share=0.0, unlabelled_share=1.0, bare_share=0.0, layer_extent=(0.9, 1.0)
    )
    clips = synthesise(disc_sources(8, 2), still, generator(2))
    yellow = (clips.images[:, :, 0] > 0.9) & (clips.images[:, :, 1] > 0.9)
    assert yellow.any()
    assert int(clips.labels[yellow].sum()) == 0
    assert clips.num_objects.max() == 1


def test_layers_leave_the_frame():
    wild = replace(SMALL, num_frames=6, layer_motion=Motion(shift=1.0, calmest=0.9), whole_share=0.0, unlabelled_share=0.0, bare_share=1.0)
    clips = synthesise(disc_sources(24, 2), wild, generator(3))
    seen = (clips.labels > 0).flatten(2).any(dim=2)
    assert (seen[0] & ~seen[-1]).any()


def test_objects_that_are_too_small_in_the_first_frame_are_background():
    clips = synthesise(disc_sources(4, 2), replace(SMALL, least_pixels=32 * 32 + 1), generator())
    assert clips.num_objects.tolist() == [0] * 4
    assert int(clips.labels.max()) == 0


def test_images_without_objects_give_clips_without_objects():
    sources = disc_sources(2, 2)
    clips = synthesise(replace(sources, labels=torch.zeros_like(sources.labels)), SMALL, generator())
    assert clips.num_objects.tolist() == [0, 0]


def test_void_and_padding_belong_to_no_object():
    sources = disc_sources(3, 2)
    labels = sources.labels.clone()
    labels[labels == 0] = 255
    with_void = synthesise(replace(sources, labels=labels), replace(SMALL, whole_share=1.0), generator())
    without = synthesise(sources, replace(SMALL, whole_share=1.0), generator())
    assert torch.equal(with_void.labels, without.labels)


def test_the_background_is_mirrored_beyond_its_edge_and_its_padding_never_shows():
    images = torch.full((1, 1, 3, 40, 40), 255, dtype=torch.uint8)
    images[..., 24:] = 0  # padding at the right
    sources = Sources(images, torch.zeros(1, 1, 40, 40, dtype=torch.uint8), torch.tensor([[[40, 24]]]))
    clips = synthesise(sources, replace(SMALL, num_layers=0, view=(3.0, 3.1)), generator())
    assert float(clips.images.min()) > 0.999


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 3), frames=st.integers(2, 4), layers=st.integers(0, 2))
def test_clips_have_the_shapes_and_labels_they_promise(seed, count, frames, layers):
    wanted = replace(SMALL, num_frames=frames, num_layers=layers)
    clips = synthesise(disc_sources(count, 1 + layers), wanted, generator(seed))
    assert clips.images.shape == (frames, count, 3, 32, 32)
    assert float(clips.images.min()) >= 0
    assert float(clips.images.max()) <= 1
    for sample in range(count):
        objects = int(clips.num_objects[sample])
        assert set(clips.labels[:, sample].unique().tolist()) <= set(range(objects + 1))
        assert set(clips.labels[0, sample].unique().tolist()) >= set(range(1, objects + 1))
    again = synthesise(disc_sources(count, 1 + layers), wanted, generator(seed))
    assert torch.equal(clips.images, again.images)
    assert torch.equal(clips.labels, again.labels)


def test_a_thin_plate_goes_through_its_points_and_keeps_planes():
    axis = torch.linspace(-1.2, 1.2, 4, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    assert torch.allclose(thin_plate_basis(points), torch.eye(16, dtype=torch.float64), atol=1e-9)
    places = torch.rand(7, 2, dtype=torch.float64) - 0.5
    plane = 2 * points[:, 0] - points[:, 1] + 3
    assert torch.allclose(thin_plate_basis(places) @ plane, 2 * places[:, 0] - places[:, 1] + 3)


def test_paths_start_at_rest_and_their_warps_undo_what_they_say():
    paths = draw_paths(2, 4, Motion(), generator())
    for part in (paths.shift, paths.turn, paths.zoom, paths.shear, paths.tilt, paths.bend):
        assert float(part[:, 0].abs().max()) == 0
        assert float(part[:, 1:].abs().max()) > 0
    nothing = Paths(*(torch.zeros_like(part) for part in (paths.shift, paths.turn, paths.zoom, paths.shear, paths.tilt, paths.bend)))
    still = warped_grid(nothing, torch.zeros(2, 2), size=5)
    assert torch.allclose(still[0, 0, 2, 2], torch.zeros(2), atol=1e-6)
    assert torch.allclose(still[0, 0, 0, 0], torch.tensor([-0.8, -0.8]))
    moved = warped_grid(replace(nothing, shift=nothing.shift + torch.tensor([0.4, 0.0])), torch.zeros(2, 2), size=5)
    assert torch.allclose(moved[0, 0, 2, 3], torch.zeros(2), atol=1e-6)
    doubled = warped_grid(replace(nothing, zoom=nothing.zoom + torch.tensor(2.0).log()), torch.zeros(2, 2), size=5)
    assert torch.allclose(doubled, still / 2)


@pytest.mark.parametrize("calmest", [0.1, 1.0])
def test_liveliness_differs_between_clips_as_asked(calmest):
    paths = draw_paths(200, 3, Motion(calmest=calmest), generator())
    speed = paths.shift[:, -1].norm(dim=1)
    reference = draw_paths(200, 3, Motion(calmest=1.0), generator()).shift[:, -1].norm(dim=1)
    assert (float(speed.mean()) < 0.7 * float(reference.mean())) == (calmest < 1)
