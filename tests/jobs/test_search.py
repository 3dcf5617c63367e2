"""Searches as runs: written, stopped, resumed, and as a generator."""

import json
from pathlib import Path

import numpy as np
import pytest
from looking import ColourTracker, LabelDetector, load_stand_ins, moving, painted, write_painted
from PIL import Image

import rotoscope
from rotoscope.errors import InputError
from rotoscope.jobs import work
from rotoscope.jobs.discover import SearchRequest, discover
from rotoscope.jobs.work import TrackRequest, TrackRun
from rotoscope.tracking.matching import DiscoveryRules

NUM_FRAMES = 30
TRACKS = [
    [
        one or other
        for one, other in zip(moving((4, 6, 18, 20), 30, within=range(6)), moving((36, 26, 50, 40), 30, within=range(26, 30)), strict=True)
    ],
    moving((20, 4, 34, 18), 30),
    moving((4, 26, 16, 40), 30, within=range(10, 30)),
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Object 1 leaves and comes back, 2 stays, 3 comes late."""
    return write_painted(tmp_path_factory.mktemp("painted") / "clip", TRACKS)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> LabelDetector:
    return load_stand_ins(monkeypatch, TRACKS)


def request(clip: Path, output: Path, **changes) -> TrackRequest:
    search = SearchRequest(**{"detector": "mast-lite", "rules": DiscoveryRules(every=3), **changes.pop("search", {})})
    return TrackRequest(**{"video": str(clip), "masks": {}, "output": output, "search": search, "overlay": "none", **changes})


def masks_of(output: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted((output / "masks" / "clip").glob("*.png"))}


def summary_of(output: Path) -> dict:
    summary = json.loads((output / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key not in ("seconds", "fps")}


def stop_after(run: TrackRun, count: int) -> None:
    records = run.records()
    for _ in range(count):
        next(records)
    records.close()


def test_a_run_with_nothing_given_writes_masks_and_says_who_was_found(detector, clip, tmp_path) -> None:
    run = TrackRun(request(clip, tmp_path / "out", overlay="vp9"))
    assert run.total_frames == len(list(run.records())) == NUM_FRAMES
    summary = summary_of(tmp_path / "out")
    assert summary["object_ids"] == [1, 2, 3]
    assert summary["classes"] == list(LabelDetector.class_names)
    assert [one["class"] for one in summary["objects"]] == ["ball", "box", "cone"]
    assert [(one["first_frame"], one["last_frame"], one["num_frames"]) for one in summary["objects"]] == [(0, 29, 9), (0, 29, 30), (12, 29, 18)]
    assert summary["objects"][0] | {"num_frames": 0} == {
        "id": 1, "class": "ball", "class_id": 0, "score": 0.9, "given": False, "first_frame": 0, "last_frame": 29, "num_frames": 0
    }  # fmt: skip
    assert summary["warnings"] == []
    assert (tmp_path / "out" / "overlay.webm").stat().st_size > 0
    truth = painted(TRACKS)[1].numpy()
    stored = masks_of(tmp_path / "out")
    assert all(np.array_equal(stored[f"{index:05d}.png"], truth[index]) for index in (0, 5, 9, 15, 29))


@pytest.mark.parametrize("count", [1, 4, 11, 27])
def test_a_stopped_search_resumes_to_the_same_masks_and_objects(detector, clip, tmp_path, count: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(TrackRun(request(clip, whole)).records())
    stop_after(TrackRun(request(clip, parts)), count)
    assert not summary_of(parts)["complete"]
    assert len(list(TrackRun(request(clip, parts, existing="resume")).records())) == NUM_FRAMES - count
    assert summary_of(parts) == summary_of(whole)
    assert all(np.array_equal(one, masks_of(whole)[name]) for name, one in masks_of(parts).items())


def test_a_search_killed_without_warning_resumes_from_its_last_save(detector, clip, tmp_path, monkeypatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(TrackRun(request(clip, whole)).records())
    monkeypatch.setattr(work, "SAVE_EVERY_SECONDS", 0.0)
    records = TrackRun(request(clip, parts)).records()
    for _ in range(13):
        next(records)
    snapshot = (parts / ".rotoscope" / "state.safetensors").read_bytes()
    records.close()
    (parts / ".rotoscope" / "state.safetensors").write_bytes(snapshot)  # as if the close had never happened
    list(TrackRun(request(clip, parts, existing="resume")).records())
    assert summary_of(parts) == summary_of(whole)


@pytest.fixture
def middle_mask(tmp_path: Path) -> Path:
    """Object 5 is what is 2 in the truth, given in frame 14."""
    path = tmp_path / "middle.png"
    Image.fromarray((5 * (painted(TRACKS)[1][14].numpy() == 2)).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("count", [0, 6, 13, 14, 15, 20])
def test_a_mask_in_the_middle_is_carried_both_ways_among_those_who_are_found(detector, clip, tmp_path, middle_mask, count: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run = TrackRun(request(clip, whole, masks={14: middle_mask}))
    assert len(list(run.records())) == run.total_frames == NUM_FRAMES
    truth, stored = painted(TRACKS)[1].numpy(), masks_of(whole)
    assert {int(one) for one in np.unique(stored["00014.png"])} == {0, 5, 6}
    assert np.array_equal(stored["00002.png"], np.choose(truth[2], (0, 7, 5, 6)))
    assert np.array_equal(stored["00029.png"], np.choose(truth[29], (0, 7, 5, 6)))
    if count:
        stop_after(TrackRun(request(clip, parts, masks={14: middle_mask})), count)
        stop_after(TrackRun(request(clip, parts, masks={14: middle_mask}, existing="resume")), 1)
        list(TrackRun(request(clip, parts, masks={14: middle_mask}, existing="resume")).records())
        assert summary_of(parts) == summary_of(whole)
        assert all(np.array_equal(one, stored[name]) for name, one in masks_of(parts).items())


def test_a_search_may_go_backwards(detector, clip, tmp_path) -> None:
    list(TrackRun(request(clip, tmp_path / "out", direction="backward", overlay="vp9")).records())
    assert [one["num_frames"] for one in summary_of(tmp_path / "out")["objects"]] == [10, 30, 20]
    assert (tmp_path / "out" / "overlay.webm").stat().st_size > 0


def test_a_search_with_other_rules_is_not_resumed(detector, clip, tmp_path) -> None:
    stop_after(TrackRun(request(clip, tmp_path / "out")), 2)
    with pytest.raises(InputError, match="every was 3, is 5"):
        list(TrackRun(request(clip, tmp_path / "out", existing="resume", search={"rules": DiscoveryRules(every=5)})).records())
    with pytest.raises(InputError, match=r"classes was \[\], is \['ball'\]"):
        list(TrackRun(request(clip, tmp_path / "out", existing="resume", search={"classes": ("ball",)})).records())


def test_nothing_to_find_is_a_whole_run_with_a_warning(detector, clip, tmp_path) -> None:
    detector.labels = detector.labels * 0
    list(TrackRun(request(clip, tmp_path / "out", overlay="vp9", youtube_vis=tmp_path / "tracks.json")).records())
    summary = summary_of(tmp_path / "out")
    assert summary["complete"]
    assert summary["num_frames"] == NUM_FRAMES
    assert summary["objects"] == summary["object_ids"] == []
    assert "no object was found" in summary["warnings"][0]
    assert not any(one.any() for one in masks_of(tmp_path / "out").values())
    assert json.loads((tmp_path / "tracks.json").read_text())["annotations"] == []


def test_tracks_are_written_when_the_run_is_finished_even_if_they_are_asked_for_later(detector, clip, tmp_path) -> None:
    first, later = tmp_path / "first.json", tmp_path / "later.json"
    stop_after(TrackRun(request(clip, tmp_path / "out", youtube_vis=first)), 5)
    assert not first.exists()
    list(TrackRun(request(clip, tmp_path / "out", youtube_vis=first, existing="resume")).records())
    list(TrackRun(request(clip, tmp_path / "out", youtube_vis=later, existing="resume")).records())
    assert first.read_bytes() == later.read_bytes()
    tracks = json.loads(first.read_text())["annotations"]
    assert [(one["id"], one["category_id"], one["score"]) for one in tracks] == [(1, 1, 0.9), (2, 2, 0.9), (3, 3, 0.9)]
    assert [one is not None for one in tracks[0]["segmentations"]] == [index < 6 or index >= 27 for index in range(NUM_FRAMES)]


def test_the_generator_gives_frames_masks_and_objects(detector) -> None:
    frames, truth = painted(TRACKS)
    video = np.stack([frame.image.permute(1, 2, 0).numpy() for frame in frames])
    results = list(rotoscope.discover(video, every=3))
    assert [result.frame.index for result in results] == list(range(NUM_FRAMES))
    assert [one.class_name for one in results[-1].objects] == ["ball", "box", "cone"]
    assert np.array_equal(results[29].masks.labels(), truth[29])
    only = list(discover(video, detector=detector, model=ColourTracker(), classes=["BOX"], frames=slice(2, 5)))
    assert [result.frame.index for result in only] == [2, 3, 4]
    assert [one.class_name for one in only[0].objects] == ["box"]


def test_the_generator_takes_masks_too_and_goes_both_ways(detector) -> None:
    frames, truth = painted(TRACKS)
    video = np.stack([frame.image.permute(1, 2, 0).numpy() for frame in frames])
    middle = np.where(truth[14] == 2, 5, 0).astype(np.uint8)
    results = list(discover(video, masks={14: middle}, every=3))
    assert [result.frame.index for result in results] == [*range(13, -1, -1), *range(14, 30)]
    assert results[13].masks.object_ids == (5, 6, 7)
    first = list(discover(video, masks=np.where(truth[0] == 2, 5, 0).astype(np.uint8), frames=slice(0, 2)))
    assert [(one.object_id, one.is_given) for one in first[0].objects] == [(5, True), (6, False)]


def test_faults_are_reported_before_the_first_frame_is_asked_for(detector) -> None:
    video = np.zeros((3, 24, 32, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="no class 'sofa'; its classes are ball, box, cone, disc"):
        discover(video, classes=["sofa"])
    with pytest.raises(InputError, match="there is no rule evry; rules: every, min_score"):
        discover(video, evry=5)
    with pytest.raises(InputError, match="frame 9"):
        discover(video, masks={9: np.ones((24, 32), dtype=np.uint8)})
