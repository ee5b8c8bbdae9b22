# RetinaNet with EfficientDet's assignment: one threshold, and one anchor forced for each box.
_base_ = '_base_/retinanet.py'

model = dict(
    train_cfg=dict(assigner=dict(_delete_=True, type='BatchMaxIoUAssigner', pos_iou_thr=0.5))
)
