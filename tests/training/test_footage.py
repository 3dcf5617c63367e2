from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rotoscope.datasets.clips import read_footage
from rotoscope.errors import InputError
from rotoscope.memory import FrameMemory, MemorySchedule
from rotoscope.models.mast import REFERENCE_MODES
from rotoscope.models.mast.propagator import FULL_MEMORY
from rotoscope.training.footage import FootageFrames, MemorySource, PairSource, references_of
from rotoscope.training.task import Draw

DRAW = Draw(step=1, part=0, size=6, seed=2)


def write_frames(folder: Path, count: int) -> None:
    """Frames whose grey level is twice their number."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (12, 10), (2 * index,) * 3).save(folder / f"{index:05d}.png")


def write_video(path: Path, count: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for index in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 + 10 * index, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def frames(tmp_path: Path) -> FootageFrames:
    for name, count in (("a", 30), ("b", 12), ("c", 3)):
        write_frames(tmp_path / name, count)
    return FootageFrames(read_footage(tmp_path), size=8)


def test_frames_come_resized_and_in_the_order_of_time(frames: FootageFrames) -> None:
    assert frames.lengths.tolist() == [30, 12, 3]
    images = PairSource(frames).batch(DRAW)["images"]
    assert images.shape == (2, 6, 3, 8, 8)
    assert images.dtype == torch.uint8
    gaps = (images[1].int() - images[0].int())[:, 0, 0, 0] // 2
    assert set(gaps.tolist()) <= {2, 5, 8}


def test_a_batch_of_frames_is_a_function_of_its_draw_alone(frames: FootageFrames) -> None:
    for source in (PairSource(frames), MemorySource(frames, FULL_MEMORY)):
        batch, again, other = source.batch(DRAW), source.batch(DRAW), source.batch(DRAW._replace(part=1))
        assert torch.equal(batch["images"], again["images"])
        assert batch["images"].shape != other["images"].shape or not torch.equal(batch["images"], other["images"])


def test_pairs_are_distributed_as_in_an_official_epoch(frames: FootageFrames) -> None:
    """Of each clip and interval as many pairs as fit without overlap, times the interval's odds."""
    source, random = PairSource(frames), np.random.default_rng(0)
    drawn = [source.drawn(random) for _ in range(6000)]
    expected = {(0, 2): 0.4 * 7, (0, 5): 0.4 * 3, (0, 8): 0.2 * 2, (1, 2): 0.4 * 3, (1, 5): 0.4 * 1, (1, 8): 0.2 * 1, (2, 2): 0.4 * 1}
    total = sum(expected.values())
    for (clip, gap), weight in expected.items():
        share = np.mean([one == clip and later - earlier == gap for one, (earlier, later) in drawn])
        assert share == pytest.approx(weight / total, abs=0.025)
    starts = {earlier for clip, (earlier, later) in drawn if clip == 1 and later - earlier == 5}
    assert starts == set(range(7))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), lengths=st.lists(st.integers(2, 60), min_size=1, max_size=4))
def test_memories_lie_inside_their_clips(seed: int, lengths: list[int]) -> None:
    frames = object.__new__(FootageFrames)
    frames.lengths = np.asarray(lengths)
    source = MemorySource(frames, FULL_MEMORY)
    random = np.random.default_rng(seed)
    target = int(random.integers(source._shortest, source._longest + 1))
    steps = (*references_of(FULL_MEMORY, target), target)
    clip, indices = source._drawn(steps, random)
    assert min(indices) >= 0
    assert max(indices) < lengths[clip]
    assert [index - indices[0] for index in indices] == list(steps)


@settings(deadline=None, max_examples=30)
@given(target=st.integers(1, 40), mode=st.sampled_from(REFERENCE_MODES))
def test_references_are_those_that_a_memory_gives(target: int, mode: MemorySchedule) -> None:
    memory: FrameMemory[int] = FrameMemory(mode, lambda _: 0)
    for step in range(target):
        memory.add(step, step, given=step == 0)
    assert references_of(mode, target) == [step for step, _ in memory.references(target)]


def test_a_memory_has_the_gaps_of_its_frames(frames: FootageFrames) -> None:
    seen = set()
    for step in range(12):
        batch = MemorySource(frames, FULL_MEMORY, longest=20).batch(DRAW._replace(step=step))
        levels = batch["images"][:, :, 0, 0, 0].int() // 2
        assert torch.equal(levels[-1] - levels[:-1], batch["gaps"].int()[:, None].expand(-1, DRAW.size))
        seen.add(int(batch["gaps"].max()))
    assert min(seen) >= 6  # from there on all five references are there
    assert max(seen) <= 20
    assert len(seen) > 4


def test_short_clips_give_what_memory_they_have(tmp_path: Path) -> None:
    write_frames(tmp_path / "short", 3)
    batch = MemorySource(FootageFrames(read_footage(tmp_path), size=8), FULL_MEMORY).batch(DRAW)
    assert batch["gaps"].tolist() == [2, 1]


def test_videos_are_read_at_any_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "walk.mp4", 10)
    frames = FootageFrames(read_footage(tmp_path), size=16)
    images = PairSource(frames, intervals=(3,), odds=(1.0,)).batch(DRAW)["images"].float().mean(dim=(2, 3, 4))
    assert torch.allclose(images[1] - images[0], torch.full((6,), 30.0), atol=3)


def test_clips_that_are_too_short_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 2)
    frames = FootageFrames(read_footage(tmp_path), size=8)
    with pytest.raises(InputError, match="no clip is longer than 2 frames"):
        PairSource(frames)
    with pytest.raises(InputError, match="no clip has two frames"):
        MemorySource(FootageFrames([], size=8), FULL_MEMORY)


def test_a_frame_that_cannot_be_read_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_frames(tmp_path / "a", 101)
    (tmp_path / "a" / "00050.png").write_bytes(b"broken")
    frames = FootageFrames(read_footage(tmp_path), size=8)
    for step in range(12):
        PairSource(frames).batch(DRAW._replace(step=step, size=20))
    assert frames.damaged == ("a frame 50",)
    assert caplog.text.count("frame left out (1 of 101 so far)") == 1
    for index in range(101):
        (tmp_path / "a" / f"{index:05d}.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"2 of 101 frames are damaged, more than 1%"):
        PairSource(frames).batch(DRAW)


def test_a_clip_of_damaged_frames_alone_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "a", 5)
    frames = FootageFrames(read_footage(tmp_path), size=8)
    monkeypatch.setattr("rotoscope.training.damage.MAX_DAMAGED_SHARE", 1.0)
    for index in range(5):
        (tmp_path / "a" / f"{index:05d}.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"20 samples drawn one after the other .*00000|0000\d"):
        PairSource(frames).batch(DRAW)
