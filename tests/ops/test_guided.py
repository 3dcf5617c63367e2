import torch

from rotoscope.ops.guided import box_mean, follow_edges, guided_coefficients


def filtered(guide: torch.Tensor, maps: torch.Tensor, radius: int = 3, smoothness: float = 1e-4) -> torch.Tensor:
    slopes, offsets = guided_coefficients(guide, maps, radius=radius, smoothness=smoothness)
    return (slopes * guide[None]).sum(1) + offsets


def test_the_box_mean_averages_the_cells_that_exist() -> None:
    maps = torch.rand(1, 6, 7)
    means = box_mean(maps, 2)
    assert torch.allclose(means[0, 0, 0], maps[0, :3, :3].mean())
    assert torch.allclose(means[0, 3, 3], maps[0, 1:6, 1:6].mean())


def test_the_box_mean_of_a_map_smaller_than_the_window_is_its_mean() -> None:
    maps = torch.rand(2, 2, 3)
    assert torch.allclose(box_mean(maps, 8), maps.mean(dim=(1, 2), keepdim=True).expand_as(maps))


def test_an_outline_moves_to_the_edge_of_the_picture() -> None:
    guide = torch.zeros(3, 24, 24)
    guide[1, :, 12:] = 1
    map_ = torch.zeros(1, 24, 24)
    map_[:, :, 11:] = 1  # one cell off
    result = filtered(guide, map_, radius=6)
    assert float(result[0, :, 11].max()) < 0.5 < float(result[0, :, 12].min())


def test_without_an_edge_in_the_picture_the_map_is_only_blurred() -> None:
    guide, map_ = torch.full((3, 20, 20), 0.3), torch.rand(1, 20, 20)
    assert torch.allclose(filtered(guide, map_), box_mean(box_mean(map_, 3), 3), atol=1e-4)


def test_a_constant_map_stays() -> None:
    assert torch.allclose(filtered(torch.rand(3, 16, 16), torch.full((2, 16, 16), 0.7)), torch.tensor(0.7), atol=1e-4)


def test_a_function_of_the_colours_stays() -> None:
    guide = torch.rand(3, 16, 16)
    map_ = (0.5 * guide[0] - 0.2 * guide[2] + 0.1)[None]
    assert torch.allclose(filtered(guide, map_, smoothness=1e-7), map_, atol=1e-3)


def test_a_picture_of_one_hue_gives_finite_numbers() -> None:
    guide = torch.rand(1, 16, 16).expand(3, -1, -1)  # its covariance is singular
    assert bool(torch.isfinite(filtered(guide, torch.rand(1, 16, 16), smoothness=1e-6)).all())


def test_a_distribution_is_enlarged_to_the_guide_and_its_outline_moves_to_the_edge() -> None:
    guide = torch.zeros(3, 48, 64)
    guide[:, :, 32:] = 0.6
    coarse = torch.zeros(3, 12, 16)
    coarse[1, :, 9:] = 1  # four pixels off
    coarse[0] = 1 - coarse[1]
    followed = follow_edges(coarse, guide, radius=4, smoothness=1e-4)
    assert followed.shape == (3, 48, 64)
    is_wrong = followed.argmax(0) != (torch.arange(64) >= 32).long()
    assert int(is_wrong.sum()) <= 48  # of the 4 * 48 that were wrong
    assert float(followed[2].abs().max()) < 1e-6  # an object without pixels gets none


def test_many_objects_give_what_each_gives_alone() -> None:
    torch.manual_seed(0)
    guide, probs = torch.rand(3, 16, 20), torch.rand(20, 8, 10).softmax(0)
    together = follow_edges(probs, guide, radius=2, smoothness=1e-3)
    for channel in (1, 9, 19):
        alone = follow_edges(probs[[0, channel]], guide, radius=2, smoothness=1e-3)
        assert torch.allclose(together[channel], alone[1], atol=1e-6)
