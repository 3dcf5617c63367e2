"""The rows of the table of models: what each is called and does, which file builds it, where its weights come from."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["track", "detect", "interact", "fuse"]
"""What a model does: follow objects, find them, make masks of interactions, join the results of two rounds."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A row of the table.

    Attributes:
        name: what the user calls it.
        task: what it does.
        module: the file that builds it, under `rotoscope.models`; it has VARIANTS, OFFICIAL_NAMES and `build`.
        summary: one line.
        paper: where the method is published.
        origin: where the weights come from.
        licence: the terms of the weights.
        official_files: the names of the official weights files.
        shipped: whether the weights are inside the package.
        published: the official score, with its benchmark.
    """

    name: str
    task: Task
    module: str
    summary: str
    paper: str
    origin: str
    licence: str
    official_files: tuple[str, ...] = ()
    shipped: bool = False
    published: str = ""


_ROWS = (
    ModelSpec(
        name="mast-lite",
        task="track",
        module="mast_lite",
        summary="MAST's memory read over EfficientNet-Lite0 features, with a classifier of the objects' looks learnt on the fly",
        paper="Lai et al., CVPR 2020 (memory read); Tan and Le, ICML 2019 (features)",
        origin="ImageNet weights of EfficientNet-Lite0, in the package",
        licence="Apache-2.0",
        shipped=True,
    ),
    ModelSpec(
        name="mast",
        task="track",
        module="mast",
        summary="self-supervised tracker with two-step memory localisation",
        paper="Lai, Lu and Xie, MAST, CVPR 2020",
        origin="the link in the README of the official repository (zlai0/MAST)",
        licence="none stated: the official repository has no licence",
        official_files=("checkpoint.pt",),
        published="J&F 65.5 on DAVIS-2017 val",
    ),
    ModelSpec(
        name="rgmp",
        task="track",
        module="rgmp",
        summary="reference-guided mask propagation on ResNet-50, three scales",
        paper="Oh et al., CVPR 2018",
        origin="the link in the README of the official repository (seoungwugoh/RGMP)",
        licence="non-commercial research only, says the official README",
        official_files=("weights.pth",),
        published="J&F 81.8 on DAVIS-2016 val, 66.7 on DAVIS-2017 val",
    ),
    ModelSpec(
        name="rgmp-lite",
        task="track",
        module="rgmp",
        summary="RGMP's design on EfficientNet-Lite0, half as wide",
        paper="Oh et al., CVPR 2018 (design); Tan and Le, ICML 2019 (encoder)",
        origin="your own training: `rotoscope train rgmp-lite --data IMAGES`",
        licence="none: there are no weights to download",
    ),
)

_LITE_ROW = ModelSpec(
    name="deaot-lite",
    task="track",
    module="aot",
    summary="DeAOT-T's design on EfficientNet-Lite0, trained on static images and machine-labelled video",
    paper="Yang and Yang, NeurIPS 2022 (DeAOT); Tan and Le, ICML 2019 (encoder)",
    origin="trained by this project, in the package",
    licence="research use: the terms of the training images, see the model card",
    shipped=True,
)
_AOT_PAPER = "Yang, Wei and Yang, NeurIPS 2021"
_DEAOT_PAPER = "Yang and Yang, NeurIPS 2022"
_AOT_SUMMARIES = {
    # name: summary, official file without its stage, published score
    "aot-t": ("AOT on MobileNetV2, 1 layer", "AOTT", "J&F 79.2 on DAVIS-2017 val"),
    "aot-s": ("AOT on MobileNetV2, 2 layers", "AOTS", "J&F 82.1 on DAVIS-2017 val"),
    "aot-b": ("AOT on MobileNetV2, 3 layers", "AOTB", "J&F 83.3 on DAVIS-2017 val"),
    "aot-l": ("AOT on MobileNetV2, 3 layers, growing memory", "AOTL", "J&F 83.6 on DAVIS-2017 val"),
    "r50-aot-l": ("AOT on ResNet-50, growing memory", "R50_AOTL", "J&F 85.2 on DAVIS-2017 val"),
    "r101-aot-l": ("AOT on ResNet-101, growing memory", "", ""),
    "rs101-aot-l": ("AOT on ResNeSt-101, growing memory", "", ""),
    "swinb-aot-l": ("AOT on Swin-B, growing memory", "SwinB_AOTL", "J&F 85.9 on DAVIS-2017 val"),
    "deaot-t": ("DeAOT on MobileNetV2, 1 layer", "DeAOTT", "82.0 on YouTube-VOS 2018 val"),
    "deaot-s": ("DeAOT on MobileNetV2, 2 layers", "DeAOTS", "84.0 on YouTube-VOS 2018 val"),
    "deaot-b": ("DeAOT on MobileNetV2, 3 layers", "DeAOTB", "84.6 on YouTube-VOS 2018 val"),
    "deaot-l": ("DeAOT on MobileNetV2, 3 layers, growing memory", "DeAOTL", "84.8 on YouTube-VOS 2018 val"),
    "r50-deaot-l": ("DeAOT on ResNet-50, growing memory", "R50_DeAOTL", "86.0 on YouTube-VOS 2018 val"),
    "swinb-deaot-l": ("DeAOT on Swin-B, growing memory", "SwinB_DeAOTL", "J&F 86.2 on DAVIS-2017 val"),
}
_AOT_ROWS = tuple(
    ModelSpec(
        name=name,
        task="track",
        module="aot",
        summary=summary,
        paper=_DEAOT_PAPER if "deaot" in name else _AOT_PAPER,
        origin="the model zoo of the official repository (yoxu515/aot-benchmark)" if stem else "nobody: weights of it were never released",
        licence="BSD-3-Clause (the repository's)" if stem else "none: there are no official weights",
        official_files=(f"{stem}_PRE_YTB_DAV.pth", f"{stem}_PRE.pth") if stem else (),
        published=published,
    )
    for name, (summary, stem, published) in _AOT_SUMMARIES.items()
)

_MIVOS_PAPER = "Cheng, Tai and Tang, MiVOS, CVPR 2021"
_MIVOS_ORIGIN = "the link in the README of the official repository (hkchengrex/MiVOS)"
_MIVOS_ROWS = (
    ModelSpec(
        name="mivos",
        task="track",
        module="mivos",
        summary="space-time memory read by its top 50 cells, for masks given on any frames",
        paper=_MIVOS_PAPER,
        origin=_MIVOS_ORIGIN,
        licence="MIT (the repository's)",
        official_files=("propagation_model.pth",),
        published="J&F 84.5 on DAVIS-2017 val; AUC 87.9 on DAVIS interactive, with s2m and fusion",
    ),
    ModelSpec(
        name="s2m",
        task="interact",
        module="s2m",
        summary="scribbles to masks, by DeepLabV3+",
        paper=_MIVOS_PAPER,
        origin=_MIVOS_ORIGIN,
        licence="MIT (the repository's)",
        official_files=("s2m.pth",),
    ),
    ModelSpec(
        name="fusion",
        task="fuse",
        module="fusion",
        summary="joins the masks before and after a correction, minding what it changed",
        paper=_MIVOS_PAPER,
        origin=_MIVOS_ORIGIN,
        licence="MIT (the repository's)",
        official_files=("fusion.pth",),
    ),
)

_INTERACTIVE_ROWS = (
    ModelSpec(
        name="s2m-lite",
        task="interact",
        module="s2m_lite",
        summary="clicks, boxes, lines and painted masks to masks, by EfficientNet-Lite0 and a light DeepLabV3+",
        paper="ours; Chen et al., DeepLabV3+, ECCV 2018; Tan and Le, ICML 2019 (features)",
        origin="trained by this project, in the package",
        licence="research use: the terms of the training images, see the model card",
        shipped=True,
    ),
    ModelSpec(
        name="fusion-lite",
        task="fuse",
        module="fusion_lite",
        summary="mixes the masks before and after a correction by nearness, and by what the picture shows",
        paper="ours; after Cheng, Tai and Tang, MiVOS, CVPR 2021",
        origin="`rotoscope train fusion-lite`",
        licence="that of the images it is trained on",
    ),
)

_YOLACT_PAPER = "Bolya, Zhou, Xiao and Lee, YOLACT, ICCV 2019"
_YOLACT_PLUS_PAPER = "Bolya, Zhou, Xiao and Lee, YOLACT++, TPAMI 2020"
_YOLACT_SUMMARIES = {
    # name: summary, official file, published score
    "yolact-base": ("YOLACT on ResNet-101, 550 pixels", "yolact_base_54_800000.pth", "mask AP 29.8 on COCO test-dev"),
    "yolact-im400": ("YOLACT on ResNet-101, 400 pixels", "", "mask AP 24.9 on COCO test-dev"),
    "yolact-im700": ("YOLACT on ResNet-101, 700 pixels", "yolact_im700_54_800000.pth", "mask AP 31.2 on COCO test-dev"),
    "yolact-resnet50": ("YOLACT on ResNet-50, 550 pixels", "yolact_resnet50_54_800000.pth", "mask AP 28.2 on COCO test-dev"),
    "yolact-darknet53": ("YOLACT on DarkNet-53, 550 pixels", "yolact_darknet53_54_800000.pth", "mask AP 28.7 on COCO test-dev"),
    "yolact-pascal": ("YOLACT on ResNet-50, 550 pixels, the 20 classes of Pascal VOC", "", "mask AP50 72.3, AP70 56.2 on Pascal SBD"),
    "yolact-plus-resnet50": (
        "YOLACT++ on ResNet-50: deformable, judges its masks",
        "yolact_plus_resnet50_54_800000.pth",
        "mask AP 34.1 on COCO test-dev",
    ),
    "yolact-plus-base": ("YOLACT++ on ResNet-101: deformable, judges its masks", "yolact_plus_base_54_800000.pth", "mask AP 34.6 on COCO test-dev"),
}
_YOLACT_ROWS = (
    *(
        ModelSpec(
            name=name,
            task="detect",
            module="yolact",
            summary=summary,
            paper=_YOLACT_PLUS_PAPER if "plus" in name else _YOLACT_PAPER,
            origin="the links in the README of the official repository (dbolya/yolact)" if file else "nobody: weights of it were never released",
            licence="MIT (the repository's)" if file else "none: there are no official weights",
            official_files=(file,) if file else (),
            published=published,
        )
        for name, (summary, file, published) in _YOLACT_SUMMARIES.items()
    ),
    ModelSpec(
        name="yolact-lite",
        task="detect",
        module="yolact",
        summary="YOLACT's design on EfficientNet-Lite0, light and small: people, and any other object",
        paper="Bolya et al., ICCV 2019 (design); Tan and Le, ICML 2019 (encoder)",
        origin="trained by this project, in the package",
        licence="research use: the terms of the training images, see the model card",
        shipped=True,
    ),
)

ROWS = (*_ROWS, _LITE_ROW, *_AOT_ROWS, *_MIVOS_ROWS, *_INTERACTIVE_ROWS, *_YOLACT_ROWS)
"""In the order in which models are listed."""
