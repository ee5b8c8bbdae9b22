# EfficientDet-D4, Det-AdvProp + AutoAugment weights: 20,723,675 parameters and 54.58G
# multiply-adds of convolutions at 90 classes, 1024x1024. The reference's AP on COCO val2017: 50.4
# (google/automl, efficientdet/README.md). tools/train.py configs/efficientdet/d4_advprop_coco.py
_base_ = './d4_coco.py'

# Images scaled to [-1, 1] after padding, so the padding is -1.
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], pad_value=-1.0),
    backbone=dict(pretrained='timm:ap_in1k'),
)
