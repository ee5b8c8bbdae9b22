# Table 4's baseline: RetinaNet at 640x640 with a plain FPN and plain convolutions in its head.
_base_ = '../../efficientdet/d3_coco.py'

image_size = (640, 640)
model = dict(
    neck=dict(
        _delete_=True,
        type='FPN',
        in_channels=[48, 136, 384],
        out_channels=256,
        add_extra_convs='on_output',
        num_outs=5,
    ),
    bbox_head=dict(in_channels=256, separable=False, act='relu'),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
