"""What a training leaves to look at while it runs: a table of figures, curves, pictures.

FOLDER/metrics.csv                    a line every so many steps, each the mean of the steps since the line before
FOLDER/pictures/step-00001000.png     the frames of one sample, their true labels, and the predicted ones
FOLDER/tensorboard/                   the same figures, where asked for
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rotoscope._extras import require
from rotoscope._files import output_error, write_atomically
from rotoscope.training.task import SamplePictures
from rotoscope.video.draw import contact_sheet, overlay, write_image


class Record:
    """The figures of a training, appended to its folder.

    Args:
        folder: of the training; it exists.
        step: how many steps are done; what the table says of later ones, which a resumed training does again, is cut.
        tensorboard: write curves too.

    Raises:
        MissingExtraError: curves are asked for, and TensorBoard is not installed.
        OutputError: the table cannot be written.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        self._folder = folder
        self._table = folder / "metrics.csv"
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._curves: Any = None
        if tensorboard:
            writer = require("torch.utils.tensorboard", extra="train")
            self._curves = writer.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        rows = [row for row in self._rows() if (row.get("step") or "").isdecimal() and int(row["step"]) <= step]
        self._columns: list[str] = list(rows[0]) if rows else []
        self._write_all(rows)

    def add(self, figures: Mapping[str, float]) -> None:
        """Take in the figures of one step."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def write(self, step: int) -> None:
        """Append a line with the means since the line before; a figure that is new gets a column.

        Raises:
            OutputError: the table cannot be written.
        """
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in means.items()}}
        if set(row) - set(self._columns):
            rows = self._rows()
            self._columns += [name for name in row if name not in self._columns]
            self._write_all([*rows, row])
        else:
            try:
                with self._table.open("a", encoding="utf-8", newline="") as file:
                    csv.DictWriter(file, self._columns).writerow(row)
            except OSError as error:
                raise output_error(self._table, error) from error
        for name, value in means.items():
            if self._curves is not None:
                self._curves.add_scalar(name, value, step)
        self._sums, self._counts = {}, {}

    def draw(self, step: int, pictures: SamplePictures) -> None:
        """Write a sample: a row of frames, a row with their true labels, a row with the predicted ones; a column per frame.

        Raises:
            OutputError: it cannot be written.
        """
        folder = self._folder / "pictures"
        folder.mkdir(exist_ok=True)
        images = pictures.images.permute(0, 2, 3, 1).cpu().numpy()
        tiles = [(image, f"input {index}") for index, image in enumerate(images)]
        for name, labels in (("truth", pictures.truth), ("predicted", pictures.predicted)):
            maps = labels.cpu().numpy().astype(np.int32)
            tiles += [(overlay(image, drawn), f"{name} {index}") for index, (image, drawn) in enumerate(zip(images, maps, strict=True))]
        write_image(folder / f"step-{step:08d}.png", contact_sheet(tiles, columns=len(images)))

    def close(self) -> None:
        """Finish the curves."""
        if self._curves is not None:
            self._curves.close()

    def _rows(self) -> list[dict[str, str]]:
        """The lines of the table; one that a crash cut short is left out."""
        if not self._table.is_file():
            return []
        with self._table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            return [row for row in reader if None not in row and None not in row.values()]

    def _write_all(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        if rows:
            writer = csv.DictWriter(text, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        write_atomically(self._table, text.getvalue().encode())
