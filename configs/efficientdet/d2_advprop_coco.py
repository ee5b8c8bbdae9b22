# EfficientDet-D2, Det-AdvProp + AutoAugment weights: 8,097,039 parameters and 10.83G multiply-adds
# of convolutions at 90 classes, 768x768. The reference's AP on COCO val2017: 44.3 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d2_advprop_coco.py
_base_ = './d2_coco.py'

# Images scaled to [-1, 1] after padding, so the padding is -1.
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], pad_value=-1.0),
    backbone=dict(pretrained='timm:ap_in1k'),
)
