import csv
import sys
import types
from pathlib import Path

import cv2
import pytest
import torch

from rotoscope.errors import MissingExtraError, OutputError
from rotoscope.training.record import Record
from rotoscope.training.task import SamplePictures


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def write(record: Record, step: int, **figures: float) -> None:
    record.add(figures)
    record.write(step)


def test_a_line_is_the_mean_since_the_line_before(tmp_path) -> None:
    record = Record(tmp_path, 0)
    for loss in (1.0, 2.0, 6.0):
        record.add({"loss": loss})
    record.write(3)
    write(record, 4, loss=0.5)
    assert table(tmp_path) == [{"step": "3", "loss": "3"}, {"step": "4", "loss": "0.5"}]


def test_a_resumed_record_cuts_what_is_done_again(tmp_path) -> None:
    record = Record(tmp_path, 0)
    for step in (2, 4, 6):
        write(record, step, loss=float(step))
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("7")  # a crash cut it short
    record = Record(tmp_path, 4)
    write(record, 6, loss=60.0)
    assert [(row["step"], row["loss"]) for row in table(tmp_path)] == [("2", "2"), ("4", "4"), ("6", "60")]


def test_a_figure_that_comes_later_gets_a_column(tmp_path) -> None:
    record = Record(tmp_path, 0)
    write(record, 1, loss=1.0)
    write(record, 2, loss=2.0, iou=0.5)
    write(record, 3, iou=0.7)
    assert [(row["step"], row["loss"], row["iou"]) for row in table(tmp_path)] == [("1", "1", ""), ("2", "2", "0.5"), ("3", "", "0.7")]
    assert len(table(tmp_path)) == 3
    Record(tmp_path, 2)
    assert [row["step"] for row in table(tmp_path)] == ["1", "2"]


def test_a_table_that_cannot_be_written_is_said(tmp_path) -> None:
    record = Record(tmp_path, 0)
    write(record, 1, loss=1.0)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(OutputError, match=r"metrics\.csv"):
        write(record, 2, loss=1.0)


def test_a_picture_shows_frames_truth_and_prediction(tmp_path) -> None:
    images = torch.full((2, 3, 40, 60), 128, dtype=torch.uint8)
    truth, predicted = torch.zeros((2, 40, 60), dtype=torch.int64), torch.zeros((2, 40, 60), dtype=torch.int64)
    truth[1, 10:30, 20:40] = 1
    truth[1, :, 58:] = 255
    predicted[0] = 2
    Record(tmp_path, 0).draw(7, SamplePictures(images, truth, predicted))
    sheet = cv2.imread(str(tmp_path / "pictures" / "step-00000007.png"))[:, :, ::-1]
    height, width = (40 + 24 + 4), (60 + 4)
    assert sheet.shape == (3 * height + 4, 2 * width + 4, 3)

    def tile(row: int, column: int) -> tuple[int, ...]:
        return tuple(sheet[4 + row * height + 20, 4 + column * width + 30].tolist())

    grey = (128, 128, 128)
    assert [tile(0, 0), tile(0, 1), tile(1, 0), tile(2, 1)] == [grey] * 4
    assert tile(1, 1) == (128, 64, 64)  # half grey, half the palette's dark red
    assert tile(2, 0) == (64, 128, 64)


def test_curves_are_written_where_asked_for(tmp_path, monkeypatch) -> None:
    written = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    record = Record(tmp_path, 4, tensorboard=True)
    write(record, 5, loss=2.0)
    record.close()
    assert written == [("tensorboard", 5), ("loss", 2.0, 5), "closed"]


def test_curves_without_tensorboard_say_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"rotoscope\[train\]"):
        Record(tmp_path, 0, tensorboard=True)
