"""YOLACT and YOLACT++ (Bolya, Zhou, Xiao and Lee, ICCV 2019 and TPAMI 2020): prototypes, coefficients, and masks made of both."""

from rotoscope.models.yolact.config import YolactConfig
from rotoscope.models.yolact.mask_iou import MaskIouNetwork
from rotoscope.models.yolact.naming import OFFICIAL_NAMES
from rotoscope.models.yolact.network import YolactNetwork, fresh_network
from rotoscope.models.yolact.outputs import RawOutputs
from rotoscope.models.yolact.variants import OFFICIAL_FILES, VARIANTS

__all__ = ["OFFICIAL_FILES", "OFFICIAL_NAMES", "VARIANTS", "MaskIouNetwork", "RawOutputs", "YolactConfig", "YolactNetwork", "fresh_network"]
