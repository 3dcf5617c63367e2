import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rotoscope.errors import CheckpointError, InputError
from rotoscope.models import registry
from rotoscope.models.checkpoints import Checkpoint, rename, write_checkpoint
from rotoscope.models.yolact import OFFICIAL_FILES, VARIANTS, RawOutputs, YolactConfig, YolactDetector, build, detections_of, fresh_network
from rotoscope.models.yolact.detector import boxes_in_pixels, judged
from rotoscope.models.yolact.mask_iou import LEAST_SIDE, MaskIouNetwork
from rotoscope.models.yolact.naming import OFFICIAL_NAMES
from rotoscope.models.yolact.pictures import network_size
from rotoscope.models.yolact.reading import Instances, read_instances
from rotoscope.ops.boxes import encode
from rotoscope.testing import moving_shapes
from rotoscope.types import Detections, Detector, Frame

PARITY_DATA = Path(__file__).resolve().parents[1] / "parity" / "data" / "yolact"
TINY = replace(VARIANTS["yolact-lite"], image_size=64)
NAMES = ("cat", "dog", "bird")


def lite_checkpoint(config: YolactConfig = TINY) -> Checkpoint:
    return Checkpoint(dict(fresh_network(config, seed=1).state_dict()), "lite", official=False, converted=True)


@cache
def detector() -> YolactDetector:
    """Untrained, so that every prior is likely enough to be something."""
    return build(TINY, lite_checkpoint(), "cpu")


def with_settings(**settings: object) -> YolactDetector:
    return YolactDetector(detector().network, replace(TINY, **settings))


def frame_of(hw: tuple[int, int], index: int = 0) -> Frame:
    image = torch.randint(0, 256, (3, *hw), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
    return Frame(index, image)


def check(found: Detections, hw: tuple[int, int]) -> None:
    """What holds of all detections."""
    count = len(found.scores)
    assert found.boxes.shape == (count, 4)
    assert found.masks.shape == (count, *hw)
    assert found.masks.dtype == torch.bool
    assert found.class_ids.shape == (count,)
    assert bool(((found.scores >= 0) & (found.scores <= 1)).all())
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    limits = torch.tensor([hw[1], hw[0], hw[1], hw[0]])
    assert bool(((found.boxes >= 0) & (found.boxes <= limits)).all())
    assert bool((found.boxes[:, 2:] >= found.boxes[:, :2]).all())


def alike(first: Detections, second: Detections) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("boxes", "scores", "class_ids", "masks"))


def test_it_is_a_detector_and_finds_what_there_may_be() -> None:
    assert isinstance(detector(), Detector)
    found = detector().detect(frame_of((48, 80)))
    check(found, (48, 80))
    assert 0 < len(found.scores) <= 100
    assert found.mask_scores is None


def test_nothing_found_is_a_result() -> None:
    for settings in ({"score_threshold": 1.0}, {"min_score": 1.0}):
        found = with_settings(**settings).detect(frame_of((48, 80)))
        check(found, (48, 80))
        assert len(found.scores) == 0


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (50, 20_000), (20_000, 50), (7, 5), (65, 64)])
def test_pictures_of_any_shape(hw: tuple[int, int], keep: bool) -> None:
    check(with_settings(keep_aspect_ratio=keep, max_detections=5).detect(frame_of(hw)), hw)


@pytest.mark.parametrize("hw", [(0, 5), (5, 0)])
def test_a_frame_without_pixels_is_refused(hw: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"frame 3 has .* nothing to see"):
        detector().detect(frame_of(hw, index=3))


def test_a_batch_finds_what_its_frames_alone_have_whatever_their_sizes() -> None:
    frames = [frame_of(hw, index) for index, hw in enumerate([(48, 80), (48, 80), (30, 30), (48, 80), (80, 48)])]
    for keep in (False, True):
        one = with_settings(keep_aspect_ratio=keep, frames_at_once=2)
        together = one.detect_batch(frames)
        for frame, found in zip(frames, together, strict=True):
            alone = one.detect(frame)
            check(found, frame.hw)
            assert torch.allclose(found.scores, alone.scores, atol=1e-4)
    assert detector().detect_batch([]) == []


def test_looking_twice_and_in_several_threads_gives_the_same() -> None:
    frame = frame_of((48, 80))
    first = detector().detect(frame)
    with ThreadPoolExecutor(4) as pool:
        assert all(alike(first, found) for found in pool.map(detector().detect, [frame] * 8))


def test_the_frame_stays_as_it_is() -> None:
    frame = frame_of((64, 64))
    before = frame.image.clone()
    detector().detect(frame)
    assert torch.equal(frame.image, before)


@pytest.mark.parametrize(("hw", "expected"), [((480, 640), (55, 73)), ((1, 100_000), (1, 20_238)), ((64, 64), (64, 64))])
def test_the_size_that_keeps_the_aspect_ratio_has_as_many_pixels(hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(hw, replace(TINY, keep_aspect_ratio=True)) == expected
    assert network_size(hw, TINY) == (64, 64)


def outputs_for(boxes: list[list[float]], probabilities: list[list[float]]) -> RawOutputs:
    """Outputs that mean these boxes (relative) and probabilities (of the background and three classes)."""
    priors = torch.tensor([0.5, 0.5, 0.4, 0.4]).expand(len(boxes), 4)
    return RawOutputs(
        offsets=encode(torch.tensor(boxes).view(-1, 4), priors)[None],
        class_logits=torch.tensor(probabilities).view(1, -1, 4).log(),
        coefficients=torch.eye(4)[None, : len(boxes)].clone(),
        prototypes=torch.full((1, 4, 8, 8), 2.0),
        priors=priors,
    )


BOXES = [[0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], [-0.2, 0.5, 0.3, 1.4]]
PROBABILITIES = [[0.1, 0.8, 0.06, 0.04], [0.2, 0.1, 0.6, 0.1], [0.5, 0.01, 0.01, 0.48], [0.97, 0.01, 0.01, 0.01]]


def found_in(settings: dict[str, object]) -> list[tuple[str, float, list[float]]]:
    found = read_instances(outputs_for(BOXES, PROBABILITIES), 0, YolactConfig(NAMES, **settings))
    rows = zip(found.class_ids.tolist(), found.scores.tolist(), found.coefficients.tolist(), strict=True)
    return [(NAMES[class_id], round(score, 4), coefficients) for class_id, score, coefficients in rows]


def one(index: int) -> list[float]:
    return torch.eye(4)[index].tolist()


def test_each_class_is_suppressed_by_itself_and_cross_class_together() -> None:
    best = [("cat", 0.8, one(0)), ("dog", 0.6, one(1)), ("bird", 0.48, one(2))]
    assert found_in({})[:3] == best
    assert found_in({"suppression": "cross-class"}) == [best[0], best[2]]
    assert found_in({"suppression": "classic", "score_threshold": 0.3}) == best


def test_scores_below_the_threshold_of_priors_come_back_unless_they_are_refused() -> None:
    assert ("cat", 0.01, one(2)) in found_in({})
    assert ("bird", 0.01, one(3)) not in found_in({})
    assert min(score for _, score, _ in found_in({"min_score": 0.05})) == 0.1
    assert [score for _, score, _ in found_in({"min_score": 0.6})] == [0.8, 0.6]


def test_only_some_classes_can_be_looked_for() -> None:
    assert found_in({"only_classes": ("dog",)}) == [("dog", 0.6, one(1))]
    assert found_in({"only_classes": ("bird", "cat"), "min_score": 0.2}) == [("cat", 0.8, one(0)), ("bird", 0.48, one(2))]


def test_no_more_are_returned_than_asked_for() -> None:
    assert found_in({"max_detections": 2}) == found_in({})[:2]


def test_no_priors_give_no_instances() -> None:
    empty = outputs_for([], [])
    for suppression in ("fast", "cross-class", "classic"):
        found = detections_of(empty, 0, (20, 30), YolactConfig(NAMES, suppression=suppression))
        check(found, (20, 30))
        assert len(found.scores) == 0


def test_boxes_are_cut_at_the_border_and_outputs_left_alone() -> None:
    outputs = outputs_for(BOXES, [[0.1, 0.3, 0.3, 0.3]] * 4)
    before = [getattr(outputs, name).clone() for name in ("offsets", "class_logits", "coefficients", "prototypes", "priors")]
    first, second = (detections_of(outputs, 0, (100, 200), YolactConfig(NAMES, overlap_threshold=1.0)) for _ in range(2))
    check(first, (100, 200))
    assert torch.allclose(first.boxes[3], torch.tensor([0.0, 50.0, 60.0, 100.0]), atol=1e-4)
    assert alike(first, second)
    after = [getattr(outputs, name) for name in ("offsets", "class_logits", "coefficients", "prototypes", "priors")]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_boxes_beside_the_picture_have_no_extent() -> None:
    boxes = torch.tensor([[-0.5, 0.2, -0.1, 0.4], [1.2, 0.2, 1.6, 0.4]])
    assert boxes_in_pixels(boxes, (10, 20)).tolist() == [[0, 2, 0, 4], [20, 2, 20, 4]]


class Judge(MaskIouNetwork):
    """A network that gives what it is told, and notes the sizes of what it sees."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__(answers.shape[1])
        self.answers, self.seen = answers, []

    def forward(self, masks: Tensor) -> Tensor:
        self.seen.append(tuple(masks.shape))
        return self.answers


def test_masks_are_judged_as_of_their_class_and_ranked_apart() -> None:
    outputs = outputs_for(BOXES[:3:2], [[0.1, 0.8, 0.0, 0.1], [0.1, 0.0, 0.4, 0.5]])
    judge = Judge(torch.tensor([[0.5, 0.1, 0.2], [0.3, 0.4, 1.0]]))
    config = YolactConfig(NAMES, mask_iou=True, max_detections=2)
    found = detections_of(outputs, 0, (20, 30), config, judge)
    assert found.class_ids.tolist() == [0, 2]
    assert found.mask_scores is not None
    assert torch.allclose(found.mask_scores, torch.tensor([0.4, 0.5]))
    assert judge.seen == [(2, 1, LEAST_SIDE, LEAST_SIDE)]
    fewer = detections_of(outputs, 0, (20, 30), replace(config, min_score=0.45), judge)
    assert fewer.class_ids.tolist() == [2]
    assert fewer.mask_scores is not None
    assert len(fewer.mask_scores) == len(fewer.masks) == 1


def test_small_masks_are_judged_with_a_margin_and_none_are_not_judged() -> None:
    torch.manual_seed(2)
    judge = MaskIouNetwork(3)
    soft = torch.rand(2, 40, 90)
    found = Instances(torch.zeros(2, 4), torch.ones(2), torch.tensor([2, 0]), torch.zeros(2, 1))
    with torch.no_grad():
        padded = judge(torch.nn.functional.pad(soft, (0, 0, 0, LEAST_SIDE - 40))[:, None])
        assert torch.equal(judged(soft, found, judge), padded[[0, 1], [2, 0]])
    nothing = Instances(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1))
    assert judged(torch.zeros(0, 40, 90), nothing, Judge(torch.zeros(0, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_threshold": 1.5}, "score_threshold is 1.5; give a number from 0 to 1"),
        ({"overlap_threshold": -0.1}, "overlap_threshold is -0.1"),
        ({"min_score": 2.0}, "min_score is 2.0"),
        ({"top_k": 0}, "top_k is 0; give 1 or more"),
        ({"max_detections": -1}, "max_detections is -1"),
        ({"frames_at_once": 0}, "frames_at_once is 0"),
        ({"only_classes": ("cow", "cat")}, "knows no class cow; it knows cat, dog, bird"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        YolactConfig(NAMES, **settings)


def test_a_suppression_that_there_is_not_is_refused() -> None:
    config = YolactConfig(NAMES)
    object.__setattr__(config, "suppression", "soft")  # in tests the constructor would refuse the type first
    with pytest.raises(InputError, match="no suppression 'soft'; there are fast, cross-class, classic"):
        config.__post_init__()


def test_weights_load_by_name_with_settings(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, lite_checkpoint(VARIANTS["yolact-lite"]).tensors, model="yolact-lite", official=False)
    loaded = registry.load_detector(weights=path, device="cpu", image_size=64, max_detections=3, only_classes=["object"])
    frame = frame_of((48, 80))
    assert alike(loaded.detect(frame), with_settings(max_detections=3, only_classes=("object",)).detect(frame))
    with pytest.raises(InputError, match=r"has no setting top; it has .*top_k"):
        registry.load_detector(weights=path, device="cpu", top=3)
    with pytest.raises(InputError, match="its task is 'detect'"):
        registry.load("yolact-lite", weights=path)


def test_weights_for_other_classes_say_how_many_they_know(tmp_path: Path) -> None:
    config = replace(TINY, class_names=("a", "b", "c", "d"))
    checkpoint = lite_checkpoint(config)
    with pytest.raises(CheckpointError, match="knows 4 classes, but 2 are named; give class_names"):
        build(TINY, checkpoint, "cpu")
    assert build(config, checkpoint, "cpu").detect(frame_of((48, 80))).class_ids.max() <= 3


def test_weights_of_another_system_are_refused_at_once() -> None:
    with pytest.raises(CheckpointError, match="holds no weights of YOLACT"):
        build(TINY, Checkpoint({"Encoder.conv1.weight": torch.ones(1)}, "f"), "cpu")


def test_leftovers_of_old_official_files_are_dropped() -> None:
    keys = json.loads((PARITY_DATA / "keys.json").read_text())["models"]["yolact_resnet50"]
    tensors = dict.fromkeys(keys, torch.ones(1))
    old = tensors | {"backbone.layer1.0.conv1.weight": torch.ones(1), "fpn.downsample_layers.2.weight": torch.ones(1)}
    assert rename(Checkpoint(old, "old"), OFFICIAL_NAMES).tensors.keys() == rename(Checkpoint(tensors, "f"), OFFICIAL_NAMES).tensors.keys()


def test_models_with_the_same_keys_are_told_by_the_names_of_official_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_if_alike(spec: registry.ModelSpec, checkpoint: Checkpoint, *, device: str) -> None:
        if spec.name not in {"yolact-base", "yolact-im400", "yolact-im700"}:
            raise CheckpointError(device)

    monkeypatch.setattr(registry, "build", build_if_alike)
    assert registry.identify(Checkpoint({}, "renamed.pth")) == ["yolact-base", "yolact-im400", "yolact-im700"]
    for name in ("yolact-base", "yolact-im700"):
        assert registry.identify(Checkpoint({}, f"folder/{OFFICIAL_FILES[name]}")) == [name]


def test_the_table_names_the_official_files() -> None:
    rows = {spec.name: spec.official_files for spec in registry.list_models("detect")}
    assert rows.keys() == VARIANTS.keys()
    assert {name: (file,) for name, file in OFFICIAL_FILES.items()} == {name: files for name, files in rows.items() if files}


def test_a_moving_picture_is_looked_at_frame_by_frame() -> None:
    images, _ = moving_shapes(num_frames=3, hw=(48, 64), num_objects=2)
    frames = [Frame(index, image) for index, image in enumerate(images)]
    assert len(detector().detect_batch(frames)) == 3
