# EfficientDet-D4 at 640x640: 20,723,675 parameters and 21.32G multiply-adds of convolutions at 90
# classes, 640x640. The reference's AP on COCO val2017: 45.7 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d4_640_coco.py
_base_ = './d4_coco.py'

image_size = (640, 640)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
