"""Figures of the reference and of the paper, to compare ours with.

Reference: google/automl at 6a54c87, efficientdet/README.md (AP, FLOPs); parameters and
multiply-adds are counted from its variables at 90 classes.
Paper: Tan, Pang, Le, "EfficientDet", CVPR 2020, tables 4, 5 and 6.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """Figures of one network; None if they are not published.

    Attributes:
        ap: In percent, on COCO val2017 (reference) or test-dev (paper).
        parameters: Trainable parameters.
        multiply_adds: Of all convolutions for one image.
        flops: The reference's FLOPs as text (one multiply-add counts as one); empty if unknown.
        parameters_ratio: Parameters of the neck, relative to repeated FPN+PANet.
        multiply_adds_ratio: Multiply-adds of the neck, relative to repeated FPN+PANet.
        speedup: Over softmax fusion.
    """

    ap: float
    parameters: float | None = None
    multiply_adds: float | None = None
    flops: str = ''
    parameters_ratio: float | None = None
    multiply_adds_ratio: float | None = None
    speedup: float | None = None


REFERENCE = {
    'd0': Published(34.3, 3_880_067, 2_492_331_520, '2.54B'),
    'd1': Published(40.2, 6_625_898, 6_003_416_880, '6.10B'),
    'd2': Published(43.5, 8_097_039, 10_832_466_688, '11.0B'),
    'd3': Published(46.8, 12_032_296, 24_568_753_664, '24.9B'),
    'd4': Published(49.3, 20_723_675, 54_583_712_096, '55.2B'),
    'd5': Published(51.2, 33_653_315, 134_133_865_152, '130B'),
    'd6': Published(52.1, 51_871_782, 224_121_477_984, '226B'),
    'd7': Published(53.4, 51_871_782, 322_731_636_576, '325B'),
    'd7x': Published(54.4, 77_147_166, 407_628_345_344, '410B'),
    'lite0': Published(26.41, 3_243_470, 973_589_696),
    'lite1': Published(31.50, 4_248_318, 1_966_649_904),
    'lite2': Published(35.06, 5_252_334, 3_371_304_384),
    'lite3': Published(38.77, 8_350_862, 7_480_187_904),
    'lite3x': Published(42.64, 9_280_862, 13_978_127_600),
    'lite4': Published(43.18, 15_130_894, 20_168_084_000),
}
# Table 5 has the ratios of the necks alone: backbone and head, which are equal in all its rows, are
# most of the network, so ratios of whole networks would all be near 1.
PAPER = {
    'table4_r50_fpn': Published(37.0, 34e6, 97e9),
    'table4_b3_fpn': Published(40.3, 21e6, 75e9),
    'table4_b3_bifpn': Published(44.4, 12e6, 24e9),
    'table5_fpn': Published(42.29, parameters_ratio=1.0, multiply_adds_ratio=1.0),
    'table5_fpn_panet': Published(44.08, parameters_ratio=1.0, multiply_adds_ratio=1.0),
    'table5_nas_fpn': Published(43.16, parameters_ratio=0.71, multiply_adds_ratio=0.72),
    'table5_fully_connected': Published(43.06, parameters_ratio=1.24, multiply_adds_ratio=1.21),
    'table5_bifpn_sum': Published(43.94, parameters_ratio=0.88, multiply_adds_ratio=0.67),
    'table5_bifpn': Published(44.39, parameters_ratio=0.88, multiply_adds_ratio=0.68),
    'table6_softmax': Published(33.96, speedup=1.0),
    'table6_fast': Published(33.85, speedup=1.28),
}
