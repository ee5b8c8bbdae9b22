# EfficientDet-D6 at 640x640: 51,871,782 parameters and 56.04G multiply-adds of convolutions at 90
# classes, 640x640. The reference's AP on COCO val2017: 47.9 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d6_640_coco.py
_base_ = './d6_coco.py'

image_size = (640, 640)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
