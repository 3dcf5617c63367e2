"""The detector that ships, on the first frames of real clips."""

from pathlib import Path

import pytest
import torch

from rotoscope.datasets.davis import read_davis, read_label_map
from rotoscope.models import registry
from rotoscope.types import Frame
from rotoscope.video.folders import read_picture


@pytest.mark.real_data
def test_the_main_object_is_among_the_five_best_finds_in_most_clips(shared_data: Path) -> None:
    detector = registry.load_detector("yolact-lite", device="cpu")
    best = {}
    for clip in read_davis(shared_data / "davis2016-open", with_frames=True):
        image = torch.from_numpy(read_picture(clip.frame_paths[0])).permute(2, 0, 1).contiguous()
        truth = torch.from_numpy(read_label_map(clip.annotation_paths[0]) != 0)
        masks = detector.detect(Frame(0, image)).masks[:5]
        best[clip.name] = max(float((mask & truth).sum() / (mask | truth).sum()) for mask in masks)
    assert len(best) == 10
    assert sum(overlap >= 0.5 for overlap in best.values()) >= 8, best
