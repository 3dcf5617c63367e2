"""Fit what a tracker's confidence means, on clips made from images that were held out of its training: prints the knots, draws the reliability.

    python scripts/calibrate.py MODEL --data IMAGES [--clips 40] [--picture FILE]

Half of the clips fit the knots, the other half judge them. The knots go into the model's config (`calibration`).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import rotoscope
from rotoscope.datasets.static_images import read_stills
from rotoscope.evaluation.calibration import fit, plot, reliability
from rotoscope.tracking.propagate import propagate
from rotoscope.training.augment import CameraSettings, through_camera
from rotoscope.training.image_bank import ImageBank
from rotoscope.training.synthesis import Sources, SynthesisSettings, synthesise
from rotoscope.types import Frame, Masks

HELD_OUT = 0.02
"""As `AotRecipe.held_out`: these images no training has seen."""
SETTINGS = SynthesisSettings(num_frames=16, size=353)


def main() -> None:
    """Fit and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    tracker = rotoscope.load(options.model, weights=options.weights, calibration=())
    pairs = [np.array(list(overlaps(tracker, *clip))) for clip in clips(options.data, options.clips)]
    fitted, judged = (np.concatenate(pairs[start::2]) for start in (0, 1))
    knots = fit(fitted[:, 0], fitted[:, 1])
    scores = np.interp(judged[:, 0], np.linspace(0, 1, len(knots)), knots)
    print(f"knots: {knots}")
    print(f"error on the other clips: {reliability(judged[:, 0], judged[:, 1]).error:.3f} raw, {reliability(scores, judged[:, 1]).error:.3f} fitted")
    print(f"correlation with the overlap: {np.corrcoef(judged.T)[0, 1]:.2f}; mean overlap {judged[:, 1].mean():.3f} over {len(judged)} masks")
    if options.picture:
        plot(reliability(scores, judged[:, 1]), options.picture, title=options.model)


def clips(root: Path, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Frames and labels of clips that show an object in their first frame."""
    stills = read_stills(root).stills
    bank = ImageBank.read(stills, longest_side=600)
    _, held_out = bank.split(HELD_OUT)
    generator = torch.Generator().manual_seed(1)
    made = 0
    while made < count:
        chosen = [held_out[place] for place in torch.randint(len(held_out), (1 + SETTINGS.num_layers,), generator=generator).tolist()]
        clip = synthesise(Sources(*(part[None] for part in bank.padded(chosen))), SETTINGS, generator)
        if int(clip.num_objects) == 0:
            continue
        made += 1
        images = through_camera(clip.images, CameraSettings(), generator)
        yield (images[:, 0] * 255).round().to(torch.uint8), clip.labels[:, 0]


def overlaps(tracker: object, images: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[float, float]]:
    """For each object and predicted frame the raw confidence and the overlap with the truth."""
    frames = (Frame(index, image) for index, image in enumerate(images))
    for frame, masks in propagate(frames, tracker.start(), {0: Masks.from_labels(labels[0].int())}):
        if frame.index == 0:
            continue
        predicted, truth = masks.labels(), labels[frame.index]
        for object_id, confidence in zip(masks.object_ids, masks.confidence(), strict=True):
            ours, theirs = predicted == object_id, truth == object_id
            union = int((ours | theirs).sum())
            yield confidence, int((ours & theirs).sum()) / union if union else 1.0


if __name__ == "__main__":
    main()
