# The recipe of google/automl efficientdet/hparams_config.py (the reference): SGD with a learning
# rate of 0.08 per 64 images, one epoch of warm-up, a cosine over steps, 300 epochs.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='ClippedOptimWrapper',
    optimizer=dict(type='SGD', lr=0.16, momentum=0.9, weight_decay=4e-5),
    clip_norm=10.0,  # of each tensor, then of all together
    weight_decay_mode='loss',  # in the gradient before the clip; 'decoupled': in the optimiser
    constructor='GroupedOptimWrapperConstructor',
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        # Each fusion weight is a separate variable in the reference, and is clipped by itself.
        custom_keys={'fusion.weights': dict(decay_mult=0.0, clip_rows=True)},
    ),
)
# The learning rate above is for 8 x 16 images; it is scaled to the actual batch size.
auto_scale_lr = dict(enable=True, base_batch_size=128)

param_scheduler = [
    dict(
        type='ReferenceLR',
        decay='cosine',
        warmup_epochs=1,
        warmup_factor=0.1,
        convert_to_iter_based=True,  # changes at every step and spans the whole training
    )
]
custom_hooks = [
    dict(type='RampUpEMAHook', momentum=0.0002, update_buffers=True, priority=49),
    dict(type='LoadMatchingHook'),  # load_from with other classes; logs what is not loaded
    dict(type='FiniteLossHook'),  # stops at a loss of NaN or inf; names step, rank and images
]
