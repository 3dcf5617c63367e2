"""One step of MAST at 480x854 with synthetic weights, beside what was measured of the official code (docs/mast.md)."""

import multiprocessing as mp

import torch

from bench.tables import cost_of, peak_megabytes, show

SHORT, FAR = (0, 5, 9, 11, 13), (0, 5, 17, 19, 21)
OFFICIAL = {SHORT: ("67 to 72", "7.3"), FAR: ("125 to 165 (extrapolated)", "about 16")}


def main() -> None:
    """Print the table."""
    rows = []
    with mp.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for references, objects in ((SHORT, 1), (SHORT, 3), (FAR, 1), (FAR, 3)):
            encode, step, peak = pool.apply(measure, (references, objects))
            rows.append(
                (f"{references} → {references[-1] + 1}", objects, encode, step, OFFICIAL[references][0], peak / 1024, OFFICIAL[references][1])
            )
    header = ("references → target", "objects", "encoder, CPU s", "step, CPU s", "official step, CPU s", "peak, GB", "official peak, GB")
    show("MAST, one frame at 480x854, one thread", header, rows)


def measure(references: tuple[int, ...], num_objects: int) -> tuple[float, float, float]:
    """CPU seconds of the encoder and of the whole step, and the peak in MB."""
    from rotoscope.models.mast import VARIANTS, MastTracker
    from rotoscope.models.mast.network import MastEncoder
    from rotoscope.models.mast.propagator import encode
    from rotoscope.testing import moving_shapes
    from rotoscope.types import Frame, Masks

    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = MastEncoder().requires_grad_(requires_grad=False)
    encoder.fold()
    images, labels = moving_shapes(num_frames=references[-1] + 2, hw=(480, 854), num_objects=num_objects)
    propagator = MastTracker(encoder.to(memory_format=torch.channels_last), VARIANTS["mast"]).start()
    for step in references:
        propagator.remember(Frame(step, images[step]), Masks.from_labels(labels[step], range(1, num_objects + 1)), given=step == 0)
    target = Frame(references[-1] + 1, images[-1])
    with torch.inference_mode():
        alone = cost_of(lambda: encode(encoder, target))
        whole = cost_of(lambda: propagator.predict(target))
    return alone.cpu_seconds, whole.cpu_seconds, peak_megabytes()
