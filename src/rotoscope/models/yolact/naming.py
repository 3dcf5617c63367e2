"""From the keys of official weights, and of the ImageNet weights that trainings begin with, to ours."""

from rotoscope.models.checkpoints import RenameRules

_PARTS = {"1": "reduce", "2": "spatial", "3": "expand"}


def _resnet_rules(block: str, ours: str) -> RenameRules:
    """Of the blocks of a ResNet, whose prefix and ours are given; groups 1 of both are the block within its stage."""
    rules = [(rf"{block}conv{number}\.(weight|bias)", rf"{ours}{name}.conv.\2") for number, name in _PARTS.items()]
    rules += [(rf"{block}bn{number}\.(\w+)", rf"{ours}{name}.norm.\2") for number, name in _PARTS.items()]
    return (
        *rules,
        (block + r"conv2\.conv_offset_mask\.(weight|bias)", ours + r"spatial.conv.taps.\2"),
        (block + r"downsample\.0\.weight", ours + "shortcut.conv.weight"),
        (block + r"downsample\.1\.(\w+)", ours + r"shortcut.norm.\2"),
    )


def _numbered(official: str, ours: str, *, last: int) -> RenameRules:
    """Lists that the official code keeps in the other order."""
    return tuple((rf"{official}\.{number}\.(\w+)", rf"{ours}.{last - number}.\1") for number in range(last + 1))


_DARKNET: RenameRules = (
    (r"_preconv\.0\.weight", "stem.conv.weight"),
    (r"_preconv\.1\.(\w+)", r"stem.norm.\1"),
    (r"layers\.(\d+)\.0\.0\.weight", r"stages.\1.0.conv.weight"),
    (r"layers\.(\d+)\.0\.1\.(\w+)", r"stages.\1.0.norm.\2"),
    *(
        rule
        for number, name in (("1", "reduce"), ("2", "spatial"))
        for rule in (
            (rf"layers\.(\d+)\.(\d+)\.conv{number}\.0\.weight", rf"stages.\1.\2.{name}.conv.weight"),
            (rf"layers\.(\d+)\.(\d+)\.conv{number}\.1\.(\w+)", rf"stages.\1.\2.{name}.norm.\3"),
        )
    ),
)

_RESNET: RenameRules = (
    (r"conv1\.weight", "stem.conv.weight"),
    (r"bn1\.(\w+)", r"stem.norm.\1"),
    *(rule for stage in range(4) for rule in _resnet_rules(rf"layers\.{stage}\.(\d+)\.", rf"stages.{stage}.\1.")),
)

OFFICIAL_NAMES: RenameRules = (
    # left over in files of version 1.0: the encoder's layers a second time, and coarser levels than there are
    (r"backbone\.layer(?!s).*", ""),
    (r"fpn\.downsample_layers\.(?:[2-9]|\d\d+)\..*", ""),
    *((r"backbone\." + official, "backbone." + ours) for official, ours in (*_RESNET, *_DARKNET)),
    *_numbered(r"fpn\.lat_layers", "pyramid.lateral", last=2),
    *_numbered(r"fpn\.pred_layers", "pyramid.smooth", last=2),
    (r"fpn\.downsample_layers\.([01])\.(\w+)", r"pyramid.coarsen.\1.\2"),
    *((rf"proto_net\.{2 * layer}\.(\w+)", rf"prototypes.coarse.{layer}.\1") for layer in range(3)),
    (r"proto_net\.8\.(\w+)", r"prototypes.fine.\1"),
    (r"proto_net\.10\.(\w+)", r"prototypes.mix.\1"),
    (r"prediction_layers\.0\.upfeature\.0\.(\w+)", r"head.shared.\1"),
    (r"prediction_layers\.0\.bbox_layer\.(\w+)", r"head.offsets.\1"),
    (r"prediction_layers\.0\.conf_layer\.(\w+)", r"head.classes.\1"),
    (r"prediction_layers\.0\.mask_layer\.(\w+)", r"head.coefficients.\1"),
    (r"semantic_seg_conv\.(\w+)", r"semantic.\1"),
    *((rf"maskiou_net\.maskiou_net\.{2 * layer}\.(\w+)", rf"mask_iou.narrow.{layer}.\1") for layer in range(5)),
    (r"maskiou_net\.maskiou_net\.10\.(\w+)", r"mask_iou.classify.\1"),
)
"""From the official keys to ours, for all variants; what the rules leave out is in old files only, and never used."""

IMAGENET_NAMES: RenameRules = (
    (r"fc\..*", ""),
    *_RESNET,
    *(rule for stage in range(4) for rule in _resnet_rules(rf"layer{stage + 1}\.(\d+)\.", rf"stages.{stage}.\1.")),
    *_DARKNET,
)
"""From the keys of ImageNet's ResNets (as torchvision names them) and of the official start of DarkNet-53 to those of our encoders."""
