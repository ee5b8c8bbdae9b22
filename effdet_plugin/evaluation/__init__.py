"""Evaluation: COCO's 12 metrics."""

from effdet_plugin.evaluation.coco_twelve import NAMES, CocoTwelveMetric

__all__ = ['NAMES', 'CocoTwelveMetric']
