import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rotoscope.errors import InputError, OutputError
from rotoscope.jobs import work
from rotoscope.jobs.work import TrackRequest, TrackRun


def request(clip_folder: Path, first_mask: Path, output: Path, **changes) -> TrackRequest:
    return TrackRequest(**{"video": str(clip_folder), "masks": {0: first_mask}, "output": output, **changes})


def masks_of(output: Path) -> dict[str, bytes]:
    return {path.name: np.asarray(Image.open(path)).tobytes() for path in sorted((output / "masks" / "clip").glob("*.png"))}


def summary_of(output: Path) -> dict:
    return json.loads((output / "summary.json").read_text())


def stop_after(run: TrackRun, count: int) -> None:
    records = run.records()
    for _ in range(count):
        next(records)
    records.close()


def test_a_run_writes_masks_overlay_and_summary(smear, clip_folder: Path, first_mask: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run = TrackRun(request(clip_folder, first_mask, output))
    records = list(run.records())
    assert run.total_frames == len(records) == 12
    assert list(masks_of(output)) == [f"{index:05d}.png" for index in range(12)]
    assert (output / "overlay.webm").stat().st_size > 0
    summary = summary_of(output)
    assert summary["complete"]
    assert summary["num_frames"] == 12
    assert summary["object_ids"] == [1, 4]
    assert summary["frames"][0]["objects"]["1"]["area_pixels"] == 48
    assert not list(output.rglob("*.partial*"))


@pytest.mark.parametrize("given_frame", [0, 5])
@pytest.mark.parametrize("count", [1, 4, 8])
def test_a_stopped_run_resumes_to_the_same_masks(smear, clip_folder, first_mask, tmp_path, given_frame: int, count: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    masks = {given_frame: first_mask}
    list(TrackRun(request(clip_folder, first_mask, whole, masks=masks)).records())
    stop_after(TrackRun(request(clip_folder, first_mask, parts, masks=masks)), count)
    assert not summary_of(parts)["complete"]
    assert len(masks_of(parts)) >= count
    rest = list(TrackRun(request(clip_folder, first_mask, parts, masks=masks, existing="resume")).records())
    assert len(rest) == 12 - count
    assert masks_of(parts) == masks_of(whole)
    assert summary_of(parts)["frames"] == summary_of(whole)["frames"]
    assert summary_of(parts)["complete"]


def test_resuming_a_finished_run_does_nothing(smear, clip_folder, first_mask, tmp_path) -> None:
    output = tmp_path / "out"
    list(TrackRun(request(clip_folder, first_mask, output)).records())
    before = masks_of(output)
    assert list(TrackRun(request(clip_folder, first_mask, output, existing="resume")).records()) == []
    assert masks_of(output) == before


def test_a_run_killed_without_warning_resumes_from_its_last_save(smear, clip_folder, first_mask, tmp_path, monkeypatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(TrackRun(request(clip_folder, first_mask, whole)).records())
    monkeypatch.setattr(work, "SAVE_EVERY_SECONDS", 0.0)
    records = TrackRun(request(clip_folder, first_mask, parts)).records()
    for _ in range(7):
        next(records)
    snapshot = (parts / ".rotoscope" / "state.safetensors").read_bytes()
    records.close()
    (parts / ".rotoscope" / "state.safetensors").write_bytes(snapshot)  # as if the close had never happened
    with (parts / ".rotoscope" / "records.jsonl").open("a") as file:
        file.write('{"frame_index": 9, "cut sh')  # a line that was being written
    list(TrackRun(request(clip_folder, first_mask, parts, existing="resume")).records())
    assert masks_of(parts) == masks_of(whole)
    assert summary_of(parts)["frames"] == summary_of(whole)["frames"]


def test_a_folder_with_a_run_is_not_overwritten_unasked(smear, clip_folder, first_mask, tmp_path) -> None:
    output = tmp_path / "out"
    list(TrackRun(request(clip_folder, first_mask, output)).records())
    with pytest.raises(OutputError, match=r"holds a run already; use --resume"):
        list(TrackRun(request(clip_folder, first_mask, output)).records())
    assert len(list(TrackRun(request(clip_folder, first_mask, output, existing="overwrite")).records())) == 12


def test_masks_that_no_run_made_are_left_alone_unless_told_otherwise(smear, clip_folder, first_mask, tmp_path) -> None:
    output = tmp_path / "out"
    mine = output / "masks" / clip_folder.name / "00003.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(first_mask.read_bytes())
    for existing in ("refuse", "resume"):
        with pytest.raises(OutputError, match=r"holds masks of another origin, such as 00003\.png; remove them with --overwrite"):
            list(TrackRun(request(clip_folder, first_mask, output, existing=existing)).records())
    assert mine.read_bytes() == first_mask.read_bytes()
    list(TrackRun(request(clip_folder, first_mask, output, existing="overwrite")).records())
    assert len(masks_of(output)) == 12


def test_a_run_with_other_settings_is_not_resumed(smear, clip_folder, first_mask, tmp_path) -> None:
    output = tmp_path / "out"
    stop_after(TrackRun(request(clip_folder, first_mask, output)), 2)
    with pytest.raises(InputError, match=r"overlay was 'vp9', is 'none'"):
        list(TrackRun(request(clip_folder, first_mask, output, overlay="none", existing="resume")).records())


def test_two_runs_on_one_folder_are_refused(smear, clip_folder, first_mask, tmp_path) -> None:
    output = tmp_path / "out"
    first = TrackRun(request(clip_folder, first_mask, output)).records()
    next(first)
    with pytest.raises(OutputError, match="another run is writing"):
        list(TrackRun(request(clip_folder, first_mask, output, existing="resume")).records())
    first.close()


def test_an_output_that_is_a_file_is_refused(smear, clip_folder, first_mask, tmp_path) -> None:
    with pytest.raises(OutputError, match=r"first\.png"):
        list(TrackRun(request(clip_folder, first_mask, first_mask)).records())


def test_a_full_disk_keeps_what_was_written_and_can_be_resumed(smear, clip_folder, first_mask, tmp_path, monkeypatch) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    list(TrackRun(request(clip_folder, first_mask, whole)).records())
    real = work.write_labels

    def failing(path: Path, labels: np.ndarray) -> None:
        if path.name == "00005.png":
            raise OutputError(errno.ENOSPC, "the disk is full")
        real(path, labels)

    monkeypatch.setattr(work, "write_labels", failing)
    with pytest.raises(OutputError, match="disk is full"):
        list(TrackRun(request(clip_folder, first_mask, output)).records())
    assert masks_of(output) == {name: content for name, content in masks_of(whole).items() if name < "00005.png"}
    monkeypatch.setattr(work, "write_labels", real)
    list(TrackRun(request(clip_folder, first_mask, output, existing="resume")).records())
    assert masks_of(output) == masks_of(whole)


def test_a_backward_run_draws_its_overlay_in_clip_order(smear, clip_folder, first_mask, tmp_path) -> None:
    output = tmp_path / "out"
    records = list(TrackRun(request(clip_folder, first_mask, output, masks={6: first_mask}, direction="backward")).records())
    assert [record.frame_index for record in records] == [6, 5, 4, 3, 2, 1, 0]
    assert (output / "overlay.webm").stat().st_size > 0


def test_a_damaged_state_says_so(smear, clip_folder, first_mask, tmp_path) -> None:
    output = tmp_path / "out"
    stop_after(TrackRun(request(clip_folder, first_mask, output)), 2)
    (output / ".rotoscope" / "state.safetensors").write_bytes(b"damaged")
    with pytest.raises(OutputError, match="is damaged"):
        list(TrackRun(request(clip_folder, first_mask, output, existing="resume")).records())
