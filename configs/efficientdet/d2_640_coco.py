# EfficientDet-D2 at 640x640: 8,097,039 parameters and 7.52G multiply-adds of convolutions at 90
# classes, 640x640. The reference's AP on COCO val2017: 41.7 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d2_640_coco.py
_base_ = './d2_coco.py'

image_size = (640, 640)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
