"""Connected parts of a map."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def connected_parts(present: Bool[Tensor, "h w"]) -> Int64[Tensor, "h w"]:
    """A number above 0 for the cells of each part that hangs together, corners included; 0 where nothing is present."""
    mask = present.to(torch.float64)  # exact for the numbers of any map that fits in memory
    numbers = torch.arange(1, mask.numel() + 1, dtype=torch.float64, device=mask.device).view(mask.shape) * mask
    while True:  # the largest number of a part spreads by a cell a round
        spread = F.max_pool2d(numbers[None], 3, stride=1, padding=1)[0] * mask
        if torch.equal(spread, numbers):
            return numbers.to(torch.int64)
        numbers = spread


def small_parts(amounts: Float[Tensor, "h w"], *, threshold: float, share: float) -> Bool[Tensor, "h w"]:
    """The cells above the threshold whose part sums to less than a share of what the largest part sums to."""
    parts = connected_parts(amounts > threshold)
    sums = torch.bincount(parts.flatten(), weights=amounts.flatten().double())
    sums[0] = 0
    is_small = sums < share * sums.max()
    is_small[0] = False
    return is_small[parts]


def without_strays(probs: Float[Tensor, "channels h w"], *, share: float) -> Float[Tensor, "channels h w"]:
    """A distribution over the background and objects without the parts of objects that are small beside the object's largest.

    Such are look-alikes that once touched it. Parts less than two cells apart count as one; what is dropped becomes background.

    Args:
        probs: channel 0 is the background.
        share: of the largest part's sum; smaller parts go, with their soft rim.
    """
    coarse = F.avg_pool2d(probs[1:], 2, ceil_mode=True)
    strays = torch.stack([small_parts(one, threshold=0.4, share=share) for one in coarse])
    margin = F.max_pool2d(strays.float(), 3, stride=1, padding=1) * ((coarse < 0.4) | strays)  # their rim, but no other part
    kept = probs[1:] * (1 - F.interpolate(margin[None], probs.shape[1:], mode="nearest")[0])
    return torch.cat([1 - kept.sum(0, keepdim=True), kept])
