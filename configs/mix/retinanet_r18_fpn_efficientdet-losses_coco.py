# RetinaNet with EfficientDet's losses. mmdet's heads divide both losses by the number of positives;
# EfficientDet's head divides the box loss by 4 times that: hence 12.5 here for its weight of 50.
_base_ = '_base_/retinanet.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True, type='SigmoidFocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.25
        ),
        loss_bbox=dict(_delete_=True, type='HuberLoss', delta=0.1, loss_weight=12.5),
    ),
)
