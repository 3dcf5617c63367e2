"""A training that takes milliseconds: a few convolutions that find a bright square."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rotoscope.training.recipe import Recipe
from rotoscope.training.task import Batch, Draw, ParameterGroup, SamplePictures, StepLosses

RECIPE = Recipe(steps=6, batch_size=2, clip_norm=1.0, average_decay=0.9, seed=3, save_every=2, keep=2, record_every=1, picture_every=0, prefetch=2)


class Constant:
    def __init__(self, value: float) -> None:
        self.value = value

    def at(self, step: int) -> float:
        return self.value * (1 + step)


class SquareTask:
    """Dropout makes it depend on the global random numbers, BatchNorm gives it buffers."""

    def __init__(self, *, scale: float = 1.0, normed: bool = True, dropout: float = 0.25) -> None:
        torch.manual_seed(1)
        norm = nn.BatchNorm2d(4) if normed else nn.Identity()
        self.model: nn.Module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm, nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(4, 2, 1))
        self.scale = scale
        self.draws: list[Draw] = []

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        layers = list(self.model.children())
        early = [*layers[0].parameters(), *layers[1].parameters()]
        return [ParameterGroup("early", early, Constant(1e-3), 0.01), ParameterGroup("late", list(layers[-1].parameters()), Constant(2e-3))]

    def batch(self, draw: Draw) -> Batch:
        self.draws.append(draw)
        generator = draw.generator()
        images = torch.rand((draw.size, 3, 8, 8), generator=generator) * 0.5
        labels = torch.zeros((draw.size, 8, 8), dtype=torch.int64)
        for index, (y, x) in enumerate(torch.randint(0, 5, (draw.size, 2), generator=generator).tolist()):
            images[index, :, y : y + 3, x : x + 3] += 0.5
            labels[index, y : y + 3, x : x + 3] = 1
        return {"images": images, "labels": labels}

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        logits = self.model(batch["images"])
        loss = nn.functional.cross_entropy(logits.float(), batch["labels"]) * self.scale
        predicted = logits.detach().argmax(dim=1)
        pictures = None
        if with_pictures:
            pictures = SamplePictures((batch["images"] * 255).to(torch.uint8), batch["labels"], predicted)
        return StepLosses(loss, {"accuracy": (predicted == batch["labels"]).float().mean()}, pictures)


def recipe(**changes: Any) -> Recipe:
    return replace(RECIPE, **changes)


class RestingTask(SquareTask):
    """One layer is left out of every second step; if `broken`, odd parts of step 2 give no finite loss."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__(normed=False)
        self.broken = broken

    def losses(self, batch: Batch, step: int, *, with_pictures: bool = False) -> StepLosses:
        self.model[0].requires_grad_(step % 2 == 0)
        if self.broken and step == 2 and self.draws[-1].part % 2:
            batch = {**batch, "images": batch["images"] * float("nan")}
        return super().losses(batch, step, with_pictures=with_pictures)
