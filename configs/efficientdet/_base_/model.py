# EfficientDet-D0: every part by name. The other configs have only what differs.
# Sizes of the network: Tan, Pang, Le, "EfficientDet", CVPR 2020, table 1; other settings:
# google/automl efficientdet/hparams_config.py (the reference).
default_scope = 'mmdet'
custom_imports = dict(imports=['effdet_plugin'], allow_failed_imports=False)

image_size = (512, 512)  # (height, width) of the network input
num_classes = 80

model = dict(
    type='EfficientDet',
    data_preprocessor=dict(
        type='EfficientDetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
    ),
    backbone=dict(
        type='TimmBackbone',
        model_name='tf_efficientnet_b0',
        out_indices=(2, 3, 4),
        # timm's download when training starts, of the weights that the reference starts from
        # (docs/differences.md); other sources: docs/training.md.
        pretrained='timm:aa_in1k',
        norm_momentum=0.01,  # timm's default is 0.1; that of neck and head is 0.01
        drop_path_rate=0.0,  # the reference switches it off for b0 only
    ),
    neck=dict(
        type='BiFPN',
        in_channels=[40, 112, 320],
        out_channels=64,
        num_outs=5,
        num_cells=3,
        fusion='fast_attn',
        act='swish',
    ),
    bbox_head=dict(
        type='EfficientDetHead',
        num_classes=num_classes,
        in_channels=64,
        stacked_convs=3,
        num_levels=5,
        act='swish',
        anchor_generator=dict(
            type='EfficientDetAnchorGenerator',
            strides=[8, 16, 32, 64, 128],
            octave_base_scale=4.0,
            scales_per_octave=3,
            aspect_ratios=[1.0, 2.0, 0.5],
        ),
        bbox_coder=dict(type='EfficientDetBoxCoder'),
        assigner=dict(type='BatchMaxIoUAssigner', pos_iou_thr=0.5),
        loss_cls=dict(type='SigmoidFocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.25),
        loss_bbox=dict(type='HuberLoss', delta=0.1, loss_weight=50.0),
        loss_normalizer='local',
        postprocessor=dict(
            type='DetectionPostProcessor',
            nms_pre=5000,
            method='gaussian',
            sigma=0.5,
            max_per_img=100,
            class_wise=True,
        ),
    ),
)
