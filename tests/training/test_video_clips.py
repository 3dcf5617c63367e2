from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rotoscope.datasets.clips import ClipSet, read_clips
from rotoscope.datasets.davis import AnnotatedClip
from rotoscope.errors import InputError
from rotoscope.training.clip_source import ClipSource
from rotoscope.training.image_bank import MEAN_COLOUR
from rotoscope.training.task import Draw
from rotoscope.training.video_clips import ClipSampling, VideoClips, drawn_frames, laid_over

HW = (48, 64)
SMALL = ClipSampling(num_frames=3, size=40, short_edge=48, least_reference_pixels=50, least_object_pixels=20, merge_share=0.0)
DRAW = Draw(step=3, part=0, size=4, seed=7)


def write_clip(
    root: Path, name: str, *, num_frames: int = 8, ids: tuple[int, ...] = (1, 2), late: int | None = None, hw: tuple[int, int] = HW
) -> AnnotatedClip:
    """Squares of 14 pixels of an own colour each, which move to the right; void in the first row; `late` is an id that is there from frame 4 on."""
    for index in range(num_frames):
        rgb, labels = np.full((*hw, 3), 60, np.uint8), np.zeros(hw, np.uint8)
        labels[0] = 255
        for place, object_id in enumerate(one for one in ids if one != late or index >= 4):
            where = (slice(5 + 20 * place, 19 + 20 * place), slice(10 + 2 * index, 24 + 2 * index))
            labels[where], rgb[where] = object_id, (40 * object_id % 256, 200, 10)
        for folder, picture in (("JPEGImages", rgb), ("Annotations", labels)):
            path = root / folder / name / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    paths = [tuple(sorted((root / folder / name).iterdir())) for folder in ("JPEGImages", "Annotations")]
    return AnnotatedClip(name, *paths, merged=False)


@pytest.fixture
def clip(tmp_path: Path) -> AnnotatedClip:
    return write_clip(tmp_path, "clip", ids=(3, 9))


def source_of(*clips: AnnotatedClip, sampling: ClipSampling = SMALL, max_gap: int = 3) -> VideoClips:
    return VideoClips([ClipSet("test", clips, max_gap)], sampling)


@settings(deadline=None, max_examples=200)
@given(num_frames=st.integers(1, 12), wanted=st.integers(2, 7), max_gap=st.integers(1, 20), seed=st.integers(0, 99))
def test_frames_lie_in_the_clip_and_are_never_too_far_apart(num_frames: int, wanted: int, max_gap: int, seed: int) -> None:
    drawn = drawn_frames(num_frames, wanted, max_gap, np.random.default_rng(seed))
    assert len(drawn) == wanted
    assert all(0 <= index < num_frames for index in drawn)
    assert all(abs(after - before) <= max_gap for before, after in pairwise(drawn))


def test_all_gaps_and_both_directions_are_drawn_equally_often() -> None:
    random = np.random.default_rng(0)
    steps = np.array([np.diff(drawn_frames(2000, 2, 4, random))[0] for _ in range(4000)])
    counts = np.array([(steps == step).sum() for step in (-4, -3, -2, -1, 1, 2, 3, 4)])
    assert counts.sum() >= 3990  # the ends of the clip turn a few round
    assert (abs(counts - 500) < 90).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), merge_share=st.sampled_from([0.0, 1.0]), size=st.sampled_from([24, 40, 70]))
def test_labels_are_numbered_without_gaps_and_seen_in_the_first_frame(tmp_path_factory, seed: int, merge_share: float, size: int) -> None:
    root = tmp_path_factory.mktemp("clips")
    clips = [write_clip(root, "a", num_frames=3, ids=(3, 9)), write_clip(root, "b", num_frames=3, ids=(200,))]
    sampling = ClipSampling(num_frames=3, size=size, short_edge=48, least_reference_pixels=50, least_object_pixels=20, merge_share=merge_share)
    batch = source_of(*clips, sampling=sampling).batch(Draw(0, 0, 2, seed))
    assert batch["images"].shape == (3, 2, 3, size, size)
    assert batch["labels"].shape == (3, 2, size, size)
    assert (batch["images"].dtype, batch["labels"].dtype, batch["num_objects"].dtype) == (torch.uint8, torch.uint8, torch.int64)
    for sample in range(2):
        count = int(batch["num_objects"][sample])
        first, every = (set(labels.unique().tolist()) - {0, 255} for labels in (batch["labels"][0, sample], batch["labels"][:, sample]))
        assert count >= 1
        assert first == set(range(1, count + 1))
        assert every <= first


def test_a_batch_is_a_function_of_its_draw_alone(clip: AnnotatedClip) -> None:
    again, batch = (source_of(clip).batch(DRAW) for _ in range(2))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    for other in (DRAW._replace(part=1), DRAW._replace(step=4), DRAW._replace(seed=8)):
        assert not torch.equal(source_of(clip).batch(other)["images"], batch["images"])
    assert not torch.equal(batch["images"][:, 0], batch["images"][:, 1])


def test_pictures_and_labels_stay_together(clip: AnnotatedClip) -> None:
    batch = source_of(clip, sampling=ClipSampling(3, 40, 48, (1.0, 1.0), least_object_pixels=20, merge_share=0.0)).batch(DRAW)
    images, labels = batch["images"].permute(0, 1, 3, 4, 2), batch["labels"]
    assert (images[(labels != 0) & (labels != 255)][:, 1] == 200).all()
    assert (images[labels == 0] == 60).all()
    assert (labels[:, :, 0] == 255).any()  # void of the first row is still void


def test_what_lies_beyond_the_picture_is_void_and_of_the_mean_colour(clip: AnnotatedClip) -> None:
    batch = source_of(clip, sampling=ClipSampling(3, 80, 48, (1.0, 1.0), least_object_pixels=20, merge_share=0.0)).batch(DRAW)
    beyond = batch["labels"] == 255
    padding = (batch["images"] == torch.tensor(MEAN_COLOUR)[:, None, None]).all(dim=2)
    assert padding.sum() == 3 * 4 * (80 * 80 - 48 * 64)
    assert beyond[padding].all()


def test_clips_are_flipped_half_the_time(tmp_path: Path) -> None:
    left = write_clip(tmp_path, "left", num_frames=1, ids=(5,))
    sampling = ClipSampling(2, 64, 48, (1.0, 1.0), least_reference_pixels=50, least_object_pixels=20, merge_share=0.0)
    labels = source_of(left, sampling=sampling).batch(Draw(0, 0, 60, 0))["labels"][0]
    columns = torch.stack([(one == 1).any(dim=0) for one in labels])
    assert 15 < columns[:, :32].sum(dim=1).gt(7).sum() < 45


def test_an_object_that_comes_later_is_background(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "late", ids=(1, 2), late=2)
    sampling = ClipSampling(8, 64, 48, (1.0, 1.0), least_reference_pixels=50, least_object_pixels=20, frame_tries=0, merge_share=0.0)
    batch = source_of(clip, sampling=sampling).batch(Draw(0, 0, 30, 1))
    colour_of_the_late_one = (batch["images"][:, :, 0] == 80) & (batch["images"][:, :, 1] == 200)
    followed = batch["num_objects"] == 2
    assert 0 < followed.sum() < 30
    assert (batch["labels"][:, ~followed][colour_of_the_late_one[:, ~followed]] == 0).all()
    assert colour_of_the_late_one[:, ~followed].any()


def test_frames_are_drawn_again_until_all_objects_are_in_the_first(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "late", ids=(1, 2), late=2)
    twos = {}
    for tries in (0, 5):
        sampling = ClipSampling(3, 64, 48, (1.0, 1.0), least_reference_pixels=50, least_object_pixels=20, frame_tries=tries, merge_share=0.0)
        batch = source_of(clip, sampling=sampling).batch(Draw(0, 0, 80, 1))
        shown = ((batch["images"][:, :, 0] == 80) & (batch["images"][:, :, 1] == 200)).flatten(2).any(dim=2).any(dim=0)
        twos[tries] = int((shown & (batch["num_objects"] == 1)).sum())  # an object that is seen but not followed
    assert twos[5] < twos[0]


def test_merging_lays_the_objects_of_a_second_clip_over_the_first(tmp_path: Path) -> None:
    first = np.zeros((1, 4, 4), np.uint8), np.array([[[0, 1, 2, 255]] * 4], np.uint8)
    second = np.full((1, 4, 4), 9, np.uint8), np.array([[[1, 0, 255, 3]] * 4], np.uint8)
    images, labels = laid_over((first[0][..., None].repeat(3, 3), first[1]), (second[0][..., None].repeat(3, 3), second[1]))
    assert labels[0, 0].tolist() == [3, 1, 2, 5]
    assert images[0, 0, :, 0].tolist() == [9, 0, 0, 9]
    clips = [write_clip(tmp_path, name, ids=ids) for name, ids in (("a", (1, 2)), ("b", (3, 4)))]
    alone, together = (
        source_of(*clips, sampling=ClipSampling(3, 64, 48, least_object_pixels=20, merge_share=share)).batch(Draw(0, 0, 30, 2))["num_objects"]
        for share in (0.0, 1.0)
    )
    assert int(alone.max()) == 2
    assert int(together.max()) > 2


def test_at_most_so_many_objects_are_kept(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "many", ids=(1, 2, 3, 4, 5, 6), hw=(128, 64))
    sampling = ClipSampling(3, 128, 64, (1.0, 1.0), max_objects=4, merge_share=1.0)
    batch = source_of(clip, sampling=sampling).batch(Draw(0, 0, 6, 0))
    assert batch["num_objects"].tolist() == [4] * 6
    colours = {tuple(sorted(set(image[0][labels > 0].tolist()) - {60})) for image, labels in zip(batch["images"][0], batch["labels"][0], strict=True)}
    assert len(colours) > 1  # which ones is drawn


def test_the_largest_gap_follows_the_curriculum() -> None:
    sampling = ClipSampling(gap_stages=((0, 0.1), (100, 0.5), (200, 1.0)))
    assert [sampling.gap_at(step, 12) for step in (0, 99, 100, 199, 200, 10**6)] == [1, 1, 6, 6, 12, 12]
    assert sampling.gap_at(0, 1) == 1


def test_the_step_of_a_draw_sets_the_gap(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "long", num_frames=20, ids=(1,), hw=(48, 96))
    sampling = ClipSampling(
        2, 96, 48, (1.0, 1.0), gap_stages=((0, 0.0), (10, 1.0)), least_reference_pixels=50, least_object_pixels=20, merge_share=0.0
    )
    moved = {}
    for step in (0, 10):
        labels = source_of(clip, sampling=sampling, max_gap=9).batch(Draw(step, 0, 12, 0))["labels"] == 1
        left = labels.any(dim=2).int().argmax(dim=2)
        moved[step] = (left[1] - left[0]).abs()
    assert (moved[0] == 2).all()  # two pixels a frame
    assert moved[10].max() > 6


def test_sets_are_drawn_as_often_as_they_repeat(tmp_path: Path) -> None:
    often, seldom = (write_clip(tmp_path, name, ids=ids, num_frames=2) for name, ids in (("often", (1,)), ("seldom", (2,))))
    sets = [ClipSet("a", (often,), 1, repeats=5), ClipSet("b", (seldom,), 1)]
    batch = VideoClips(sets, SMALL).batch(Draw(0, 0, 60, 0))
    reds = torch.stack([image[0][labels == 1].median() for image, labels in zip(batch["images"][0], batch["labels"][0], strict=True)])
    assert 40 <= (reds == 40).sum() <= 57


def test_it_is_a_source_of_clips(clip: AnnotatedClip) -> None:
    source = source_of(clip)
    assert isinstance(source, ClipSource)
    assert str(source) == "1 clips with 8 annotated frames (test)"
    batch = source.batch(DRAW)
    clips, generator = source.clips(batch)
    assert clips.images.max() <= 1
    assert torch.equal((clips.images * 255).round().to(torch.uint8), batch["images"])
    assert torch.equal(clips.labels, batch["labels"].long())
    assert generator.initial_seed() == int(batch["seed"])


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def resize(path: Path) -> None:
    Image.new("RGB", (10, 10)).save(path)


@pytest.mark.parametrize(("folder", "fault"), [("JPEGImages", damage), ("Annotations", damage), ("JPEGImages", resize)])
def test_a_damaged_frame_is_left_out_and_counted(folder: str, fault, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = write_clip(tmp_path, "bad", num_frames=8)
    fault(tmp_path / folder / "bad" / "00002.png")
    good = write_clip(tmp_path, "good", num_frames=4)
    good = AnnotatedClip("good", good.frame_paths * 30, good.annotation_paths * 30, merged=False)  # so that one frame is less than 1 %
    source, again = source_of(bad, good), source_of(bad, good)
    batch = source.batch(Draw(0, 0, 24, 0))
    assert [Path(name).name for name in source.damaged] == ["00002.png"]
    assert caplog.text.count("frame left out (1 of 128 so far)") == 1
    assert torch.equal(again.batch(Draw(0, 0, 24, 0))["images"], batch["images"])
    with pytest.raises(InputError, match=r"1 of 8 frames are damaged, more than 1%: .*00002.png.*Replace them, or remove their clips"):
        source_of(bad).batch(Draw(0, 0, 24, 0))


def test_no_object_left_after_cropping_is_a_clear_error(clip: AnnotatedClip) -> None:
    tiny = ClipSampling(3, 40, 48, least_reference_pixels=50, least_object_pixels=300, merge_share=0.0)
    with pytest.raises(
        InputError, match=r"no object was left in 20 clips .*clip 'clip', frame 0000\d.png.*more than 300 pixels in the crop of 40x40"
    ):
        source_of(clip, sampling=tiny).batch(DRAW)
    bare = ClipSampling(3, 40, 48, least_reference_pixels=5000)
    with pytest.raises(InputError, match="no frame drawn has more than 5000 pixels of objects"):
        source_of(clip, sampling=bare).batch(DRAW)


def test_masks_of_one_object_may_be_0_and_255(tmp_path: Path) -> None:
    write_clip(tmp_path, "one", ids=(255,))
    found = read_clips(tmp_path)
    assert found[0].clips[0].merged
    batch = VideoClips(found, SMALL).batch(DRAW)
    assert batch["num_objects"].tolist() == [1] * 4


@pytest.mark.parametrize(
    "wrong", [{"num_frames": 1}, {"size": 0}, {"scale": (1.3, 0.7)}, {"gap_stages": ()}, {"gap_stages": ((5, 1.0),)}, {"gap_stages": ((0, 2.0),)}]
)
def test_settings_that_make_no_clip_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"cannot be drawn|must start at step 0"):
        ClipSampling(**wrong)


def test_a_source_needs_clips() -> None:
    with pytest.raises(InputError, match="there is no clip to train on"):
        VideoClips([])
