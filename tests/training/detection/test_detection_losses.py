"""The losses where the official code gave infinities and NaN, or stopped; parity is in tests/parity."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotoscope.models.yolact import MaskIouNetwork, RawOutputs
from rotoscope.training.detection.class_losses import class_loss, hard_negatives
from rotoscope.training.detection.mask_losses import Positives, mask_loss
from rotoscope.training.detection.matching import ANY_OBJECT, BACKGROUND, NEUTRAL
from rotoscope.training.detection.multibox import detection_losses
from rotoscope.training.detection.settings import LossSettings
from rotoscope.training.detection.truth import ANY_CLASS, Truth

SIDE = 64  # of the masks
NO_BOXES = torch.zeros(0, 4)
CLASS_LOSSES = ["mined", "softmax-focal", "sigmoid-focal", "objectness-focal", "objectness"]


def outputs(num_images: int = 2, num_classes: int = 3, *, gain: float = 1.0, prototypes: int = 16) -> RawOutputs:
    """Random outputs with a gradient; priors are a grid of two sizes."""
    random = torch.Generator().manual_seed(1)
    axis = (torch.arange(8) + 0.5) / 8
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    priors = torch.cat([torch.stack((x, y, torch.full_like(x, side), torch.full_like(x, side)), -1).view(-1, 4) for side in (0.15, 0.4)])
    shapes = ((len(priors), 4), (len(priors), num_classes + 1), (len(priors), 5), (5, prototypes, prototypes), (num_classes, 8, 8))
    drawn = [(gain * torch.randn(num_images, *shape, generator=random)).requires_grad_() for shape in shapes]
    offsets, logits, coefficients, maps, semantic = drawn
    return RawOutputs(offsets, logits, coefficients, maps, priors, semantic)


def square(x0: float, y0: float, x1: float, y1: float) -> torch.Tensor:
    """The mask of a square."""
    mask = torch.zeros(SIDE, SIDE)
    mask[round(y0 * SIDE) : round(y1 * SIDE), round(x0 * SIDE) : round(x1 * SIDE)] = 1
    return mask


def shown(*boxes: tuple[float, float, float, float], class_id: int = 0, crowds: torch.Tensor = NO_BOXES) -> Truth:
    masks = torch.stack([square(*box) for box in boxes]) if boxes else torch.zeros(0, SIDE, SIDE)
    return Truth(torch.tensor(boxes).view(-1, 4), torch.full((len(boxes),), class_id), masks, crowds)


def checked(found: RawOutputs, truths: list[Truth], chosen: LossSettings, **others: object) -> dict[str, torch.Tensor]:
    """The losses, after seeing that they and all gradients are finite."""
    losses = detection_losses(found, truths, chosen, **others)
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    sum(losses.values()).backward()
    leaves = (found.offsets, found.class_logits, found.coefficients, found.prototypes, found.semantic_logits)
    assert all(leaf.grad is None or bool(torch.isfinite(leaf.grad).all()) for leaf in leaves)
    return losses


EMPTY, WHOLE = shown(), shown((0.1, 0.1, 0.6, 0.6))
HARD = {
    "no object in the batch": [EMPTY, EMPTY],
    "no object in one image": [EMPTY, WHOLE],
    "crowds alone": [shown(crowds=torch.tensor([[0.0, 0.0, 1.0, 1.0]]))] * 2,
    "a crowd of no size": [shown((0.1, 0.1, 0.6, 0.6), crowds=torch.zeros(1, 4)), WHOLE],
    "objects of a thousandth": [shown((0.5, 0.5, 0.501, 0.501)), WHOLE],
    "objects of a millionth": [shown((0.5, 0.5, 0.500001, 0.500001)), WHOLE],
    "objects without masks": [replace(WHOLE, masks=torch.zeros(1, SIDE, SIDE)), WHOLE],
    "objects at the edge": [shown((0.99, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)), WHOLE],
    "the same object many times": [shown(*[(0.1, 0.1, 0.6, 0.6)] * 40), WHOLE],
    "more objects than priors": [shown(*[(0.1, 0.1, 0.6, 0.6)] * 140), WHOLE],
    "no stated class": [shown((0.1, 0.1, 0.6, 0.6), class_id=ANY_CLASS), WHOLE],
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("kind", CLASS_LOSSES)
def test_the_losses_are_finite(name, kind):
    losses = checked(outputs(), HARD[name], LossSettings(class_loss=kind, lone_negatives=4))
    assert set(losses) == {"B", "M", "C", "S"}


@pytest.mark.parametrize("gain", [0.0, 50.0, 1e4])
@pytest.mark.parametrize("kind", CLASS_LOSSES)
def test_saturated_outputs_leave_the_losses_finite(gain, kind):
    checked(outputs(gain=gain), [WHOLE, EMPTY], LossSettings(class_loss=kind, crop="predicted" if gain < 100 else "truth"))


@pytest.mark.parametrize("num_classes", [1, 2])
@pytest.mark.parametrize("kind", CLASS_LOSSES)
def test_one_class_is_enough(num_classes, kind):
    checked(outputs(num_classes=num_classes), [WHOLE, EMPTY], LossSettings(class_loss=kind, is_class_balanced=True))


def test_half_precision_is_computed_in_full():
    found = outputs()
    halves = RawOutputs(*(getattr(found, name).bfloat16() for name in ("offsets", "class_logits", "coefficients", "prototypes")), found.priors)
    losses = detection_losses(halves, [WHOLE, EMPTY], LossSettings())
    assert all(loss.dtype == torch.float32 and bool(torch.isfinite(loss)) for loss in losses.values())


def test_every_loss_has_a_gradient_without_objects():
    losses = detection_losses(outputs(prototypes=70), [EMPTY, EMPTY], LossSettings(diversity_weight=1.0), judge=MaskIouNetwork(3))
    assert {letter for letter, loss in losses.items() if loss.requires_grad} == {"B", "M", "C", "D", "I", "S"}
    assert all(losses[letter].item() == 0 for letter in "BMIC")


def test_an_image_without_objects_teaches_the_background_if_told_so():
    assert float(detection_losses(outputs(), [EMPTY, EMPTY], LossSettings(lone_negatives=4))["C"].detach()) > 0


def test_the_losses_of_a_batch_do_not_depend_on_an_empty_image_officially():
    found = outputs()
    alone = RawOutputs(found.offsets[:1], found.class_logits[:1], found.coefficients[:1], found.prototypes[:1], found.priors)
    for letter in "BCM":
        both, one = (detection_losses(made, truths, LossSettings())[letter] for made, truths in ((found, [WHOLE, EMPTY]), (alone, [WHOLE])))
        assert float((both - one).detach().abs()) < 1e-4


def test_three_negatives_count_for_each_positive_and_they_are_the_hardest():
    targets = torch.tensor([[1, 0, 0, 0, 0, 0, NEUTRAL, 0], [0] * 8])
    logits = torch.zeros(2, 8, 2)
    logits[0, :, 1] = torch.arange(8)
    chosen = hard_negatives(logits, targets, LossSettings())
    assert chosen[0].nonzero().flatten().tolist() == [4, 5, 7]
    assert not chosen[1].any()
    assert hard_negatives(logits, targets, LossSettings(lone_negatives=2))[1].sum() == 2


def test_positives_are_never_taken_for_negatives():
    targets = torch.tensor([[1, 1, 1, 0]])
    assert hard_negatives(torch.zeros(1, 4, 2), targets, LossSettings()).tolist() == [[False, False, False, True]]


def cross_entropy_of(logits: list[float], target: int, **changes: object) -> float:
    chosen = LossSettings(negatives_per_positive=0.0, **changes)
    return float(class_loss(torch.tensor([[logits]]), torch.tensor([[target]]), chosen, torch.zeros(1)))


def test_where_any_class_is_right_their_probabilities_add_up():
    logits = [0.3, 1.0, -0.5]
    expected = -torch.tensor(logits).softmax(0)[1:].sum().log()
    assert cross_entropy_of(logits, ANY_OBJECT) == pytest.approx(float(expected), rel=1e-5)


def test_a_likelier_class_is_preferred_where_any_is_right():
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    class_loss(logits, torch.tensor([[ANY_OBJECT]]), LossSettings(class_prior=(0.2, 0.8)), torch.zeros(1)).backward()
    assert logits.grad[0, 0, 2] < logits.grad[0, 0, 1] < logits.grad[0, 0, 0]


@pytest.mark.parametrize("kind", CLASS_LOSSES)
def test_a_better_answer_costs_less(kind):
    def cost(good: float) -> float:
        logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
        is_object = 0 if "objectness" in kind else 1
        logits[0, 0, is_object], logits[0, 1, is_object] = good, -good
        chosen = LossSettings(class_loss=kind)
        return float(class_loss(logits, torch.tensor([[1, BACKGROUND]]), chosen, torch.ones(1)))

    assert cost(2.0) < cost(0.0) < cost(-2.0)


def positives(count: int, box: tuple[float, float, float, float]) -> Positives:
    return Positives(torch.zeros(count, dtype=torch.int64), torch.ones(count, 1), torch.tensor([box]).repeat(count, 1))


def test_the_right_mask_costs_nothing_and_the_wrong_one_much():
    truth = WHOLE
    maps = torch.nn.functional.interpolate(truth.masks[None], (16, 16), mode="bilinear", align_corners=False)[0]
    right = 40 * (maps > 0.5).float() - 20
    costs = [float(mask_loss(sign * right, positives(3, (0.1, 0.1, 0.6, 0.6)), truth, LossSettings())[0]) for sign in (1, -1)]
    assert costs[0] < 1e-5
    assert costs[1] > 10


def test_the_cost_of_a_mask_does_not_grow_with_its_object():
    costs = []
    for side in (0.25, 0.5):
        truth = shown((0.0, 0.0, side, side))
        costs.append(float(mask_loss(torch.zeros(1, 64, 64), positives(1, (0.0, 0.0, side, side)), truth, LossSettings())[0]))
    assert costs[0] == pytest.approx(costs[1], rel=0.15)  # up to the pixel around the box


def test_some_of_many_masks_stand_for_all():
    loss, judged = mask_loss(torch.zeros(1, 16, 16), positives(250, (0.1, 0.1, 0.6, 0.6)), WHOLE, LossSettings())
    one, _ = mask_loss(torch.zeros(1, 16, 16), positives(1, (0.1, 0.1, 0.6, 0.6)), WHOLE, LossSettings())
    assert len(judged.overlaps) == 100
    assert float(loss) == pytest.approx(250 * float(one), rel=1e-4)


def test_masks_of_no_stated_class_do_not_teach_the_judge():
    _, judged = mask_loss(
        torch.ones(1, 16, 16), positives(2, (0.1, 0.1, 0.6, 0.6)), replace(WHOLE, class_ids=torch.tensor([ANY_CLASS])), LossSettings()
    )
    assert len(judged.overlaps) == 0


def test_the_judge_learns_the_overlap_of_at_most_so_many_masks():
    seen = []

    def judge(masks: torch.Tensor) -> torch.Tensor:
        seen.append(len(masks))
        return torch.zeros(len(masks), 3)

    losses = checked(outputs(), [WHOLE, WHOLE], LossSettings(max_judged=2), judge=judge)
    assert seen == [2]
    assert float(losses["I"].detach()) >= 0


def test_the_semantic_loss_wants_some_class_where_nobody_said_which():
    found = outputs(num_images=1)
    truth = [shown((0.0, 0.0, 1.0, 1.0), class_id=ANY_CLASS)]
    costs = []
    for logits in ((-9.0, -9.0, -9.0), (9.0, -9.0, -9.0), (-9.0, 9.0, -9.0)):
        semantic = torch.tensor(logits)[None, :, None, None].expand(1, 3, 8, 8)
        costs.append(float(detection_losses(replace(found, semantic_logits=semantic), truth, LossSettings())["S"]))
    assert costs[0] > 5
    assert costs[1] == pytest.approx(costs[2], abs=1e-5)
    assert costs[1] < 0.01


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 0.98)] * 2, *[st.floats(1e-6, 1)] * 2), max_size=5), st.sampled_from(CLASS_LOSSES))
def test_no_boxes_make_a_loss_infinite(boxes, kind):
    corners = [(x, y, min(1.0, x + width), min(1.0, y + height)) for x, y, width, height in boxes]
    checked(outputs(), [shown(*corners), EMPTY], LossSettings(class_loss=kind))
