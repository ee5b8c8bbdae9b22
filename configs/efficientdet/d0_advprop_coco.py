# EfficientDet-D0, Det-AdvProp + AutoAugment weights: 3,880,067 parameters and 2.49G multiply-adds
# of convolutions at 90 classes, 512x512. The reference's AP on COCO val2017: 35.1 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d0_advprop_coco.py
_base_ = './d0_coco.py'

# Images scaled to [-1, 1] after padding, so the padding is -1.
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], pad_value=-1.0),
    backbone=dict(pretrained='timm:ap_in1k'),
)
