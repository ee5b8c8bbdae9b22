"""The reference's figures of its 15 networks, as it publishes or computes them.

Source: google/automl at 6a54c87, efficientdet/README.md (AP, FLOPs); parameters and multiply-adds
of the convolutions are those of its own variables, counted at 90 classes.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """Figures of one network at 90 classes.

    Attributes:
        parameters: Trainable numbers.
        multiply_adds: Of all convolutions at the network's own size, one image.
        ap: On COCO val2017, in percent; trained and measured by the reference.
        flops: As published, in text (one multiply-add is one); empty where nothing is.
    """

    parameters: int
    multiply_adds: int
    ap: float
    flops: str = ''


PUBLISHED = {
    'd0': Published(3_880_067, 2_492_331_520, 34.3, '2.54B'),
    'd1': Published(6_625_898, 6_003_416_880, 40.2, '6.10B'),
    'd2': Published(8_097_039, 10_832_466_688, 43.5, '11.0B'),
    'd3': Published(12_032_296, 24_568_753_664, 46.8, '24.9B'),
    'd4': Published(20_723_675, 54_583_712_096, 49.3, '55.2B'),
    'd5': Published(33_653_315, 134_133_865_152, 51.2, '130B'),
    'd6': Published(51_871_782, 224_121_477_984, 52.1, '226B'),
    'd7': Published(51_871_782, 322_731_636_576, 53.4, '325B'),
    'd7x': Published(77_147_166, 407_628_345_344, 54.4, '410B'),
    'lite0': Published(3_243_470, 973_589_696, 26.41),
    'lite1': Published(4_248_318, 1_966_649_904, 31.50),
    'lite2': Published(5_252_334, 3_371_304_384, 35.06),
    'lite3': Published(8_350_862, 7_480_187_904, 38.77),
    'lite3x': Published(9_280_862, 13_978_127_600, 42.64),
    'lite4': Published(15_130_894, 20_168_084_000, 43.18),
}
