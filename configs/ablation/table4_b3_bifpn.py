# Table 4: EfficientNet-B3 + BiFPN. The paper: AP 44.4, 12M parameters, 24B multiply-adds.
_base_ = '_base_/b3.py'
