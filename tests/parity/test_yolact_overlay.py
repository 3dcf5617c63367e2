"""Masks painted over a picture, compared with the official display of YOLACT (its colours are given; ours are DAVIS's)."""

from pathlib import Path

import numpy as np
import pytest

from rotoscope.video.draw import DrawnObject, tint

DATA = Path(__file__).parent / "data" / "yolact" / "overlay.npz"
"""Of `postprocess.npz`: the picture, the first six masks and classes, and the two displays at every second pixel; all exact."""

COLOURS = (
    (244, 67, 54), (233, 30, 99), (156, 39, 176), (103, 58, 183), (63, 81, 181), (33, 150, 243), (3, 169, 244), (0, 188, 212), (0, 150, 136),
    (76, 175, 80), (139, 195, 74), (205, 220, 57), (255, 235, 59), (255, 193, 7), (255, 152, 0), (255, 87, 34), (121, 85, 72), (158, 158, 158),
    (96, 125, 139),
)  # fmt: skip
"""The 19 colours of the official display; number i * 5 is taken, counted round."""


def difference(kind: str, *, alpha: float = 0.45, step: int = 5) -> int:
    """The largest difference, of 255, from the official display."""
    with np.load(DATA) as stored:
        width, height = stored["size_wh"].tolist()
        picture = np.repeat(np.repeat(stored["image_bgr"], 20, axis=0), 20, axis=1)[:height, :width, ::-1].copy()
        masks = np.unpackbits(stored["masks_packed"], axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)
        numbers = range(len(masks)) if kind == "rank" else stored["class_ids"].tolist()
        objects = [DrawnObject(mask, (0, 0, 1, 1), "", COLOURS[number * step % 19]) for mask, number in zip(masks, numbers, strict=True)]
        ours = tint(picture, objects, alpha)[::2, ::2, ::-1]
        return int(np.abs(ours.astype(int) - stored[f"overlay_{kind}"]).max())


@pytest.mark.parametrize("kind", ["rank", "class"])
def test_masks_are_painted_as_officially(kind: str) -> None:
    assert difference(kind) <= 1  # they cut the fraction off, we round


def test_another_share_of_colour_or_another_colour_is_noticed() -> None:
    assert difference("class", alpha=0.5) > 5
    assert difference("rank", step=4) > 10
    assert difference("class", step=4) > 10


def painted_by_the_formula(picture: np.ndarray, masks: np.ndarray, colours: np.ndarray, alpha: float) -> np.ndarray:
    """img * prod(1 - a m_i) + sum(colour_i * a m_i * prod_{j<i}(1 - a m_j)): the official display where masks overlap, which the fixture has not."""
    left = np.ones(picture.shape[:2])
    added = np.zeros(picture.shape)
    for mask, colour in zip(masks, colours, strict=True):
        added += colour * (alpha * mask * left)[:, :, None]
        left = left * (1 - alpha * mask)
    return picture * left[:, :, None] + added


def test_where_masks_overlap_the_better_lies_on_top() -> None:
    noise = np.random.default_rng(0)
    picture = noise.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    masks = noise.random((4, 20, 30)) < 0.6
    colours = noise.integers(0, 256, (4, 3))
    objects = [DrawnObject(mask, (0, 0, 1, 1), "", tuple(colour)) for mask, colour in zip(masks, colours.tolist(), strict=True)]
    expected = painted_by_the_formula(picture, masks, colours, 0.45)
    assert np.abs(tint(picture, objects) - expected).max() < 1.5  # half a level for each mask, less what later ones cover
    assert np.abs(tint(picture, objects[::-1]) - expected).max() > 20
