import json
from pathlib import Path

import pytest
import torch

from rotoscope.datasets.davis_scribbles import Line, read_scribbles, to_scribbles
from rotoscope.errors import InputError


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def line(**changes: object) -> dict:
    return {"path": [[0.25, 0.5], [1.0, 0.0]], "object_id": 2, "start_time": 500, "end_time": 2000} | changes


def test_lines_come_in_the_order_of_frames(tmp_path: Path) -> None:
    content = {"sequence": "dog", "scribbles": [[], [line(), line(object_id=0)], [line(path=[[0, 1]])]]}
    scribbles = read_scribbles(written(tmp_path / "001.json", content))
    assert scribbles.sequence == "dog"
    assert scribbles.lines[0] == Line(1, 2, ((0.25, 0.5), (1.0, 0.0)), 1.5)
    assert [(one.frame_index, one.object_id) for one in scribbles.lines] == [(1, 2), (1, 0), (2, 2)]
    assert scribbles.object_ids == (2,)


def test_shares_become_whole_pixels_and_the_background_is_off_every_object() -> None:
    on, *off = to_scribbles([Line(1, 2, ((0.25, 0.5), (1.0, 0.0))), Line(1, 0, ((0.0, 1.0),))], [2, 5], (11, 22))
    assert on.path.tolist() == [[5, 5], [21, 0]]
    assert (on.object_id, on.positive, on.width_pixels) == (2, True, 3.0)
    assert [(one.object_id, one.positive, one.path.tolist()) for one in off] == [(2, False, [[0, 10]]), (5, False, [[0, 10]])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable scribble file"),
        ([], "has no list 'scribbles'"),
        ({"scribbles": 3}, "has no list 'scribbles'"),
        ({"scribbles": [3]}, "frame 0 holds int instead of a list"),
        ({"scribbles": [[{"path": [[0, 0]]}]]}, "not of the DAVIS form"),
        ({"scribbles": [[line(path=[[0.1]])]]}, "not of the DAVIS form"),
        ({"scribbles": [[], ["line"]]}, "a line of frame 1 is not of the DAVIS form"),
        ({"scribbles": [[line(path=[])]]}, "is empty, or has points outside"),
        ({"scribbles": [[line(path=[[0.5, 1.5]])]]}, "is empty, or has points outside"),
        ({"scribbles": [[line(path=[[float("nan"), 0.5]])]]}, "is empty, or has points outside"),
        ({"scribbles": [[line(object_id=-1)]]}, "objects are counted from 1"),
    ],
)
def test_files_of_another_form_are_refused_by_place(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_scribbles(written(tmp_path / "bad.json", content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable"):
        read_scribbles(tmp_path / "none.json")


@pytest.mark.real_data
def test_the_open_scribbles_are_read(shared_data: Path) -> None:
    files = sorted((shared_data / "scribbles-open" / "Scribbles").glob("*/*.json"))
    assert files
    for path in files:
        scribbles = read_scribbles(path)
        assert scribbles.sequence == path.parent.name
        assert scribbles.object_ids
        for one in to_scribbles(scribbles.lines, scribbles.object_ids, (480, 854)):
            assert bool((one.path >= 0).all() and (one.path < torch.tensor([854, 480])).all())
