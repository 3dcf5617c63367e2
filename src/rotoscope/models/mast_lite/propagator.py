"""The pass of mast-lite over a clip."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rotoscope.errors import InputError
from rotoscope.memory import FrameCache, MaskMemory, MemorySchedule
from rotoscope.models.mast_lite.features import Features, MastLiteConfig, extract
from rotoscope.nn.efficientnet_lite import EfficientNetLite
from rotoscope.nn.looks import Looks
from rotoscope.ops.aggregate import normalised
from rotoscope.ops.components import without_strays
from rotoscope.ops.confidence import agreement, scored
from rotoscope.ops.guided import follow_edges
from rotoscope.ops.sizing import resize_smooth
from rotoscope.types import FeatureStore, Frame, Masks


class MastLitePropagator:
    """One pass over one clip."""

    def __init__(
        self, encoder: EfficientNetLite, config: MastLiteConfig, *, max_memory_bytes: int | None = None, features: FeatureStore | None = None
    ) -> None:
        self._encoder = encoder
        self._config = config
        schedule = MemorySchedule(anchors=(0,), recent=config.recent)
        self._memory = MaskMemory(schedule, max_bytes=max_memory_bytes)
        self._cache = FrameCache() if features is None else features
        self._looks = Looks(config.looks)

    @torch.no_grad()
    def predict(self, frame: Frame) -> Masks:
        """Masks of a frame, for every object ever remembered.

        Raises:
            PropagationError: nothing is remembered yet.
        """
        remembered = self._memory.references(frame.index)
        ids = self._memory.object_ids
        if not ids:
            return Masks(torch.ones((1, *frame.hw)), ())
        features = self._features(frame)
        prior = self._config.read(features.key, [one.features for one in remembered], [one.masks.probs for one in remembered])
        looked = self._with_looks(prior, features, ids)
        figures = agreement(resize_smooth(prior, looked.shape[1:]), looked)
        probs = without_strays(looked, share=self._config.stray_share)
        probs = follow_edges(probs, features.guide, radius=self._config.edge_radius, smoothness=self._config.edge_smoothness)
        return scored(Masks(normalised(resize_smooth(probs, frame.hw)), ids), self._config.calibration, figures)

    @torch.no_grad()
    def remember(self, frame: Frame, masks: Masks, *, given: bool) -> None:
        """Store a frame and learn its objects' looks."""
        features = self._features(frame)
        masks = self._memory.with_all_objects(masks)
        probs = masks.probs.to(features.key)
        coarse, fine = (normalised(resize_smooth(probs, grid.shape[1:])) for grid in (features.key, features.descriptors))
        self._looks.learn(features.descriptors, Masks(fine, masks.object_ids), given=given)
        self._memory.add(frame.index, features.key, Masks(coarse, masks.object_ids), given=given)

    def state(self) -> dict[str, Tensor]:
        """All that is remembered."""
        return self._memory.state() | {f"looks.{name}": tensor for name, tensor in self._looks.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave.

        Raises:
            InputError: the tensors are not those of this kind of propagator.
        """
        device = next(self._encoder.parameters()).device
        looks = {name.removeprefix("looks."): tensor.to(device) for name, tensor in state.items() if name.startswith("looks.")}
        try:
            restored = Looks.restored(looks, self._config.looks)
        except (KeyError, ValueError) as error:
            message = f"this is not the state of such a pass: {error} is missing or misnamed; start the clip again without --resume"
            raise InputError(message) from error
        self._memory.restore(state, device)
        self._looks = restored

    def _features(self, frame: Frame) -> Features:
        return self._cache.get(frame, lambda: extract(self._encoder, frame, self._config))

    def _with_looks(self, prior: Float[Tensor, "n h w"], features: Features, ids: tuple[int, ...]) -> Float[Tensor, "n h2 w2"]:
        """The memory read's distribution, at stride 4, times that of the looks; where the read sees no object nearby, there is none."""
        near = F.max_pool2d((1 - prior[:1] > self._config.read.negligible).float(), 5, stride=1, padding=2)
        possible = F.interpolate(near[None], features.descriptors.shape[1:], mode="nearest")[0]
        return self._looks.weighed(prior, features.descriptors, ids, possible)
