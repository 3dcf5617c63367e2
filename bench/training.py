"""What a training step costs: making the clips, the network there and back, and the gradient of depth-wise filters against PyTorch's."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.tables import show

BANK_IMAGES = 32
FILTERS = ((1024, 13, 1), (672, 12, 1), (144, 47, 2))
"""Channels, side of the map and stride of deaot-lite's 5 x 5 filters at 177 to 193 pixels."""


def main() -> None:
    """Print the tables."""
    from rotoscope.training.synthesis import SynthesisSettings

    torch.set_num_threads(1)
    rows = []
    for frames, size in ((4, 177), (5, 465)):
        settings = SynthesisSettings(num_frames=frames, size=size)
        seconds = measure_clips(settings, "cpu")
        rows.append(("CPU, 1 thread", f"{frames} x {size} x {size}", seconds, frames / seconds))
        if torch.cuda.is_available():
            seconds = measure_clips(settings, "cuda")
            rows.append((torch.cuda.get_device_name(), f"{frames} x {size} x {size}", seconds, frames / seconds))
    show("Clips made from static images, camera faults included, batches of 8", ("device", "clip", "s per clip", "frames/s"), rows)
    show(
        "A step of deaot-lite, 2 clips of 4 frames of 177 pixels, 1 thread",
        ("arithmetic", "clips, s", "forward, s", "forward and backward, s"),
        [(precision, *measure_step(precision)) for precision in ("float32", "bfloat16")],
    )
    rows = [(f"{channels} x {side} x {side}, stride {stride}", *_filters(channels, side, stride)) for channels, side, stride in FILTERS]
    show("Forward and backward of a 5 x 5 depth-wise filter, 2 samples, bfloat16, channels last", ("map", "ours, s", "PyTorch, s", "ratio"), rows)


def _bank() -> object:
    from rotoscope.training.image_bank import Decoded, ImageBank

    random = torch.Generator().manual_seed(0)
    items = []
    for index in range(BANK_IMAGES):
        labels = torch.zeros(240, 320, dtype=torch.uint8)
        labels[60:180, 80 + index : 220] = 1
        items.append(Decoded(str(index), torch.randint(0, 256, (240, 320, 3), dtype=torch.uint8, generator=random).numpy(), labels.numpy()))
    return ImageBank.collect(items)


def _median(work: Callable[[], object], repeats: int = 3) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def measure_clips(settings: object, device: str) -> float:
    """Seconds to make one clip, in batches of eight."""
    from rotoscope.training.augment import CameraSettings, through_camera
    from rotoscope.training.clip_source import SyntheticClips
    from rotoscope.training.task import Draw

    source = SyntheticClips(_bank().to(device), range(BANK_IMAGES), settings)

    def work() -> None:
        clips, generator = source.clips(source.batch(Draw(0, 0, 8, 0)))
        through_camera(clips.images, CameraSettings(), generator)

    return _median(work) / 8


def measure_step(precision: str) -> tuple[float, float, float]:
    """Seconds to make the clips, to pass them, and to pass them there and back."""
    from dataclasses import replace

    from rotoscope.models.aot import VARIANTS
    from rotoscope.training.clip_source import SyntheticClips
    from rotoscope.training.recipes.aot import AotTask, default_recipe, fresh_network
    from rotoscope.training.synthesis import SynthesisSettings
    from rotoscope.training.task import Draw

    recipe = replace(default_recipe("deaot-lite"), num_frames=4, size=177)
    network = fresh_network(VARIANTS["deaot-lite"], seed=0)
    source = SyntheticClips(_bank(), range(BANK_IMAGES), SynthesisSettings(num_frames=4, size=177))
    task = AotTask(recipe, network.to(memory_format=torch.channels_last), source)
    batch = task.batch(Draw(0, 0, 2, 0))

    def losses() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            return task.losses(batch, 0).total

    def there_and_back() -> None:
        losses().backward()
        network.zero_grad()

    return _median(lambda: source.clips(batch)), _median(losses), _median(there_and_back)


def _filters(channels: int, side: int, stride: int) -> tuple[float, float, float]:
    from rotoscope.ops.depthwise import depthwise_conv2d

    x = torch.randn(2, channels, side, side, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, 1, 5, 5, dtype=torch.bfloat16).requires_grad_()
    ours = _median(lambda: depthwise_conv2d(x, weight, stride=stride, padding=2).sum().backward())
    theirs = _median(lambda: F.conv2d(x, weight, stride=stride, padding=2, groups=channels).sum().backward())
    return ours, theirs, theirs / ours
