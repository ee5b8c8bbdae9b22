# EfficientDet-D0
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']
