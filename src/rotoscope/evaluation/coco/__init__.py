"""Detections against the annotations of COCO: average precision of masks and boxes."""

from rotoscope.evaluation.coco.average_precision import CategoryScores, CocoScores, evaluate_coco
from rotoscope.evaluation.coco.official_yolact import OfficialRules, evaluate_official

__all__ = ["CategoryScores", "CocoScores", "OfficialRules", "evaluate_coco", "evaluate_official"]
