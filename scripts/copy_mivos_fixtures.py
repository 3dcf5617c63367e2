"""Copy the stored official outputs of MiVOS compactly: `python scripts/copy_mivos_fixtures.py FROM TO` (FROM holds the originals, see its README).

Inputs that are random numbers are kept as their seed, images as bytes, large maps at every second pixel or some channels, and numbers without the
digits that are below the tolerances.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EXACT, FINE, COARSE = 2.0**-20, 2.0**-17, 2.0**-16
"""Steps of stored numbers, for tolerances of 1e-5, 5e-5 and 1e-4."""
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def main() -> None:
    """Copy every file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    original = {path.stem: dict(np.load(path)) for path in arguments.source.glob("*.npz")}
    for name, arrays in compact(original).items():
        np.savez_compressed(arguments.target / f"{name}.npz", **arrays)
    keys = json.loads((arguments.source / "keys.json").read_text(encoding="utf-8"))
    (arguments.target / "keys.json").write_text(json.dumps(short_keys(keys), separators=(",", ":")), encoding="utf-8")
    scribbles = json.loads((arguments.source / "davis_scribbles.json").read_text(encoding="utf-8"))
    (arguments.target / "davis_scribbles.json").write_text(json.dumps(scribbles, separators=(",", ":")), encoding="utf-8")


def compact(original: dict[str, dict[str, NDArray]]) -> dict[str, dict[str, NDArray]]:
    """The arrays as they are stored, by file."""
    files = {name: dict(arrays) for name, arrays in original.items()}
    files["core_run"] |= files.pop("core_run_probs")
    for name in ("memory", "propagation", "s2m", "fusion", "core_run", "core_fusion_step", "core_run_single", "davis_processor"):
        files[name] = globals()[f"short_{name}"](files[name])
    return {name: {key: value for key, value in arrays.items() if value is not None} for name, arrays in files.items()}


def short_memory(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """Keys and values are normal numbers of one generator, in this order."""
    random = np.random.RandomState(101)
    for key in ("mk", "mv", "qk"):
        assert np.array_equal(random.standard_normal(arrays[key].shape).astype(np.float32), arrays.pop(key)), f"{key} is not what its seed gives"
    return {key: rounded(value, EXACT) for key, value in arrays.items()}


def short_propagation(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """Few channels of wide maps."""
    for key in ("mem_val0", "mem_val1", "mem_val_single"):
        arrays[key] = arrays[key][:, ::8]
    arrays["f16"] = arrays["f16"][:, ::16]
    for key in ("f8_first64", "f4_first32", "query_val", "readout_obj1"):
        arrays[key] = arrays[key][:, ::4]
    for key in ("mem_key0", "mem_key1", "mem_key_single"):
        arrays[key] = arrays[key][:, ::2]
    arrays["images"] = arrays["images"][..., ::4, ::4]
    probs = {key: rounded(arrays[key][..., ::2, ::2], FINE) for key in ("seg_prob", "seg_wbg")}
    inputs = {"frames": arrays["frames"], "masks0": arrays["masks0"], "masks1": arrays["masks1"].astype(np.uint8)}
    return {key: rounded(value, COARSE) for key, value in arrays.items()} | probs | inputs


def short_s2m(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """The input of object 1 follows from the image and the maps; the other input is normal numbers."""
    odd = arrays.pop("input6_odd")
    assert np.array_equal(np.random.RandomState(105).standard_normal(odd.shape).astype(np.float32), odd), "input6_odd is not what its seed gives"
    pixels, six = image_bytes(arrays.pop("image")), arrays.pop("input6")
    assert np.array_equal(image_bytes(six[:, :3]), pixels), "the input holds another image"
    assert np.array_equal(six[0, 3], arrays["prev_index_mask"][0] == 1), "the input holds another mask"
    short = {"frame": pixels, "prev_index_mask": arrays["prev_index_mask"], "scribble_map": arrays["scribble_map"]}
    for key in ("logits", "logits_odd", "object_prob", "mask_soft", "mask_hard"):
        short[key] = rounded(arrays[key][..., ::2, ::2], FINE)
    return short | {key: rounded(arrays[key][:, ::2], COARSE) for key in ("layer4_first32", "low_level_first16")}


def short_fusion(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """The image is one of bytes; the other inputs stay."""
    short = {key: rounded(arrays[key], EXACT) for key in ("seg_prev", "seg_curr", "attn", "time_a", "time_b")}
    short["frame"] = image_bytes(arrays["image"])
    return short | {key: rounded(arrays[key][..., ::2, ::2], FINE) for key in ("logits_a", "logits_b")}


def short_core_run(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """Probabilities of the objects; that of the background is the rest."""
    for key in ("prob_1", "prob_2"):
        arrays[f"{key}_every2px"] = rounded(arrays.pop(key)[1:, :, ::2, ::2], FINE)
    arrays["prob_3_every2px"] = rounded(arrays["prob_3_every2px"][1:], FINE)
    arrays["certain_mem_key_first16"] = rounded(arrays["certain_mem_key_first16"][:, ::2], COARSE)
    return arrays


def short_core_fusion_step(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """Every second pixel of everything."""
    indices = arrays.pop("frame_indices_tc_tr_ti")
    return {key: rounded(value[..., ::2, ::2], FINE) for key, value in arrays.items()} | {"frame_indices_tc_tr_ti": indices}


def short_core_run_single(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """The object's probability alone."""
    return arrays | {key: rounded(arrays[key][1:], FINE) for key in ("prob_1", "prob_2")}


def short_davis_processor(arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """The frames are those of core_run; the results after the third interaction depend on single pixels, so they are left out."""
    arrays.pop("frames")
    arrays["scribble_map_padded"] = arrays["scribble_map_padded"].astype(np.int8)
    arrays["first_mask_hard"] = rounded(arrays["first_mask_hard"][..., ::2, ::2], FINE)
    arrays["s2m_prob"] = rounded(arrays["s2m_prob"][..., ::2, ::2], FINE)
    arrays["prob_after3_every2px"] = rounded(arrays["prob_after3_every2px"][1:], 2.0**-13)
    arrays["out_masks"] = arrays["out_masks"][:3]
    arrays["scribble_pos_neg"] = np.packbits(arrays["scribble_pos_neg"])
    return arrays


def image_bytes(image: NDArray) -> NDArray:
    """A normalised image as the bytes that it was made of."""
    values = (image[0].astype(np.float64) * STD[:, None, None] + MEAN[:, None, None]) * 255
    assert float(np.abs(values - values.round()).max()) < 1e-3, "this image was not made of bytes"
    return values.round().astype(np.uint8)


def rounded(values: NDArray, step: float) -> NDArray:
    """Numbers in whole steps, which take fewer bits; integers as they are."""
    return (np.round(values / step) * step).astype(np.float32) if values.dtype.kind == "f" else values


def short_keys(keys: dict) -> dict:
    """Without the click model, which nothing here runs; constants by key, whatever the model."""
    overrides = {key: value[0] for constants in keys["overrides"].values() for key, value in constants.items()}
    models = {name: entries for name, entries in keys["models"].items() if name in ("propagation", "s2m", "fusion")}
    return {"weight_gain": keys["weight_gain"], "overrides": overrides, "models": models}


if __name__ == "__main__":
    main()
