# EfficientDet-D5 at 640x640: 33,653,315 parameters and 33.54G multiply-adds of convolutions at 90
# classes, 640x640. The reference's AP on COCO val2017: 46.6 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d5_640_coco.py
_base_ = './d5_coco.py'

image_size = (640, 640)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
