"""Label files, overlay videos, and the thread that writes them."""

import errno
import shutil
import threading
import time
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from made_clips import HW, number_of, numbered_picture
from PIL import Image

from rotoscope.errors import InputError, MaskError, OutputError
from rotoscope.video.palette import palette_bytes
from rotoscope.video.read import open_clip
from rotoscope.video.write import OverlayVideo, ThreadedWriter, encode_labels, prepare_folder, write_labels

ON_LINUX = Path("/dev/full").exists()


def test_labels_are_indexed_png_with_the_davis_palette() -> None:
    ids = np.arange(256).reshape(16, 16)
    image = Image.open(BytesIO(encode_labels(ids)))
    assert image.mode == "P"
    assert bytes(image.getpalette() or ()) == palette_bytes()
    assert (np.asarray(image) == ids).all()
    assert encode_labels(torch.from_numpy(ids)) == encode_labels(ids.astype(np.uint8))


def test_ids_above_255_make_16_bit_gray() -> None:
    ids = np.array([[0, 256], [300, 65535]])
    image = Image.open(BytesIO(encode_labels(ids)))
    assert image.mode == "I;16"
    assert (np.asarray(image) == ids).all()


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8), np.array([[-1]]), np.array([[65536]])]
)
def test_what_is_no_label_map_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(MaskError, match=r"give integer object ids|holds ids from 0 to 65535"):
        encode_labels(labels)


def test_labels_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "00000.png"
    write_labels(path, np.ones((4, 4), np.uint8), durable=True)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"the disk is full.*what was written before is valid"):
        write_labels(path, np.zeros((4, 4), np.uint8))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_made_ready_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare_folder(tmp_path / "a" / "b").is_dir()
    assert prepare_folder(str(tmp_path / "a")) == tmp_path / "a"
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file is a file, not a folder; choose another output folder with -o"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="lies below a file"):
        prepare_folder(tmp_path / "file" / "below")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputError, match="is not writable"):
        prepare_folder(tmp_path)


@pytest.mark.parametrize(("codec", "name"), [("vp9", "overlay.webm"), ("h264", "overlay.mp4")])
def test_an_overlay_keeps_pictures_and_times(tmp_path: Path, codec: str, name: str) -> None:
    times = [0.5 + 0.04 * number + (0.3 if number > 4 else 0) for number in range(12)]
    with OverlayVideo(tmp_path / name, HW, 25, codec) as video:
        for number, time_seconds in enumerate(times):
            video.write(numbered_picture(number), time_seconds)
            assert not video.path.exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    clip = open_clip(tmp_path / name)
    frames = list(clip.frames())
    assert [number_of(frame) for frame in frames] == list(range(12))
    assert [frame.time_seconds for frame in frames] == pytest.approx([time_seconds - times[0] for time_seconds in times], abs=1e-3)
    assert frames[5].image.permute(1, 2, 0).numpy() == pytest.approx(numbered_picture(5), abs=40)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].codec_context.name in ("vp9", "h264")


def test_pictures_without_times_follow_the_rate(tmp_path: Path) -> None:
    for fps, expected in ((10.0, 0.1), (None, 1 / 24)):
        with OverlayVideo(tmp_path / "overlay.webm", HW, fps) as video:
            for number in range(4):
                video.write(numbered_picture(number))
        times = [frame.time_seconds for frame in open_clip(tmp_path / "overlay.webm").frames()]
        assert times == pytest.approx([expected * number for number in range(4)], abs=3e-3)


def test_times_that_stand_still_or_go_back_are_moved_on(tmp_path: Path) -> None:
    with OverlayVideo(tmp_path / "overlay.webm", HW, 25) as video:
        for time_seconds in (1.0, 1.0, 0.2, 1.5):
            video.write(numbered_picture(1), time_seconds)
    times = [frame.time_seconds for frame in open_clip(tmp_path / "overlay.webm").frames()]
    assert times == pytest.approx([0, 0.001, 0.002, 0.5])


def test_odd_sizes_are_kept_by_vp9_and_padded_for_h264(tmp_path: Path) -> None:
    for codec, name, expected in (("vp9", "a.webm", (47, 63)), ("h264", "a.mp4", (48, 64))):
        with OverlayVideo(tmp_path / name, (47, 63), 25, codec) as video:
            video.write(numbered_picture(9, (47, 63)))
        clip = open_clip(tmp_path / name)
        assert clip.hw == expected
        assert number_of(next(clip.frames())) == 9


@pytest.mark.parametrize(("codec", "name"), [("vp9", "overlay.webm"), ("h264", "overlay.mp4")])
def test_what_a_killed_run_wrote_is_playable(tmp_path: Path, codec: str, name: str) -> None:
    rng = np.random.default_rng(0)
    video = OverlayVideo(tmp_path / name, HW, 25, codec)
    for _ in range(130):
        video.write(rng.integers(0, 256, (*HW, 3)).astype(np.uint8))
    copy = tmp_path / f"copy{video.path.suffix}"
    shutil.copy(video.partial, copy)
    assert len(list(open_clip(copy).frames())) >= 50
    video.close()
    assert len(list(open_clip(video.path).frames())) == 130


def test_an_overlay_without_pictures_makes_no_file(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "overlay.webm", HW, 25)
    video.close()
    assert list(tmp_path.iterdir()) == []
    video = OverlayVideo(tmp_path / "overlay.webm", HW, 25)
    video.write(numbered_picture(1))
    video.close()
    video.close()
    assert [path.name for path in tmp_path.iterdir()] == ["overlay.webm"]


def test_wrong_use_of_an_overlay_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no overlay codec is called prores; choose from vp9, h264"):
        OverlayVideo(tmp_path / "overlay.mov", HW, 25, "prores")
    with pytest.raises(InputError, match=r"the picture is \[4, 5, 3\] but the video \[48, 64, 3\]"):
        OverlayVideo(tmp_path / "overlay.webm", HW, 25).write(np.zeros((4, 5, 3), np.uint8))

    def unknown(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(f"{name} {mode}")

    monkeypatch.setattr(av, "Codec", unknown)
    with pytest.raises(OutputError, match="cannot encode h264; choose another codec with --overlay"):
        OverlayVideo(tmp_path / "overlay.mp4", HW, 25, "h264")


@pytest.mark.skipif(not ON_LINUX, reason="needs /dev/full")
def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "overlay.partial.webm").symlink_to("/dev/full")
    video = OverlayVideo(tmp_path / "overlay.webm", HW, 25)

    def write_all() -> None:
        for number in range(60):
            video.write(numbered_picture(number))

    with pytest.raises(OutputError, match=r"the disk is full: .*overlay\.webm"):
        write_all()
    video.close()  # the failure was said
    assert not video.path.exists()


@pytest.mark.skipif(not ON_LINUX, reason="needs /dev/full")
def test_a_disk_that_is_full_only_at_the_end_is_said_too(tmp_path: Path) -> None:
    (tmp_path / "overlay.partial.mp4").symlink_to("/dev/full")
    video = OverlayVideo(tmp_path / "overlay.mp4", HW, 25, "h264")
    video.write(numbered_picture(0))  # the encoder holds it back
    with pytest.raises(OutputError, match="the disk is full"):
        video.close()


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    video = OverlayVideo(tmp_path / "missing" / "overlay.webm", HW, 25)
    with pytest.raises(OutputError, match="could not be written: No such file or directory"):
        video.write(numbered_picture(0))
    video.close()


def test_jobs_are_done_in_order_by_another_thread() -> None:
    done: list[tuple[int, str]] = []
    with ThreadedWriter(2) as writer:
        for number in range(20):
            writer.submit(lambda number=number: done.append((number, threading.current_thread().name)))
        writer.flush()
        assert len(done) == 20
    assert done == [(number, "rotoscope-write") for number in range(20)]
    assert "rotoscope-write" not in [thread.name for thread in threading.enumerate()]


def test_flushing_a_closed_writer_returns_and_submitting_to_it_is_our_bug() -> None:
    writer = ThreadedWriter()
    writer.submit(lambda: None)
    writer.close()
    writer.flush()
    with pytest.raises(AssertionError, match="would never be done"):
        writer.submit(lambda: None)


def test_submitting_waits_when_the_queue_is_full() -> None:
    gate = threading.Event()
    writer = ThreadedWriter(1)
    writer.submit(gate.wait)
    writer.submit(lambda: None)
    waiting = threading.Thread(target=writer.submit, args=(lambda: None,))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    gate.set()
    waiting.join()
    writer.close()
    with pytest.raises(InputError, match="holds nothing"):
        ThreadedWriter(0)


def failing(error: Exception) -> None:
    raise error


def test_the_first_failure_comes_back_and_later_jobs_are_dropped() -> None:
    done: list[int] = []
    writer = ThreadedWriter()
    writer.submit(lambda: failing(OSError(errno.ENOSPC, "No space left on device", "masks/00007.png")))
    writer.submit(lambda: done.append(1))
    with pytest.raises(OutputError, match=r"the disk is full: masks/00007\.png could not be written; what was written before is valid"):
        writer.flush()
    with pytest.raises(OutputError, match="the disk is full"):
        writer.submit(lambda: done.append(2))
    writer.close()
    writer.close()
    assert done == []


@pytest.mark.parametrize("error", [OutputError("the folder is gone"), ValueError("our bug"), OSError(errno.EIO, "Input/output error")])
def test_a_failure_nobody_has_seen_is_raised_at_the_end(error: Exception) -> None:
    writer = ThreadedWriter()
    writer.submit(lambda: failing(error))
    expected = OutputError if isinstance(error, OSError) else ValueError
    with pytest.raises(expected, match=str(error.args[-1])):
        writer.close()
    writer.close()
