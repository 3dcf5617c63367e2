"""RGMP's training chain: the stored gradients, an unrolled float64 reference, memory, and the mistakes of published training code."""

import weakref
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from rgmp_parity import DATA, arrays, fresh_network, tiny_network, worst
from torch import Tensor, nn

from rotoscope.errors import InputError
from rotoscope.models.checkpoints import Checkpoint, rename
from rotoscope.models.rgmp import OFFICIAL_NAMES, RgmpNetwork
from rotoscope.ops.sizing import border_to_multiple
from rotoscope.training.rgmp_chain import ChainSettings, chain_losses, chunk_losses

WHOLE = ChainSettings()


def clip(num_frames: int = 5, *, samples: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(num_frames, samples, 3, 32, 64, generator=random)
    labels = (torch.rand(num_frames, samples, 32, 64, generator=random) > 0.6).long()
    return images, labels


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}


def trained(network: RgmpNetwork, images: Tensor, labels: Tensor, chain: ChainSettings) -> dict[str, Tensor]:
    network.zero_grad()
    chain_losses(network, images, labels, chain).total.backward()
    return gradients(network)


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Of gradients, in units of the largest entry of each."""
    assert ours.keys() == theirs.keys()
    return max(worst(ours[name], theirs[name]) / max(float(theirs[name].abs().max()), 1e-12) for name in theirs)


@pytest.fixture(scope="module")
def official() -> dict[str, object]:
    """The official clip through our chain, and through it with the mask cut at every frame."""
    stored, network = arrays("bptt"), fresh_network()
    margin = tuple(border_to_multiple((63, 95), 32))
    images = F.pad(stored["frames"].permute(0, 3, 1, 2)[:, None] / 255, margin)
    labels = F.pad(stored["masks"][:, None].long(), margin)
    losses = chain_losses(network, images, labels, WHOLE)
    losses.total.backward()
    full = gradients(network)
    return {"losses": losses, "full": full, "detached": trained(network, images, labels, ChainSettings(bptt_step=1)), "network": network}


def official_gradients(kind: str) -> dict[str, Tensor]:
    named = {key.removeprefix(f"grad_{kind}/"): value for key, value in arrays("bptt").items() if key.startswith(f"grad_{kind}/")}
    assert len(named) == 7
    return rename(Checkpoint(named, "stored"), OFFICIAL_NAMES).tensors


def test_losses_and_predictions_are_the_official_ones(official) -> None:
    losses = official["losses"]
    assert worst(losses.frames[:, 0], arrays("bptt")["loss_per_frame"]) < 1e-5
    assert worst(losses.probs.transpose(0, 1), arrays("bptt")["probs"]) < 1e-4
    assert float(losses.total.detach()) == pytest.approx(float(arrays("bptt")["loss_per_frame"].mean()), abs=1e-5)


@pytest.mark.parametrize("kind", ["full", "detached"])
def test_gradients_are_the_official_ones(official, kind: str) -> None:
    stored = official_gradients(kind)
    assert largest_difference({name: official[kind][name] for name in stored}, stored) < 1e-3
    square_norm = sum(float(gradient.double().square().sum()) for gradient in official[kind].values())
    assert square_norm == pytest.approx(float(arrays("bptt")[f"grad_sqnorm_{kind}"]), rel=1e-3)


def test_a_mask_that_is_detached_would_be_noticed(official) -> None:
    """The seed's second mistake: the gradient of the mask's stem then differs by a fifth."""
    name = "encoder.mask_stem.weight"
    assert worst(official["detached"][name], official_gradients("full")[name]) > 0.05 * float(official_gradients("full")[name].abs().max())


def test_the_same_parameters_are_left_out_as_officially(official) -> None:
    with np.load(DATA / "bptt.npz") as file:
        unknown = {str(key): torch.zeros(0) for key in file["no_grad_params"]}
    left_out = set(rename(Checkpoint(unknown, "stored"), OFFICIAL_NAMES).tensors)
    network = official["network"]
    ours = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    norms = {name for name, _ in network.named_buffers() if name.endswith(("norm.weight", "norm.bias"))}
    assert left_out == ours | norms


def unrolled(network: RgmpNetwork, images: Tensor, labels: Tensor, *, cut_every: int | None = None, fault: str = "") -> Tensor:
    """The loss as the article's loop would have it, written out step by step, with one of its mistakes if asked."""
    encoder, decoder = network.encoder, network.decoder
    mask = (labels[0] == 1).to(images.dtype)
    reference = encoder(images[0], mask)[3]
    losses = []
    for index in range(1, images.shape[0]):
        if fault == "mask detached" or (cut_every and (index - 1) % cut_every == 0):
            mask = mask.detach()
        maps = encoder(images[index], mask)
        logits = decoder(maps, decoder.relation.relate(reference))
        if fault == "reference overwritten":
            reference = maps[3]
        logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=True)
        losses.append(F.cross_entropy(logits, labels[index]))
        mask = logits.softmax(dim=1)[:, 1]
    return torch.stack(losses).mean()


def unrolled_gradients(images: Tensor, labels: Tensor, **more: object) -> dict[str, Tensor]:
    network = tiny_network().double()
    unrolled(network, images.double(), labels, **more).backward()
    return gradients(network)


@settings(deadline=None, max_examples=4)
@given(num_frames=st.integers(2, 6), samples=st.integers(1, 2), seed=st.integers(0, 99), cut=st.sampled_from([None, 1, 2, 3]))
def test_gradients_through_the_chain_equal_an_unrolled_reference_in_double_precision(num_frames, samples, seed, cut) -> None:
    images, labels = clip(num_frames, samples=samples, seed=seed)
    reference = unrolled_gradients(images, labels, cut_every=cut)
    double = trained(tiny_network().double(), images.double(), labels, ChainSettings(bptt_step=cut))
    assert largest_difference(double, reference) < 1e-9
    assert largest_difference(trained(tiny_network(), images, labels, ChainSettings(bptt_step=cut)), reference) < 1e-3


@pytest.mark.parametrize("fault", ["mask detached", "reference overwritten"])
def test_the_articles_mistakes_give_other_gradients(fault: str) -> None:
    images, labels = clip()
    ours = trained(tiny_network().double(), images.double(), labels, WHOLE)
    assert largest_difference(ours, unrolled_gradients(images, labels)) < 1e-9
    assert largest_difference(ours, unrolled_gradients(images, labels, fault=fault)) > 1e-3


def test_the_reference_is_encoded_once_and_every_frame_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (images, labels) = tiny_network(), clip()
    seen: list[Tensor] = []
    relate, forward, calls = network.decoder.relation.relate, network.decoder.relation.forward, []
    monkeypatch.setattr(network.decoder.relation, "relate", lambda last: (calls.append(last), relate(last))[1])
    monkeypatch.setattr(network.decoder.relation, "forward", lambda last, related: (seen.append(related), forward(last, related))[1])
    chain_losses(network, images, labels, WHOLE)
    assert len(calls) == 1
    assert len(seen) == 4
    assert all(related is seen[0] for related in seen)


def test_another_reference_changes_the_last_frame() -> None:
    network, (images, labels) = tiny_network(), clip()
    other = images.clone()
    other[0] = 1 - other[0]
    assert worst(chain_losses(network, images, labels, WHOLE).probs[-1], chain_losses(network, other, labels, WHOLE).probs[-1]) > 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, None])
def test_chunks_one_after_another_add_up_to_one_backward_pass(step: int | None, checkpointing: bool) -> None:
    images, labels = clip(6)
    chain = ChainSettings(bptt_step=step, checkpointing=checkpointing)
    network = tiny_network().double()
    whole = trained(network, images.double(), labels, ChainSettings(bptt_step=step))
    network.zero_grad()
    lengths = []
    for chunk in chunk_losses(network, images.double(), labels, chain):
        chunk.total.backward()
        lengths.append(len(chunk.frames))
    assert largest_difference(gradients(network), whole) < 1e-9
    assert lengths == {1: [1] * 5, 2: [2, 2, 1], 3: [3, 2], None: [5]}[step]


def test_cutting_the_chain_changes_the_gradient_but_not_the_losses() -> None:
    network, (images, labels) = tiny_network(), clip()
    whole, cut = (chain_losses(network, images, labels, ChainSettings(bptt_step=step)) for step in (None, 2))
    assert torch.equal(whole.frames, cut.frames)
    assert largest_difference(trained(network, images, labels, WHOLE), trained(network, images, labels, ChainSettings(bptt_step=2))) > 1e-3


def test_the_articles_stale_graph_fails_where_ours_does_not() -> None:
    """The seed's third mistake: the optimiser moves the weights, and the old graph is walked again."""
    network, (images, labels) = tiny_network(), clip()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = unrolled(network, images, labels)
    loss.backward(retain_graph=True)
    optimiser.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    for _ in range(2):
        optimiser.zero_grad()
        for chunk in chunk_losses(network, images, labels, ChainSettings(bptt_step=2)):
            chunk.total.backward()
        optimiser.step()


class SavedBytes:
    """How many bytes autograd holds for the way back, now and at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._held: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        kept = tensor.detach()
        key, size = tensor.data_ptr(), tensor.nbytes
        if key not in self._held:
            self.now += size
            self.most = max(self.most, self.now)
        self._held[key] = self._held.get(key, 0) + 1
        weakref.finalize(kept, self._free, key, size)
        return kept

    def _free(self, key: int, size: int) -> None:
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
            self.now -= size


def saved_by(work: Callable[[], object]) -> SavedBytes:
    saved = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        work()
    return saved


def test_checkpointing_holds_little_more_than_the_masks_and_gives_the_same_gradients() -> None:
    images, labels = clip(7)
    network = tiny_network().double()
    results, held = [], []
    for checkpointing in (False, True):
        chain = ChainSettings(checkpointing=checkpointing)
        held.append(saved_by(lambda chain=chain: results.append(trained(network, images.double(), labels, chain))).most)
    assert largest_difference(results[1], results[0]) < 1e-9
    assert held[1] < 0.4 * held[0], held


def test_memory_of_the_whole_chain_grows_with_its_length_and_that_of_chunks_does_not() -> None:
    network = tiny_network()

    def most(num_frames: int, *, chunks: bool) -> int:
        images, labels = clip(num_frames)

        def work() -> None:
            if not chunks:
                chain_losses(network, images, labels, ChainSettings(bptt_step=2)).total.backward()
                return
            for chunk in chunk_losses(network, images, labels, ChainSettings(bptt_step=2)):
                chunk.total.backward()

        return saved_by(work).most

    assert most(11, chunks=False) > 1.8 * most(5, chunks=False)
    assert most(11, chunks=True) < 1.1 * most(5, chunks=True)


def test_no_graph_of_a_chunk_is_held_once_it_was_used() -> None:
    network, (images, labels) = tiny_network(), clip()
    saved = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        chunks = chunk_losses(network, images, labels, ChainSettings(bptt_step=2))
        first = next(chunks)
        held = saved.now
        first.total.backward()
        of_reference = saved.now
        assert of_reference < 0.5 * held
        next(chunks).total.backward()
        assert saved.now <= of_reference
        assert next(chunks, None) is None
        assert saved.now == 0


def test_side_heads_learn_only_if_they_are_weighed() -> None:
    images, labels = clip(3)
    network = tiny_network()
    assert not any("head_8" in name for name in trained(network, images, labels, WHOLE))
    with_sides = trained(network, images, labels, ChainSettings(side_weights=(0.1, 0.2, 0.3)))
    assert {name for name in with_sides if "head_" in name} == {
        f"decoder.head_{stride}.{part}" for stride in (4, 8, 16, 32) for part in ("weight", "bias")
    }
    plain, sides = (chain_losses(network, images, labels, chain) for chain in (WHOLE, ChainSettings(side_weights=(0.1, 0.2, 0.3))))
    assert torch.equal(plain.frames, sides.frames)
    assert float(sides.total.detach()) > float(plain.total.detach())


def test_void_pixels_teach_nothing() -> None:
    images, labels = clip(2)
    network = tiny_network()
    labels[1] = 255
    assert all(float(gradient.abs().max()) == 0 for gradient in trained(network, images, labels, WHOLE).values())


def test_a_short_training_learns_the_clip() -> None:
    network, (images, _) = tiny_network(), clip(3)
    labels = torch.zeros(3, 1, 32, 64, dtype=torch.int64)
    labels[:, :, :, :30] = 1
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        optimiser.zero_grad()
        losses = chain_losses(network.train(), images, labels, WHOLE)
        losses.total.backward()
        optimiser.step()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.7 * totals[0], totals


def test_a_clip_without_anything_to_predict_is_refused() -> None:
    with pytest.raises(InputError, match="a clip of 1 frames has nothing to predict"):
        chain_losses(tiny_network(), *clip(1), WHOLE)
    with pytest.raises(InputError, match="bptt_step 0 cuts the chain"):
        ChainSettings(bptt_step=0)
