import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from rotoscope.errors import MaskError
from rotoscope.video.rle import decode_mask, encode_mask, mask_area, mask_box, run_lengths, unpack_run_lengths


def drawn(height: int, width: int, seed: int, share: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < share


masks = st.builds(drawn, st.integers(1, 40), st.integers(1, 40), st.integers(0, 9999), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))


@settings(deadline=None)
@given(masks)
def test_a_mask_comes_back_from_its_run_lengths_and_from_json(mask: np.ndarray) -> None:
    encoded = json.loads(json.dumps(encode_mask(mask)))
    assert encoded["size"] == list(mask.shape)
    assert np.array_equal(decode_mask(encoded), mask)
    assert np.array_equal(decode_mask({"size": list(mask.shape), "counts": run_lengths(encoded).tolist()}), mask)


@settings(deadline=None)
@given(masks)
def test_area_and_box_are_those_of_the_pixels(mask: np.ndarray) -> None:
    encoded = encode_mask(mask)
    assert mask_area(encoded) == mask.sum()
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    box = (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1) if rows.size else (0, 0, 0, 0)
    assert mask_box(encoded) == box


def test_the_text_is_that_of_the_coco_tools() -> None:
    mask = np.zeros((6, 5), dtype=bool)
    mask[1:4, 2:4] = True
    ring = np.zeros((70, 9), dtype=bool)
    ring[:, 2:5], ring[10:60, 3], ring[69, 8] = True, False, True
    texts = [encode_mask(one)["counts"] for one in (mask, ring, np.ones((3, 2), dtype=bool))]
    assert texts == ["=3305", "\\4`2b10U7aM", "06"]  # pycocotools 2.0.11


def test_300_masks_are_no_more_trouble_than_one() -> None:
    drawings = [drawn(20, 30, seed) for seed in range(300)]
    areas = [mask_area(encoded) for encoded in map(encode_mask, drawings)]
    assert areas == [int(mask.sum()) for mask in drawings]


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 4), (4, 0)])
def test_what_is_no_mask_is_not_encoded(shape: tuple[int, ...]) -> None:
    with pytest.raises(MaskError, match="is no mask"):
        encode_mask(np.zeros(shape, dtype=bool))


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        ({"counts": "=3305"}, "need a size"),
        ({"size": [6], "counts": "=3305"}, "need a size"),
        ({"size": [6.0, 5.0], "counts": "=3305"}, "need a size"),
        ({"size": [0, 5], "counts": "0"}, "need a size"),
        ({"size": [True, 5], "counts": "5"}, "need a size"),
        ({"size": [6, 5]}, "not nothing"),
        ({"size": [6, 5], "counts": ""}, "not nothing"),
        ({"size": [6, 5], "counts": 30}, "not int"),
        ({"size": [6, 5], "counts": []}, "whole numbers"),
        ({"size": [6, 5], "counts": [30.0]}, "whole numbers"),
        ({"size": [6, 5], "counts": [[30]]}, "whole numbers"),
        ({"size": [6, 5], "counts": [30, [1, 2]]}, "whole numbers"),
        ({"size": [6, 5], "counts": ["30"]}, "whole numbers"),
        ({"size": [6, 5], "counts": [31, -1]}, "a run length is -1"),
        ({"size": [6, 5], "counts": [29]}, "cover 29 pixels of 5x6"),
        ({"size": [5, 7], "counts": "=3305"}, "cover 30 pixels of 7x5"),
        ({"size": [6, 5], "counts": "OOOO"}, "a run length is"),
        ({"size": [6, 5], "counts": "=330é"}, "damaged"),
        ({"size": [6, 5], "counts": "=330~"}, "damaged"),
        ({"size": [6, 5], "counts": "=330Z"}, "breaks off"),
        ({"size": [6, 5], "counts": "ZZZZZZZZZZZZ0"}, "damaged"),
    ],
)
def test_damaged_run_lengths_are_refused(encoded: dict[str, object], said: str) -> None:
    with pytest.raises(MaskError, match=said):
        decode_mask(encoded)


def test_bytes_are_text_too() -> None:
    assert unpack_run_lengths(b"=3305").tolist() == [13, 3, 3, 3, 8]


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=30) | st.binary(max_size=30), st.integers(1, 20), st.integers(1, 20))
def test_any_text_is_a_mask_or_refused(counts: str | bytes, height: int, width: int) -> None:
    try:
        mask = decode_mask({"size": [height, width], "counts": counts})
    except MaskError:
        return
    assert mask.shape == (height, width)
