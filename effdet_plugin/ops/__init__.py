"""Pure functions on tensors (torch and numpy only): boxes, anchors, losses, NMS, resampling."""

from effdet_plugin.ops.anchors import anchor_boxes, level_sizes
from effdet_plugin.ops.box_loss import huber_loss, iou_loss
from effdet_plugin.ops.boxes import clip_boxes, decode_deltas, encode_deltas, pairwise_iou
from effdet_plugin.ops.focal import sigmoid_focal_loss
from effdet_plugin.ops.matching import match_anchors
from effdet_plugin.ops.nms import batched_nms
from effdet_plugin.ops.resample import max_pool_same, resample_nearest

__all__ = [
    'anchor_boxes',
    'batched_nms',
    'clip_boxes',
    'decode_deltas',
    'encode_deltas',
    'huber_loss',
    'iou_loss',
    'level_sizes',
    'match_anchors',
    'max_pool_same',
    'pairwise_iou',
    'resample_nearest',
    'sigmoid_focal_loss',
]
