import hashlib
import os
import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rotoscope.datasets.stills import StillImage
from rotoscope.errors import InputError, OutputError
from rotoscope.training.image_bank import MEAN_COLOUR, Decoded, ImageBank, Rejected, chosen, decode, made_of

SIZES = [(8, 12), (16, 10), (9, 9)]


def write_still(folder: Path, name: str, hw: tuple[int, int], labels: np.ndarray | None = None) -> StillImage:
    """A random image and a mask with the objects 3 and 7 and a row of void."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    rgb = np.random.default_rng(seed).integers(0, 255, (*hw, 3), dtype=np.uint8)
    if labels is None:
        labels = np.zeros(hw, dtype=np.uint8)
        labels[1:4, 1:4], labels[5:7, 2:6], labels[-1] = 3, 7, 255
    Image.fromarray(rgb).save(folder / f"{name}.png")
    Image.fromarray(labels).save(folder / f"{name}-mask.png")
    return StillImage(name, folder / f"{name}.png", folder / f"{name}-mask.png", "test")


@pytest.fixture
def stills(tmp_path: Path) -> list[StillImage]:
    return [write_still(tmp_path, f"image{index}", hw) for index, hw in enumerate(SIZES)]


def many(count: int) -> list[Decoded]:
    return [Decoded(f"{index:04d}", np.full((2, 2, 3), index % 256, np.uint8), np.ones((2, 2), np.uint8)) for index in range(count)]


def test_images_and_labels_come_back_as_they_were(stills: list[StillImage]) -> None:
    bank = ImageBank.read(stills)
    assert len(bank) == 3
    assert bank.sizes == tuple(SIZES)
    assert bank.num_bytes == 4 * sum(height * width for height, width in SIZES)
    for index, still in enumerate(stills):
        assert np.array_equal(bank.image(index).permute(1, 2, 0), np.asarray(Image.open(still.image_path)))
        stored = np.asarray(Image.open(still.mask_path))
        assert np.array_equal(bank.labels(index), np.select([stored == 3, stored == 7, stored == 255], [1, 2, 255]))


def test_a_batch_is_padded_with_void_and_the_mean_colour(stills: list[StillImage]) -> None:
    bank = ImageBank.read(stills)
    images, labels, hw = bank.padded([2, 0])
    assert images.shape == (2, 3, 9, 12)
    assert hw.tolist() == [[9, 9], [8, 12]]
    assert torch.equal(images[0, :, :9, :9], bank.image(2))
    assert torch.equal(labels[1, :8, :12], bank.labels(0))
    assert (labels[0, :, 9:] == 255).all()
    assert (images[1, :, 8:] == torch.tensor(MEAN_COLOUR)[:, None, None]).all()


def test_large_images_are_reduced_and_small_ones_are_not(tmp_path: Path) -> None:
    labels = np.zeros((40, 20), dtype=np.uint8)
    labels[:20], labels[39, 19], labels[30:35, :10] = 4, 5, 9
    stills = [write_still(tmp_path, "tall", (40, 20), labels), write_still(tmp_path, "small", (8, 9))]
    bank = ImageBank.read(stills, longest_side=10)
    assert bank.sizes == ((10, 5), (8, 9))
    assert bank.labels(0).unique().tolist() == [0, 1, 2]  # the single pixel of object 5 is gone, and no number is left free


def test_a_saved_bank_is_the_same_bank(stills: list[StillImage], tmp_path: Path) -> None:
    bank = ImageBank.collect([*decode(stills), *many(200), Rejected("bad", "broken", damaged=True)])
    bank.save(tmp_path / "bank.safetensors", made_of="this")
    for again in (ImageBank.load(tmp_path / "bank.safetensors", made_of="this"), pickle.loads(pickle.dumps(bank))):
        assert torch.equal(again.image_bytes, bank.image_bytes)
        assert torch.equal(again.label_bytes, bank.label_bytes)
        assert (again.names, again.sizes, again.starts, again.rejected) == (bank.names, bank.sizes, bank.starts, bank.rejected)
    with pytest.raises(InputError, match="made of other images or other settings; delete it"):
        ImageBank.load(tmp_path / "bank.safetensors", made_of="that")


def test_a_damaged_or_foreign_file_is_no_bank(tmp_path: Path, stills: list[StillImage]) -> None:
    path = tmp_path / "bank.safetensors"
    with pytest.raises(InputError, match="not a readable bank"):
        ImageBank.load(path)
    ImageBank.read(stills).save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a readable bank"):
        ImageBank.load(path)


def test_an_interrupted_save_leaves_what_was_there(tmp_path: Path, stills: list[StillImage], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bank.safetensors"
    path.write_bytes(b"before")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rotoscope.training.image_bank.save_file", full)
    with pytest.raises(OutputError, match="disk is full"):
        ImageBank.read(stills).save(path)
    assert path.read_bytes() == b"before"
    assert not list(tmp_path.glob("*.partial"))


def test_a_bank_is_made_again_when_a_file_changed(stills: list[StillImage]) -> None:
    before = made_of(stills)
    assert made_of(stills) == before
    assert len({before, made_of(stills[:2]), made_of(stills, longest_side=9)}) == 3
    os.utime(stills[1].mask_path, ns=(0, 0))
    assert made_of(stills) != before
    stills[1].image_path.unlink()
    with pytest.raises(InputError, match=r"image1.png cannot be read"):
        made_of(stills)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), share=st.floats(0.2, 0.8), size=st.integers(40, 80))
def test_an_image_stays_on_its_side_as_the_set_grows(seed: int, share: float, size: int) -> None:
    bank, larger = ImageBank.collect(many(size)), ImageBank.collect(many(120))
    train, held_out = bank.split(share, seed)
    assert sorted(train + held_out) == list(range(size))
    assert set(held_out) <= set(larger.split(share, seed)[1])
    assert set(train) <= set(larger.split(share, seed)[0])


def test_the_share_held_out_is_about_the_one_asked_for() -> None:
    bank = ImageBank.collect(many(2000))
    assert abs(len(bank.split(0.1, 1)[1]) / 2000 - 0.1) < 0.02
    assert bank.split(0.1, 1) != bank.split(0.1, 2)
    assert bank.split(0.0) == (list(range(2000)), [])


@pytest.mark.parametrize(("share", "message"), [(1.0, "less than 1"), (-0.1, "from 0"), (0.001, "cannot be split")])
def test_a_split_without_one_side_is_refused(share: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageBank.collect(many(3)).split(share)


def test_a_limit_takes_fewer_of_the_same(stills: list[StillImage]) -> None:
    some = [StillImage(f"{index}", Path("i"), Path("m"), "test") for index in range(50)]
    ten, twenty = chosen(some, 10), chosen(some, 20)
    assert len(ten) == 10
    assert set(ten) < set(twenty)
    assert twenty == sorted(twenty, key=some.index)
    assert ten != some[:10]
    assert len(ImageBank.read(stills, limit=2)) == 2
    with pytest.raises(InputError, match="0 images are too few"):
        chosen(some, 0)


def cut_short(still: StillImage) -> None:
    still.image_path.write_bytes(still.image_path.read_bytes()[:60])


def mask_of_another_size(still: StillImage) -> None:
    Image.new("L", (5, 4), 1).save(still.mask_path)


def mask_in_colours(still: StillImage) -> None:
    Image.new("RGB", (12, 8), (10, 200, 30)).save(still.mask_path)


def no_mask(still: StillImage) -> None:
    still.mask_path.unlink()


FAULTS = {
    cut_short: "image0.png",
    mask_of_another_size: "image0-mask.png is 5x4 but its image is 12x8",
    mask_in_colours: "holds colours",
    no_mask: "mask",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_image_is_left_out_and_counted(fault, stills: list[StillImage], caplog: pytest.LogCaptureFixture) -> None:
    fault(stills[0])
    items = list(decode(stills))
    assert [type(item) for item in items] == [Rejected, Decoded, Decoded]
    assert FAULTS[fault] in items[0].reason
    bank = ImageBank.collect([*items, *many(200)])
    assert len(bank) == 202
    assert [one.name for one in bank.rejected] == ["image0"]
    assert "1 of 203 images left out: 1 damaged, 0 without an object" in caplog.text
    with pytest.raises(InputError, match="1 of 3 images are damaged, more than 1%: ") as caught:
        ImageBank.collect(items)
    assert FAULTS[fault] in str(caught.value)


def test_images_without_an_object_are_left_out_however_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    empty = write_still(tmp_path, "empty", (8, 8), np.full((8, 8), 255, np.uint8))
    bank = ImageBank.read([empty, write_still(tmp_path, "full", (8, 8))])
    assert bank.names == ("full",)
    assert "0 damaged, 1 without an object" in caplog.text
    with pytest.raises(InputError, match=r"no image to train on: none of 1 holds an object \(the mask of .*empty.png"):
        ImageBank.read([empty])


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(InputError, match="the set is empty"):
        ImageBank.read([])


def test_decoding_stops_when_nobody_listens(stills: list[StillImage]) -> None:
    items = decode(stills * 50)
    assert [item.name for item in islice(items, 2)] == ["image0", "image1"]
    items.close()


@pytest.mark.real_data
def test_the_real_images_are_read(shared_data: Path) -> None:
    root = shared_data / "train_images"
    names = sorted(path.stem for path in (root / "images").iterdir())[:5]
    bank = ImageBank.read([StillImage(name, root / "images" / f"{name}.webp", root / "masks" / f"{name}.png", "test") for name in names])
    assert len(bank) == 5
    assert all(min(hw) <= 240 for hw in bank.sizes)


@pytest.mark.cuda
def test_a_bank_works_on_a_gpu(stills: list[StillImage]) -> None:
    bank = ImageBank.read(stills)
    there = bank.to("cuda")
    for ours, theirs in zip(bank.padded([0, 1]), there.padded([0, 1]), strict=True):
        assert theirs.device.type == "cuda"
        assert torch.equal(ours, theirs.cpu())
