# EfficientDet-D3, Det-AdvProp + AutoAugment weights: 12,032,296 parameters and 24.57G
# multiply-adds of convolutions at 90 classes, 896x896. The reference's AP on COCO val2017: 47.7
# (google/automl, efficientdet/README.md). tools/train.py configs/efficientdet/d3_advprop_coco.py
_base_ = './d3_coco.py'

# Images scaled to [-1, 1] after padding, so the padding is -1.
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], pad_value=-1.0),
    backbone=dict(pretrained='timm:ap_in1k'),
)
