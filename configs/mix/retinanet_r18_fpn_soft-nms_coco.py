# RetinaNet with EfficientDet's Gaussian soft-NMS, as mmcv's soft_nms: its compiled operator if
# there is one, else our stand-in.
_base_ = '_base_/retinanet.py'

model = dict(
    test_cfg=dict(
        nms=dict(type='soft_nms', method='gaussian', sigma=0.5, iou_threshold=0.5, min_score=0.001),
        score_thr=0.001,
    ),
)
