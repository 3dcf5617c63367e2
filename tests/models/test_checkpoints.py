import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from rotoscope.errors import CheckpointError, OutputError
from rotoscope.models.checkpoints import Checkpoint, load_strictly, read_checkpoint, rename, sha256, write_checkpoint


class Evil:
    """What a malicious file holds: unpickling it would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def layer() -> nn.Linear:
    return nn.Linear(2, 3)


def weights() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(3, 2), "bias": torch.ones(3)}


def test_tensors_survive_the_way_to_disk_with_model_and_origin(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, weights(), model="mast", official=True, notes={"card": "x"})
    checkpoint = read_checkpoint(path)
    assert (checkpoint.model, checkpoint.official, checkpoint.converted) == ("mast", True, True)
    assert torch.equal(checkpoint.tensors["weight"], weights()["weight"])
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w}])
def test_pytorch_files_are_read_whatever_key_holds_the_weights(tmp_path: Path, wrap) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrap({f"module.{key}": value for key, value in weights().items()}), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.official
    assert not checkpoint.converted
    assert set(checkpoint.tensors) == {"weight", "bias"}


def test_a_legacy_pickle_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    assert set(read_checkpoint(path).tensors) == {"weight", "bias"}


def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, touched = tmp_path / "w.pth", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"state_dict": Evil(touched)}))
    with pytest.raises(CheckpointError, match="not opened"):
        read_checkpoint(path)
    assert not touched.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"this is no checkpoint", bytes(range(256)) * 8])
def test_a_file_that_is_not_a_checkpoint_gives_one_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"no weights file nowhere\.pth"):
        read_checkpoint("nowhere.pth")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        read_checkpoint(path)


def test_rules_rename_every_key_once() -> None:
    renamed = rename(Checkpoint({"a.0.w": torch.ones(1)}, "f"), [(r"a\.(\d+)\.w", r"ours.\1.weight")])
    assert set(renamed.tensors) == {"ours.0.weight"}
    assert renamed.converted
    assert rename(renamed, []) is renamed


def test_a_key_that_no_rule_knows_is_named() -> None:
    with pytest.raises(CheckpointError, match="holds stray"):
        rename(Checkpoint({"stray": torch.ones(1)}, "f"), [("a", "b")])


def test_two_keys_for_one_name_are_refused() -> None:
    with pytest.raises(CheckpointError, match="two entries mean 'b'"):
        rename(Checkpoint({"a1": torch.ones(1), "a2": torch.ones(1)}, "f"), [("a.", "b")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("bias"), "lacks bias"),
        (lambda w: w.update(extra=torch.ones(1)), "holds extra"),
        (lambda w: w.update(bias=torch.ones(4)), r"bias \[4\] instead of \[3\]"),
        (lambda w: w["bias"].fill_(float("nan")), "not finite in bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(change, message: str) -> None:
    module, tensors = layer(), weights()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        load_strictly(module, Checkpoint(tensors, "f", converted=True))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_half_precision_files_fill_single_precision_modules() -> None:
    module = layer()
    load_strictly(module, Checkpoint({key: value.half() for key, value in weights().items()}, "f", converted=True))
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, weights()["weight"])


def test_batch_norm_counters_may_be_absent() -> None:
    module = nn.BatchNorm2d(2)
    tensors = {key: value for key, value in module.state_dict().items() if key != "num_batches_tracked"}
    load_strictly(module, Checkpoint(tensors, "f", converted=True))


def test_weights_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        write_checkpoint(tmp_path / "no" / "folder.safetensors", weights(), model="mast", official=True)


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
