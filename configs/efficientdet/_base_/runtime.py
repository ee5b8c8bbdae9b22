# With the prefix mmdet's own train.py finds it, too. mmengine's Runner also accepts these configs.
runner_type = 'mmdet.EfficientDetRunner'
sync_bn = None  # BN of several GPUs is synchronised, as in the published models; False: plain BN
default_hooks = dict(
    runtime_info=dict(type='DeferredRuntimeInfoHook'),  # mmengine's syncs the device in each step
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
report = True  # report.html and report.png in the work dir, when a training ends
load_from = None
resume = False
