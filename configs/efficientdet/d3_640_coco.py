# EfficientDet-D3 at 640x640: 12,032,296 parameters and 12.54G multiply-adds of convolutions at 90
# classes, 640x640. The reference's AP on COCO val2017: 44.0 (google/automl,
# efficientdet/README.md). tools/train.py configs/efficientdet/d3_640_coco.py
_base_ = './d3_coco.py'

image_size = (640, 640)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
