import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clip_fixtures import SmearTracker
from davis_roots import SQUARE, labels_of, write_root
from interactive_play import GOLDEN_RULES, HW, NUM_FRAMES, BoxMaker, golden_samples, learnt, moving_clips, moving_frames, rounded
from PIL import Image
from rich.console import Console

from rotoscope.datasets.davis import AnnotatedClip, read_davis
from rotoscope.datasets.davis_scribbles import DavisScribbles, Line, read_scribbles, write_scribbles
from rotoscope.errors import InputError, OutputError
from rotoscope.evaluation.davis_interactive import DrivenSession, Rules, Sample, Start, find_starts, play, read_truth
from rotoscope.evaluation.interactive_report import area, as_dict, curve_of, notes, table, value_at, write_plot, write_report
from rotoscope.tracking.interactive import InteractiveSession
from rotoscope.types import Masks, Scribble
from rotoscope.video.read import read_video

GOLDEN = Path(__file__).parent / "golden_interactive.json"
LINE = Line(2, 1, ((0.2, 0.2), (0.3, 0.3)))


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return find_starts(moving_clips(tmp_path), None)[0]


def test_a_perfect_session_scores_1_in_the_first_round_and_is_left_alone_then(start: Start) -> None:
    sample, session = learnt(start, Rules())
    assert [(one.j, one.f) for one in sample.rounds] == [((1, 1), (1, 1))]
    assert session.asked == [(start.lines[0].frame_index, len(start.lines), True)]
    assert session.is_closed
    said = as_dict([sample], Rules())
    assert said["auc"] == said["at_60s"] == {"j": 1, "f": 1, "j_and_f": 1}
    assert not sample.timed_out


def test_each_round_is_about_the_worst_frame_and_none_gets_worse(start: Start) -> None:
    sample, session = learnt(replace(start, lines=(replace(LINE, frame_index=0),)), Rules(interactions=NUM_FRAMES), spread=0)
    assert sample.rounds[0].frames == (0,)
    later = [one.frames for one in sample.rounds[1:]]
    assert sorted(later) == [(index,) for index in range(1, NUM_FRAMES)]
    assert later[:-1] == [(1,), (2,), (3,), (4,)]  # in the last frame the object that is gone counts as right
    means = [np.mean(one.j) for one in sample.rounds]
    assert means == sorted(means)
    assert means[-1] == 1
    assert len(session.asked) == NUM_FRAMES


def test_lines_lie_where_the_session_is_wrong_and_nowhere_else(start: Start) -> None:
    sample, _ = learnt(start, Rules(), spread=1)
    truth = read_truth(start.clip)
    for one in sample.rounds:
        for line in one.lines:
            x, y = (np.array(line.path) * (HW[1] - 1, HW[0] - 1)).astype(int).T
            assert (truth.labels[line.frame_index][y, x] == line.object_id).all()
    right_after_first = {start.lines[0].frame_index + step for step in (-1, 0, 1)}
    assert not right_after_first & {index for one in sample.rounds[1:] for index in one.frames}


def test_three_scribbles_on_a_frame_come_before_masks_are_carried_on(start: Start) -> None:
    sample, session = learnt(start, Rules(per_frame=3), spread=1)
    assert [carry_on for *_, carry_on in session.asked[:6]] == [False, False, True] * 2
    assert len({index for index, *_ in session.asked[:3]}) == 1
    assert [number for _, number, _ in session.asked[1:3]] == [0, 0]  # nothing is wrong there any more
    assert sample.rounds[1].lines == ()
    assert np.mean(sample.rounds[2].j) > np.mean(sample.rounds[1].j) == np.mean(sample.rounds[0].j)
    assert session.asked[-1][2]


def test_a_round_that_ends_after_the_budget_does_not_count(start: Start) -> None:
    rules = Rules(seconds_per_object=5.0)
    in_time, _ = learnt(start, rules, seconds=10 / NUM_FRAMES - 0.01)
    assert len(in_time.rounds) == 1
    assert not in_time.timed_out
    late, _ = learnt(start, rules, seconds=10 / NUM_FRAMES + 0.01)
    assert late.timed_out
    assert late.rounds == ()
    assert as_dict([late], rules)["auc"]["j"] == 0
    assert notes([in_time, late]) == ["time ran out for cat/robot-0; the rounds that are missing count as the last one that ended in time"]
    _, endless = learnt(start, rules, seconds=100.0)
    assert endless.clock.now == 100  # cut off after the first frame


def test_the_budget_is_that_of_all_rounds_together(start: Start) -> None:
    sample, _ = learnt(start, Rules(seconds_per_object=4.0), spread=0, seconds=3.0)
    assert [one.seconds for one in sample.rounds] == [3, 3]
    assert sample.timed_out
    assert sample.budget_seconds == 8


def test_a_session_that_answers_in_another_size_is_refused(start: Start) -> None:
    class Small:
        def interact(self, frame_index: int, scribbles: list[Scribble], *, carry_on: bool) -> list[tuple[int, Masks]]:
            return [(frame_index, Masks.from_labels(torch.zeros((4, 4), dtype=torch.int32), (1, 3)))]

        def close(self) -> None:
            pass

    with pytest.raises(InputError, match=r"the session gave \(4, 4\) pixels for frame"):
        list(play(start, lambda clip, ids: Small(), Rules()))


def test_annotations_of_several_sizes_are_refused(tmp_path: Path) -> None:
    frames = [labels_of((1, SQUARE)), labels_of((1, SQUARE), hw=(10, 13)), labels_of((1, SQUARE))]
    (clip,) = read_davis(write_root(tmp_path, {"a": frames}), with_frames=True)
    with pytest.raises(InputError, match="annotations must be of one size"):
        read_truth(clip)


@pytest.mark.parametrize("numbers", [{"interactions": 0}, {"per_frame": 0}, {"seconds_per_object": 0.0}, {"seconds_per_object": float("nan")}])
def test_rules_that_cannot_be_played_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(InputError, match="each number must be above 0"):
        Rules(**numbers)


def worked_on(clip: AnnotatedClip, maker: BoxMaker) -> InteractiveSession:
    """The session that people work with, on a clip."""
    return InteractiveSession(list(read_video(clip.frame_paths[0].parent)), SmearTracker(), mask_maker=maker)


def test_the_session_that_people_work_with_remembers_fuses_and_answers(tmp_path: Path) -> None:
    (clip,) = moving_clips(tmp_path)
    (start,) = find_starts([clip], None)
    makers: list[BoxMaker] = []

    def begin(clip: AnnotatedClip, object_ids: tuple[int, ...]) -> DrivenSession:
        makers.append(BoxMaker())
        return DrivenSession(worked_on(clip, makers[0]))

    *_, sample = play(start, begin, Rules(per_frame=2, interactions=4))
    first = [one.frames[0] for one in sample.rounds]
    assert first[0] == first[1] != first[2] == first[3]
    assert [index for index, _ in makers[0].calls] == first[: len(makers[0].calls)]
    means = [np.mean((one.j, one.f)) for one in sample.rounds]
    assert means[0] < means[1] < means[-1]
    assert all(one.seconds > 0 for one in sample.rounds)


def test_it_changes_one_frame_until_it_carries_on(tmp_path: Path) -> None:
    (clip,) = moving_clips(tmp_path)
    session = DrivenSession(worked_on(clip, BoxMaker()))
    lines = [Scribble(2, 1, torch.tensor([[5.0, 5.0], [12.0, 12.0]]))]
    assert [index for index, _ in session.interact(2, lines, carry_on=False)] == [2]
    again = dict(session.interact(2, [], carry_on=True))
    assert sorted(again) == list(range(NUM_FRAMES))
    assert int((again[2].labels() == 1).sum()) == 14 * 14


class Worked:
    """A stand-in for the session that people work with: it keeps what was drawn, and reaches all frames."""

    def __init__(self) -> None:
        self.strokes: list[Scribble] = []
        self.pending_frames: list[int] = []

    def masks(self, frame_index: int) -> Masks:
        labels = torch.zeros(HW, dtype=torch.int32)
        for stroke in self.strokes:
            labels[stroke.path[0, 1].int(), stroke.path[0, 0].int()] = stroke.object_id * stroke.positive
        return Masks.from_labels(labels, (1, 3))

    def interact(self, *strokes: Scribble) -> Masks:
        self.strokes += strokes
        self.pending_frames = [strokes[0].frame_index]
        return self.masks(strokes[0].frame_index)

    def propagate(self) -> Iterator[SimpleNamespace]:
        for index in range(NUM_FRAMES):
            yield SimpleNamespace(frame=SimpleNamespace(index=index), masks=self.masks(index))
        self.pending_frames = []

    def close(self) -> None:
        self.strokes.clear()


def test_the_session_that_people_work_with_is_driven_by_its_verbs() -> None:
    worked = Worked()
    session = DrivenSession(worked)
    on, off, off_other = (Scribble(2, number, torch.tensor([[5.0, 5.0]]), sign) for number, sign in ((1, True), (1, False), (3, False)))
    assert [index for index, _ in session.interact(2, [on, off_other], carry_on=False)] == [2]
    assert worked.strokes == [on]  # object 3 has no pixels to take away
    answers = list(session.interact(2, [], carry_on=True))
    assert [index for index, _ in answers] == [2, *range(NUM_FRAMES)]
    assert all(masks.labels()[5, 5] == 1 for _, masks in answers)
    assert [index for index, _ in session.interact(2, [], carry_on=True)] == [2]  # nothing is left to be carried on
    list(session.interact(2, [off], carry_on=False))
    assert worked.strokes == [on, off]
    session.close()
    assert not worked.strokes


def test_the_robot_starts_a_clip_from_several_frames_by_a_seed(tmp_path: Path) -> None:
    clips = moving_clips(tmp_path, "cat", "dog")
    starts = find_starts(clips, None, num_drawn=3, seed=4)
    assert [(one.clip.name, one.name) for one in starts] == [(name, f"robot-{number}") for name in ("cat", "dog") for number in range(3)]
    assert starts == find_starts(clips, None, num_drawn=3, seed=4)
    assert starts[1].lines == find_starts(clips, None, seed=5)[0].lines


def test_files_of_scribbles_start_clips(tmp_path: Path) -> None:
    clips = moving_clips(tmp_path, "cat", "dog")
    for name, number in (("cat", 1), ("cat", 2), ("dog", 1)):
        (tmp_path / "Scribbles" / name).mkdir(parents=True, exist_ok=True)
        write_scribbles(tmp_path / "Scribbles" / name / f"{number:03d}.json", DavisScribbles(name, (LINE,)), 6)
    assert [(one.clip.name, one.name, one.lines) for one in find_starts(clips, tmp_path / "Scribbles")] == [
        ("cat", "001", (LINE,)),
        ("cat", "002", (LINE,)),
        ("dog", "001", (LINE,)),
    ]


def test_lines_of_all_objects_are_of_one_where_objects_are_merged(tmp_path: Path) -> None:
    (clip,) = moving_clips(tmp_path)
    (tmp_path / "s" / "cat").mkdir(parents=True)
    write_scribbles(tmp_path / "s" / "cat" / "001.json", DavisScribbles("cat", (replace(LINE, object_id=7), replace(LINE, object_id=0))), 6)
    (start,) = find_starts([replace(clip, merged=True)], tmp_path / "s")
    assert [line.object_id for line in start.lines] == [1, 0]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((replace(LINE, frame_index=6),), r"draws on frames \[6\], which clip 'cat' does not have"),
        ((replace(LINE, object_id=2),), r"draws on objects \[2\]"),
        ((), "holds no lines"),
    ],
)
def test_scribbles_that_do_not_fit_their_clip_are_refused(tmp_path: Path, lines: tuple[Line, ...], said: str) -> None:
    (tmp_path / "s" / "cat").mkdir(parents=True)
    write_scribbles(tmp_path / "s" / "cat" / "001.json", DavisScribbles("cat", lines), 7)
    with pytest.raises(InputError, match=said):
        find_starts(moving_clips(tmp_path), tmp_path / "s")


def test_clips_without_scribbles_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no scribbles \(CLIP/001.json\) for cat, dog"):
        find_starts(moving_clips(tmp_path, "cat", "dog"), tmp_path / "none")


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_the_area_of_a_constant_is_that_constant(value: float) -> None:
    assert area((0, 0.5, 7, 240), (value,) * 4) == pytest.approx(value)
    assert area((0, 240), (0, 1)) == 0.5


@pytest.mark.parametrize(("seconds", "values"), [((), ()), ((1,), (1,)), ((0, 0), (1, 1)), ((0, 1), (1,))])
def test_what_is_no_curve_has_no_area(seconds: tuple[float, ...], values: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="are no curve with an area"):
        area(seconds, values)


def test_the_value_at_a_time_is_on_the_line_between_points() -> None:
    curve = ((0.0, 40.0, 80.0, 80.0), (0.0, 0.4, 0.8, 0.9))
    assert value_at(60, *curve) == pytest.approx(0.6)
    assert value_at(80, *curve) == value_at(500, *curve) == 0.9
    assert value_at(0, *curve) == 0


def test_missing_rounds_count_as_the_last_at_no_cost_and_objects_weigh_the_same(start: Start) -> None:
    rules = Rules(interactions=3)
    perfect, _ = learnt(start, rules, seconds=1.0)
    slow, _ = learnt(start, rules, spread=0, seconds=4.0)
    one_object = replace(slow, object_ids=(1,), budget_seconds=240.0, rounds=tuple(replace(one, j=one.j[:1], f=one.f[:1]) for one in slow.rounds))
    curve = curve_of([perfect, one_object], rules)
    assert curve.seconds == (0, (NUM_FRAMES + 4) / 2, (NUM_FRAMES + 4) / 2 + 2, (NUM_FRAMES + 4) / 2 + 4, 360)
    assert curve.j[0] == 0
    assert curve.j[1:4] == pytest.approx([(1 + 1 + one.j[0]) / 3 for one in one_object.rounds])
    assert curve.j[4] == curve.j[3]
    with pytest.raises(InputError, match="no samples"):
        curve_of([], rules)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return golden_samples(tmp_path)


def test_the_json_object_is_the_golden_one(samples: list[Sample]) -> None:
    said = json.loads(json.dumps(as_dict(samples, GOLDEN_RULES), allow_nan=False))
    assert rounded(said) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_report_says_the_same_in_all_its_files(samples: list[Sample], tmp_path: Path) -> None:
    rules = GOLDEN_RULES
    paths = write_report(tmp_path / "out", samples, rules)
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(as_dict(samples, rules)))
    rows = list(csv.DictReader(io.StringIO(paths[1].read_text())))
    assert len(rows) == sum(2 * len(sample.rounds) for sample in samples)
    assert rows[0].keys() == {"clip", "start", "interaction", "object", "frames", "seconds", "j", "f", "j_and_f"}
    assert float(rows[1]["j"]) == samples[0].rounds[0].j[1]
    assert rows[1]["object"] == "3"
    for sample, path in zip(samples, paths[2:], strict=True):
        drawn = {line for one in sample.rounds for line in one.lines}
        assert set(read_scribbles(path).lines) == drawn
        assert path == tmp_path / "out" / "Scribbles" / "cat" / f"{sample.start}.json"
    text = io.StringIO()
    Console(file=text, width=100).print(table(samples, rules))
    said = as_dict(samples, rules)
    assert f"{said['auc']['j_and_f']:.3f}" in text.getvalue()
    assert f"{said['at_60s']['j_and_f']:.3f}" in text.getvalue()


def test_the_picture_shows_curves(samples: list[Sample], tmp_path: Path) -> None:
    path = write_plot(tmp_path / "out", samples, GOLDEN_RULES)
    with Image.open(path) as image:
        assert image.size == (700, 450)
        colours = image.convert("RGB").getcolors(2**20)
    assert len(colours) > 20


def test_a_report_that_cannot_be_written_says_so(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be a folder for results"):
        write_report(tmp_path / "file", samples, GOLDEN_RULES)


def test_frames_of_the_clip_are_those_of_the_test(tmp_path: Path) -> None:
    truth = read_truth(moving_clips(tmp_path)[0])
    assert truth.object_ids == (1, 3)
    np.testing.assert_array_equal(truth.labels[2], moving_frames()[2])


@pytest.mark.real_data
def test_the_open_scribbles_start_the_open_clip(shared_data: Path) -> None:
    clips = read_davis(shared_data / "davis2016-open", clips=["blackswan"], with_frames=True)
    (start,) = find_starts(clips, shared_data / "scribbles-open" / "Scribbles")
    assert (start.name, {line.frame_index for line in start.lines}) == ("001", {1})
