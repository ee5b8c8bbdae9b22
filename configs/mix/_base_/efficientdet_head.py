# EfficientDet's head, losses and post-processing in mmdet's SingleStageDetector; the configs that
# use this add the neck.
_base_ = './resnet18.py'

model = dict(
    type='SingleStageDetector',
    bbox_head=dict(
        type='EfficientDetHead',
        num_classes=80,
        in_channels=256,
        feat_channels=64,
        stacked_convs=3,
        num_levels=5,
    ),
)
