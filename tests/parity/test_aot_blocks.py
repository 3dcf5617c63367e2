"""Blocks of AOT and DeAOT against the official code's outputs. Each comparison has a twin in which one deliberate fault must be seen."""

import copy

import pytest
import torch
import torch.nn.functional as F
from aot_parity import BLOCK_TOLERANCE, arrays, fresh_network, misaligned, network, worst
from torch import Tensor

from rotoscope.models.aot.config import VARIANTS
from rotoscope.models.aot.network import Pass, Picture, one_hot_identities
from rotoscope.models.aot.stored import LayerMemory, Stored
from rotoscope.nn.attention import WindowedAttention, WindowedGatedAttention, attend, join_heads, split_heads
from rotoscope.nn.blocks import DropPath, cells_to_map, map_to_cells
from rotoscope.nn.position import sine_position
from rotoscope.ops.windows import OffsetTerms, windowed_attention

TOLERANCE = BLOCK_TOLERANCE


@pytest.fixture(autouse=True)
def _on_one_thread_without_gradients():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the maps are so small that threads only wait for each other
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def cells(tokens: Tensor) -> Tensor:
    """Official [cells, batch, channels] as ours."""
    return tokens.transpose(0, 1)


@pytest.mark.parametrize("variant", ["aot-t", "deaot-t", "swinb-aot-l", "swinb-deaot-l"])
def test_the_id_bank_embeds_labels_as_the_official_one(variant):
    data = arrays("id_bank")
    name = variant.replace("-aot-", "_aot").replace("-deaot-", "_deaot").replace("aot-", "aot")
    theirs = data[f"id_emb_{name}"]
    labels = data["mask"].long()[None]
    if not VARIANTS[variant].align_corners:
        labels = labels[:, :96, :144]
    bank = network(variant).id_bank
    ours = cells_to_map(bank(one_hot_identities(labels)), tuple(theirs.shape[1:]))[0]
    assert worst(ours, theirs) < TOLERANCE
    unknown_background = torch.where(labels == 0, 11, labels)
    assert worst(cells_to_map(bank(one_hot_identities(unknown_background)), tuple(theirs.shape[1:]))[0], theirs) > TOLERANCE


def test_shuffled_identities_embed_as_in_official_training():
    data = arrays("id_bank")
    shuffle = data["shuffle_matrix"]
    identities = one_hot_identities(data["mask"].long()[None])
    ours = cells_to_map(network("aot-t").id_bank(torch.einsum("nohw,ot->nthw", identities, shuffle)), (7, 10))[0]
    assert worst(ours, data["id_emb_aott_shuffled"]) < TOLERANCE
    assert worst(torch.einsum("ohw,to->thw", data["unshuffle_in"], shuffle), data["unshuffle_out"]) < TOLERANCE
    backwards = cells_to_map(network("aot-t").id_bank(torch.einsum("nohw,to->nthw", identities, shuffle)), (7, 10))[0]
    assert worst(backwards, data["id_emb_aott_shuffled"]) > TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(7, 10), (1, 3)])
def test_positions_are_the_official_ones(height, width):
    theirs = arrays("id_bank")[f"pos_emb_{height}x{width}"]
    assert worst(cells_to_map(sine_position(height, width, 256)[None], (height, width))[0], theirs) < 1e-5
    transposed = cells_to_map(sine_position(width, height, 256)[None], (width, height))[0].transpose(1, 2)
    assert worst(transposed, theirs) > 1e-2


def test_drop_path_draws_as_the_official_one():
    data = arrays("id_bank")
    for batch_dim in (0, 1):
        torch.manual_seed(7)
        ours = DropPath(0.3, batch_dim=batch_dim).train()(data["droppath_in"])
        assert worst(ours, data[f"droppath_out_p0.3_dim{batch_dim}_seed7"]) < 1e-6
        torch.manual_seed(7)
        assert worst(DropPath(0.4, batch_dim=batch_dim).train()(data["droppath_in"]), data[f"droppath_out_p0.3_dim{batch_dim}_seed7"]) > 1e-2


@pytest.mark.parametrize("case", ["loc_a", "loc_b"])
def test_short_term_attention_is_the_official_one(case):
    data = arrays("attention_aot")
    query, key, value = (map_to_cells(data[f"{case}_{name}"]) for name in ("q", "k", "v"))
    hw = tuple(data[f"{case}_q"].shape[2:])
    layer: WindowedAttention = network("aot-t").layers[0].short_attention
    theirs = cells(data[f"{case}_out"])
    assert worst(layer(query, key, value, hw), theirs) < TOLERANCE
    flipped = layer(query, key.unflatten(1, hw).flip(1).flatten(1, 2), value, hw)
    assert worst(flipped, theirs) > TOLERANCE
    silent = copy.deepcopy(layer)
    silent.relative_value.zero_()
    assert worst(silent(query, key, value, hw), theirs) > TOLERANCE


def test_the_weights_of_the_short_term_window_are_the_official_ones():
    data = arrays("attention_aot")
    query, key, value = (split_heads(map_to_cells(data[f"loc_a_{name}"]), 8).unflatten(2, (11, 18)) for name in ("q", "k", "v"))
    relative = network("aot-t").layers[0].short_attention.relative_key
    weight, bias = relative.weight.view(8, 225, 32), relative.bias.view(8, 225)
    _, weights = windowed_attention(query, key, value, OffsetTerms(weight, bias), return_weights=True)
    assert worst(weights[0, 3].flatten(0, 1).T, data["loc_a_attn_head3"]) < TOLERANCE
    _, weights = windowed_attention(query * 32**-0.5, key * 32**0.5, value, OffsetTerms(weight, bias), return_weights=True)
    assert worst(weights[0, 3].flatten(0, 1).T, data["loc_a_attn_head3"]) > TOLERANCE


def test_long_term_and_self_attention_are_the_official_ones():
    data = arrays("attention_aot")
    layer = network("aot-t").layers[0]
    query, key, value = (cells(data[f"long_{name}"]) for name in ("q", "k", "v"))
    assert worst(layer.long_attention(query, key, value), cells(data["long_out"])) < TOLERANCE
    assert worst(layer.long_attention(query, key[:, :35], value[:, :35]), cells(data["long_out"])) > TOLERANCE
    assert worst(layer.self_attention(query, query + 0.5, query), cells(data["self_out"])) < TOLERANCE
    assert worst(layer.self_attention(query, query + 0.5, query + 0.5), cells(data["self_out"])) > TOLERANCE


def test_the_feed_forward_activation_is_the_official_one():
    data = arrays("attention_aot")
    activation = network("aot-t").layers[0].activation
    assert worst(activation(cells(data["dwffn_in"]), (5, 7)), cells(data["dwffn_out"])) < TOLERANCE
    assert worst(activation(cells(data["dwffn_in"]), (7, 5)), cells(data["dwffn_out"])) > TOLERANCE


def test_gated_short_term_attention_is_the_official_one():
    data = arrays("attention_deaot")
    query, key, value = (map_to_cells(data[f"loc_{name}"]) for name in ("q", "k", "v"))
    layer: WindowedGatedAttention = network("deaot-s").layers[1].short_attention
    assert worst(layer(query, key, value, cells(data["loc_u"]), (9, 17)), cells(data["loc_out"])) < TOLERANCE
    assert worst(layer(query, key, value, cells(data["loc_u"]).flip(1), (9, 17)), cells(data["loc_out"])) > TOLERANCE
    heads = [maps[:, None].unflatten(2, (9, 17)) for maps in (query, key, value)]
    relative = layer.relative_key
    _, weights = windowed_attention(*heads, OffsetTerms(relative.weight.view(1, 225, 128), relative.bias[None]), return_weights=True)
    assert worst(weights[0, 0].flatten(0, 1).T, data["loc_attn"]) < TOLERANCE
    _, weights = windowed_attention(*heads, OffsetTerms(relative.weight.view(1, 225, 128), relative.bias[None].flip(1)), return_weights=True)
    assert worst(weights[0, 0].flatten(0, 1).T, data["loc_attn"]) > TOLERANCE


def test_gated_propagation_is_the_official_one():
    data = arrays("attention_deaot")
    layer = network("deaot-s").layers[1]
    query, key, value, gate = (cells(data[f"long_{name}"]) for name in ("q", "k", "v", "u"))
    theirs = cells(data["long_out"])
    assert worst(layer.long_attention(query, key, value, gate, (5, 7)), theirs) < TOLERANCE
    assert worst(layer.long_attention(query, key, value, gate, (7, 5)), theirs) > TOLERANCE
    visual, identity = cells(data["self_in"]).split(256, dim=-1)
    assert worst(layer.self_attention.propagate(visual, identity, (5, 7)), cells(data["self_out"])) < TOLERANCE
    assert worst(layer.self_attention.propagate(identity, visual, (5, 7)), cells(data["self_out"])) > TOLERANCE
    convolved = layer.self_attention.depthwise(cells(data["dwconv_in"]), (5, 7))
    assert worst(convolved, cells(data["dwconv_out"])) < TOLERANCE
    assert worst(convolved.flip(1), cells(data["dwconv_out"])) > TOLERANCE


def test_an_lstt_block_is_the_official_one():
    data = {key.removeprefix("aot_"): value for key, value in arrays("block_lstt").items()}
    layer, hw = network("aot-s").layers[1], (5, 7)
    position = sine_position(*hw, 256)
    x, frame = layer.describe(cells(data["tgt_ref"]), hw, position)
    stored = layer.store(frame, cells(data["id_emb"]))
    assert worst(layer.read(x, frame, LayerMemory(stored, stored), hw), cells(data["out_ref"])) < TOLERANCE
    assert worst(frame.key, cells(data["ref_currK"])) < TOLERANCE
    assert worst(frame.value, cells(data["ref_currV"])) < TOLERANCE
    assert worst(stored.key, cells(data["ref_longK"])) < TOLERANCE
    assert worst(stored.value, cells(data["ref_longV"])) < TOLERANCE
    assert worst(cells_to_map(stored.value, hw), data["ref_shortV"]) < TOLERANCE
    memory = LayerMemory(Stored(cells(data["longK"]), cells(data["longV"])), Stored(map_to_cells(data["shortK"]), map_to_cells(data["shortV"])))
    x, frame = layer.describe(cells(data["tgt"]), hw, position)
    assert worst(layer.read(x, frame, memory, hw), cells(data["out"])) < TOLERANCE
    stored = layer.store(frame, cells(data["id_emb"]))
    assert worst(stored.key, cells(data["fusedK"])) < TOLERANCE
    assert worst(stored.value, cells(data["fusedV"])) < TOLERANCE
    half = LayerMemory(Stored(memory.long_term.key[:, :35], memory.long_term.value[:, :35]), memory.short_term)
    assert worst(layer.read(x, frame, half, hw), cells(data["out"])) > TOLERANCE
    x, frame = layer.describe(cells(data["tgt"]), hw, torch.zeros_like(position))
    assert worst(layer.read(x, frame, memory, hw), cells(data["out"])) > TOLERANCE


@pytest.mark.parametrize("index", [0, 1])
def test_a_gpm_block_is_the_official_one(index):
    data = {key.removeprefix(f"l{index}_"): value for key, value in arrays("block_gpm").items() if key.startswith(f"l{index}_")}
    layer, hw = network("deaot-s").layers[index], (5, 7)
    position = torch.zeros(35, 256)

    def state(visual: str, identity: str) -> Tensor:
        second = data[identity] if index > 0 else torch.zeros_like(data[identity])
        return torch.cat((cells(data[visual]), cells(second)), dim=-1)

    def stored_as(prefix: str, to_cells) -> Stored:
        key, value, id_value = (to_cells(data[f"{prefix}{name}"]) for name in ("K", "V", "IDV"))
        return Stored(key, torch.cat((value, id_value), dim=-1))

    def outputs(prefix: str) -> Tensor:
        return torch.cat((cells(data["out" + prefix]), cells(data["out_id" + prefix])), dim=-1)

    x, frame = layer.describe(state("tgt_ref", "tgt_id_ref"), hw, position)
    stored = layer.store(frame, cells(data["id_emb"]))
    assert worst(layer.read(x, frame, LayerMemory(stored, stored), hw), outputs("_ref")) < TOLERANCE
    theirs = stored_as("ref_", cells)
    assert max(worst(stored.key, theirs.key), worst(stored.value, theirs.value)) < TOLERANCE
    x, frame = layer.describe(state("tgt", "tgt_id"), hw, position)
    memory = LayerMemory(stored_as("long", cells), stored_as("short", map_to_cells))
    assert worst(layer.read(x, frame, memory, hw), outputs("")) < TOLERANCE
    stored = layer.store(frame, cells(data["id_emb"]))
    assert worst(stored.value[..., 512:], cells(data["fusedIDV"])) < TOLERANCE
    swapped = LayerMemory(memory.long_term, Stored(memory.short_term.key, memory.short_term.value.roll(512, dims=-1)))
    assert worst(layer.read(x, frame, swapped, hw), outputs("")) > TOLERANCE
    assert worst(layer.store(frame, -cells(data["id_emb"])).value[..., 512:], cells(data["fusedIDV"])) > TOLERANCE


@pytest.mark.parametrize("variant", ["aot-s", "deaot-s", "swinb-deaot-l"])
def test_the_decoder_is_the_official_one(variant):
    name = {"aot-s": "aots", "deaot-s": "deaots", "swinb-deaot-l": "swinb_deaotl"}[variant]
    data = {key.removeprefix(f"{name}_"): value[None] for key, value in arrays("decoder").items() if key.startswith(f"{name}_")}
    result = Pass(tuple(data[key] for key in ("emb0", "emb1") if key in data), ())

    def logits(net) -> Tensor:
        picture = Picture(map_to_cells(data["s3"]), net.decoder.adapt([data["s0"], data["s1"], data["s2"]]), (5, 7))
        return net.decode(picture, result)

    assert worst(logits(network(variant)), data["logits"]) < TOLERANCE
    assert worst(logits(misaligned(variant)), data["logits"]) > TOLERANCE


def test_chunked_attention_equals_the_dense_one(monkeypatch):
    monkeypatch.setattr("rotoscope.nn.attention._SCORES_AT_ONCE", 1)
    query, key, value = torch.randn(2, 1, 130, 8), torch.randn(2, 1, 40, 8), torch.randn(2, 1, 40, 24)
    dense = F.scaled_dot_product_attention(query, key, F.pad(value, (0, 0))[..., :8])
    assert worst(attend(query, key, value)[..., :8], dense) < 1e-5
    assert join_heads(attend(query, key, value)).shape == (2, 130, 24)


def test_training_the_blocks_gives_every_parameter_a_gradient():
    with torch.enable_grad():
        net = fresh_network(VARIANTS["deaot-s"]).train()
        picture = net.see(torch.randn(2, 3, 33, 49))
        result = net.match_itself(picture, net.id_bank(one_hot_identities(torch.randint(0, 3, (2, 33, 49)))))
        net.decode(picture, result).square().mean().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.requires_grad and parameter.grad is None] == []
