# EfficientDet-Lite1 for MediaPipe Tasks, which stretch an image to the input size and pad nothing.
# tools/train.py configs/efficientdet/lite1_mediapipe.py --data DIR
_base_ = './lite1_coco.py'

resize_mode = 'stretch_mediapipe'
train_dataloader = dict(dataset=dict(resize_mode=resize_mode))
val_dataloader = test_dataloader = dict(dataset=dict(resize_mode=resize_mode))
