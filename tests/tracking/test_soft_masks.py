import errno
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from rotoscope.errors import InputError, MaskError, OutputError
from rotoscope.tracking.soft_masks import SoftMaskStore, decode, encode, levels_of
from rotoscope.types import Masks

HW = (6, 9)


def random_masks(seed: int, ids: tuple[int, ...] = (1, 7), sharpness: float = 3.0) -> Masks:
    random = torch.Generator().manual_seed(seed)
    return Masks((torch.randn((1 + len(ids), *HW), generator=random) * sharpness).softmax(dim=0), ids)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.sampled_from([1e-4, 0.02, 1.0, 50.0]))
def test_rounding_keeps_the_sum_the_winners_and_every_value_within_a_step(seed: int, count: int, sharpness: float) -> None:
    masks = random_masks(seed, tuple(range(1, count + 1)), sharpness)
    levels = levels_of(masks).int()
    assert bool((levels.sum(dim=0) == 255).all())
    assert torch.equal(levels.argmax(dim=0), (masks.probs / masks.probs.sum(dim=0) * 255).argmax(dim=0))
    assert float((levels - masks.probs * 255).abs().max()) < 2.001


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_what_was_stored_once_is_stored_again_unchanged(seed: int) -> None:
    once = decode(encode(random_masks(seed)))
    assert encode(once) == encode(decode(encode(once)))
    assert torch.equal(decode(encode(once)).probs, once.probs)


def test_certain_masks_and_frames_without_objects_come_back_exactly() -> None:
    labels = torch.zeros(HW, dtype=torch.int32)
    labels[2:4, 3:5] = 65535
    for masks in (Masks.from_labels(labels), Masks(torch.ones((1, *HW)), ()), Masks.from_labels(labels * 0, (4,))):
        again = decode(encode(masks))
        assert torch.equal(again.probs, masks.probs)
        assert again.object_ids == masks.object_ids


def test_the_store_gives_the_same_bits_from_memory_and_from_disk(tmp_path: Path) -> None:
    roomy, cramped = (SoftMaskStore(tmp_path, max_bytes=size) for size in (10**6, 0))
    key = roomy.put(random_masks(1))
    assert torch.equal(roomy.get(key).probs, cramped.get(key).probs)
    assert cramped.used_bytes == 0


def test_memory_stays_within_the_budget_and_nothing_is_lost(tmp_path: Path) -> None:
    one = len(encode(random_masks(0)))
    store = SoftMaskStore(tmp_path, max_bytes=3 * one)
    keys = [store.put(random_masks(seed)) for seed in range(12)]
    for seed, key in enumerate(keys):
        assert torch.equal(store.get(key).probs, decode(encode(random_masks(seed))).probs)
        assert 0 < store.used_bytes <= 3 * one


def test_equal_masks_are_stored_once(tmp_path: Path) -> None:
    store = SoftMaskStore(tmp_path, max_bytes=0)
    assert store.put(random_masks(5)) == store.put(random_masks(5))
    assert len(list(tmp_path.rglob("*.masks"))) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_file_is_noticed_and_named(tmp_path: Path, damage: str) -> None:
    store = SoftMaskStore(tmp_path, max_bytes=0)
    key = store.put(random_masks(3))
    path, content = store.path_of(key), bytearray(store.path_of(key).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flip": bytes(content), "cut": bytes(content[:20]), "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    assert not store.is_sound(key)
    with pytest.raises(MaskError, match=key):
        store.get(key)


def test_a_file_that_a_power_cut_left_empty_is_written_anew(tmp_path: Path) -> None:
    store = SoftMaskStore(tmp_path, max_bytes=0)
    key = store.put(random_masks(3))
    store.path_of(key).write_bytes(b"")
    store.put(random_masks(3))
    assert store.is_sound(key)


@pytest.mark.parametrize("content", [b"", b"RSM1", b"PNG1" + bytes(12) + b"x\x9c\x03\x00\x00\x00\x00\x01", encode(random_masks(1))[:-3]])
def test_other_bytes_are_no_masks(content: bytes) -> None:
    with pytest.raises(MaskError, match="stored masks"):
        decode(content)


def test_numbers_that_are_no_probabilities_are_refused(tmp_path: Path) -> None:
    store = SoftMaskStore(tmp_path, max_bytes=0)
    for value in (float("nan"), -0.5):
        with pytest.raises(MaskError, match="negative or non-finite"):
            store.put(Masks(torch.full((2, *HW), value), (1,)))
    with pytest.raises(InputError, match="-1 bytes"):
        SoftMaskStore(tmp_path, max_bytes=-1)


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = SoftMaskStore(tmp_path / "masks", max_bytes=10**6)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        store.put(random_masks(1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        SoftMaskStore(tmp_path / "file", max_bytes=0).put(random_masks(1))
