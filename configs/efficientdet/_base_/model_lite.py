# EfficientDet-Lite0: no squeeze-and-excite, relu6, plain sums, one number for mean and std.
_base_ = './model.py'

model = dict(
    data_preprocessor=dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0]),
    # timm has one set of weights of each.
    backbone=dict(model_name='tf_efficientnet_lite0', pretrained=True, drop_path_rate=0.2),
    neck=dict(fusion='sum', act='relu6'),
    bbox_head=dict(act='relu6', anchor_generator=dict(octave_base_scale=3.0)),
)
