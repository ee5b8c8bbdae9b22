# EfficientDet-D1, Det-AdvProp + AutoAugment weights: 6,625,898 parameters and 6.00G multiply-adds
# of convolutions at 90 classes, 640x640. The reference's AP on COCO val2017: 40.8 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d1_advprop_coco.py
_base_ = './d1_coco.py'

# Images scaled to [-1, 1] after padding, so the padding is -1.
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], pad_value=-1.0),
    backbone=dict(pretrained='timm:ap_in1k'),
)
