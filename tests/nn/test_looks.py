import torch

from rotoscope.nn.looks import Looks, LooksSettings, descriptors_of
from rotoscope.types import Masks


def test_looks_tell_an_object_from_the_background_and_forget_slowly() -> None:
    looks = Looks(LooksSettings())
    descriptors = 0.1 * torch.randn(4, 30, 30)
    descriptors[0, 10:20, 10:20] += 1
    labels = torch.zeros(30, 30, dtype=torch.int64)
    labels[10:20, 10:20] = 5
    looks.learn(descriptors, Masks.from_labels(labels), given=True)
    odds = looks.log_odds(descriptors, (5, 6))
    assert float(odds[0][labels == 5].min()) > 0 > float(odds[0][labels == 0].max())
    assert float(odds[1].abs().max()) == 0  # never seen
    assert float(odds.abs().max()) <= looks.settings.limit
    for _ in range(50):
        looks.learn(-descriptors, Masks.from_labels(labels), given=False)
    assert float(looks.log_odds(descriptors, (5,))[0][labels == 5].mean()) > 0  # what was given outweighs any number of predictions


def test_looks_decide_where_the_tracker_doubts_and_only_where_an_object_may_be() -> None:
    looks = Looks(LooksSettings())
    lab = torch.zeros(3, 8, 8)
    lab[:, :4, :4] = 0.8
    descriptors = descriptors_of([], lab + 0.01 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)))
    labels = (lab[0] > 0).int()
    looks.learn(descriptors, Masks.from_labels(labels), given=True)
    prior = torch.full((2, 2, 2), 0.5)
    everywhere = looks.weighed(prior, descriptors, (1,), torch.ones(1, 8, 8))
    assert ((everywhere[1] > 0.5) == (labels == 1)).all()
    torch.testing.assert_close(everywhere.sum(dim=0), torch.ones(8, 8))
    nowhere = looks.weighed(prior, descriptors, (1,), torch.zeros(1, 8, 8))
    assert float(nowhere[1].max()) == 0
    assert float(nowhere[0].min()) == 1


def test_descriptors_hold_features_at_the_size_of_the_colours() -> None:
    maps = [torch.ones(5, 3, 4), torch.ones(7, 6, 8)]
    described = descriptors_of(maps, torch.full((3, 6, 8), 0.5))
    assert described.shape == (5 + 7 + 9, 6, 8)
    torch.testing.assert_close(described[:12], torch.ones(12, 6, 8))
    torch.testing.assert_close(described[-1], torch.full((6, 8), 0.25))
