# Table 4: EfficientNet-B3 + FPN. The paper: AP 40.3, 21M parameters, 75B multiply-adds.
_base_ = '_base_/retinanet.py'
