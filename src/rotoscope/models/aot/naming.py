"""Official names to ours, and which variants a checkpoint fits, from its keys and shapes alone."""

from collections.abc import Mapping

from torch import Tensor

from rotoscope.models.aot.config import VARIANTS, AotConfig, Encoder
from rotoscope.models.checkpoints import RenameRules
from rotoscope.nn.mobilenet import MOBILENET_V2_RULES
from rotoscope.nn.resnest import RESNEST_RULES
from rotoscope.nn.resnet_bottleneck import RESNET_RULES
from rotoscope.nn.swin import SWIN_RULES

_L = r"LSTT\.layers\.(\d+)\."
_OURS = r"layers.\1."

_BLOCK_RULES = (
    (_L + r"norm1\.(\w+)", _OURS + r"entry_norm.\2"),
    (_L + r"norm2\.(\w+)", _OURS + r"middle_norm.\2"),
    (_L + r"(long|short|self)_(?:term_)?attn\.projection\.(\w+)", _OURS + r"\2_attention.projection.\3"),
    (_L + r"short_term_attn\.relative_emb_k\.(\w+)", _OURS + r"short_attention.relative_key.\2"),
    # AOT
    (_L + r"self_attn\.linear_Q\.(\w+)", _OURS + r"self_attention.query.\2"),
    (_L + r"self_attn\.linear_K\.(\w+)", _OURS + r"self_attention.key.\2"),
    (_L + r"self_attn\.linear_V\.(\w+)", _OURS + r"self_attention.value.\2"),
    (_L + r"linear_Q\.(\w+)", _OURS + r"to_key.\2"),
    (_L + r"linear_V\.(\w+)", _OURS + r"to_value.\2"),
    (_L + r"short_term_attn\.relative_emb_v", _OURS + r"short_attention.relative_value"),
    (_L + r"norm3\.(\w+)", _OURS + r"feed_norm.\2"),
    (_L + r"linear1\.(\w+)", _OURS + r"widen.\2"),
    (_L + r"activation\.gn\.(\w+)", _OURS + r"activation.norm.\2"),
    (_L + r"activation\.conv\.weight", _OURS + r"activation.depthwise.conv.weight"),
    (_L + r"linear2\.(\w+)", _OURS + r"narrow.\2"),
    # DeAOT
    (_L + r"id_norm1\.(\w+)", _OURS + r"entry_id_norm.\2"),
    (_L + r"id_norm2\.(\w+)", _OURS + r"middle_id_norm.\2"),
    (_L + r"linear_QV\.(\w+)", _OURS + r"to_key_value.\2"),
    (_L + r"linear_U\.(\w+)", _OURS + r"to_gate.\2"),
    (_L + r"linear_ID_V\.(\w+)", _OURS + r"to_id_value.\2"),
    (_L + r"linear_ID_U\.(\w+)", _OURS + r"to_id_gate.\2"),
    (_L + r"(long|short|self)_(?:term_)?attn\.dw_conv\.conv\.weight", _OURS + r"\2_attention.depthwise.conv.weight"),
    (_L + r"self_attn\.linear_QK\.(\w+)", _OURS + r"self_attention.to_key.\2"),
    (_L + r"self_attn\.linear_V1\.(\w+)", _OURS + r"self_attention.visual_value.\2"),
    (_L + r"self_attn\.linear_V2\.(\w+)", _OURS + r"self_attention.id_value.\2"),
    (_L + r"self_attn\.linear_U1\.(\w+)", _OURS + r"self_attention.visual_gate.\2"),
    (_L + r"self_attn\.linear_U2\.(\w+)", _OURS + r"self_attention.id_gate.\2"),
)

_OTHER_RULES = (
    (r"LSTT\.mask_token", r"mask_token"),
    (r"LSTT\.decoder_norms\.(\d+)\.(?:gn\.)?(\w+)", r"norms.\1.\2"),
    (r"encoder_projector\.(\w+)", r"projector.\1"),
    (r"patch_wise_id_bank\.(\w+)", r"id_bank.patches.\1"),
    (r"id_norm\.(\w+)", r"id_bank.norm.\1"),
    (r"decoder\.conv_in\.conv\.(\w+)", r"decoder.enter.conv.\1"),
    (r"decoder\.conv_in\.gn\.(\w+)", r"decoder.enter.norm.\1"),
    (r"decoder\.conv_(4|8|16)x\.conv\.(\w+)", r"decoder.conv_\1.conv.\2"),
    (r"decoder\.conv_(4|8|16)x\.gn\.(\w+)", r"decoder.conv_\1.norm.\2"),
    (r"decoder\.adapter_(4|8|16)x\.(\w+)", r"decoder.adapter_\1.\2"),
    (r"decoder\.conv_out\.(\w+)", r"decoder.leave.\1"),
)

OFFICIAL_NAMES: RenameRules = (*_BLOCK_RULES, *_OTHER_RULES, *MOBILENET_V2_RULES, *SWIN_RULES, *RESNET_RULES)
"""Official keys of every variant that was ever released to ours; each official key is consumed exactly once."""

_RESNEST_NAMES: RenameRules = (*_BLOCK_RULES, *_OTHER_RULES, *RESNEST_RULES)
"""The same on ResNeSt, some keys of which mean other things than on ResNet; the official code has the variant but no weights."""


def official_names(config: AotConfig) -> RenameRules:
    """Official keys to ours, for one variant."""
    return _RESNEST_NAMES if config.encoder == "resnest-101" else OFFICIAL_NAMES


_ENCODER_KEYS: Mapping[str, Encoder] = {
    "encoder.features.0.0.weight": "mobilenet-v2",
    "encoder.layers.0.conv.weight": "mobilenet-v2",
    "encoder.patch_embed.proj.weight": "swin-b",
    "encoder.patches.weight": "swin-b",
    "encoder.layers.stem.conv.weight": "efficientnet-lite0",
}
"""A key that only one encoder has, by its official name or by ours; the ResNets need a closer look."""


def variants_that_fit(tensors: Mapping[str, Tensor]) -> list[str]:
    """The variants that named tensors may be the weights of, under official names or ours; none if they are of another system.

    It takes no building of networks. B and L come together, since they differ in their memory alone.
    """
    encoder = _encoder_of(tensors)
    layers = {key.removeprefix("LSTT.").split(".")[1] for key in tensors if key.startswith(("LSTT.layers.", "layers."))}
    gated = "id_norm.weight" in tensors or "id_bank.norm.weight" in tensors
    return [name for name, config in VARIANTS.items() if (config.encoder, config.num_layers, config.gated) == (encoder, len(layers), gated)]


def describe_variant(config: AotConfig) -> str:
    """What sets a variant's weights apart, in words for messages."""
    return f"{'DeAOT' if config.gated else 'AOT'} with {config.num_layers} layers on {config.encoder}"


def _encoder_of(tensors: Mapping[str, Tensor]) -> Encoder | None:
    for key, encoder in _ENCODER_KEYS.items():
        if key in tensors:
            return encoder
    third_stage = {key.split(".")[2] for key in tensors if key.startswith(("encoder.layer3.", "encoder.stage3."))}
    if not third_stage:
        return None
    if len(third_stage) == 6:  # blocks of ResNet-50
        return "resnet-50"
    stem = tensors.get("encoder.stem.conv.weight", tensors.get("encoder.conv1.weight"))
    return "resnest-101" if stem is None else "resnet-101"
