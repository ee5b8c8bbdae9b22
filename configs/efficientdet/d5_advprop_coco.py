# EfficientDet-D5, Det-AdvProp + AutoAugment weights: 33,653,315 parameters and 134.13G
# multiply-adds of convolutions at 90 classes, 1280x1280. The reference's AP on COCO val2017: 52.2
# (google/automl, efficientdet/README.md). tools/train.py configs/efficientdet/d5_advprop_coco.py
_base_ = './d5_coco.py'

# Images scaled to [-1, 1] after padding, so the padding is -1.
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], pad_value=-1.0),
    backbone=dict(pretrained='timm:ap_in1k'),
)
