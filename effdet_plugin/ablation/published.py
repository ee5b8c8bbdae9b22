"""What the paper says of its comparisons. Source: Tan, Pang, Le, "EfficientDet", CVPR 2020.

The ratios of table 5 are those of the feature network alone: with the whole network none of them
could be that far from 1, since backbone and head are the same and take most of it.
"""

from typing import NamedTuple


class Paper(NamedTuple):
    """Figures of one row.

    Attributes:
        ap: On COCO test-dev, in percent.
        parameters: Of the whole network.
        multiply_adds: Of the whole network.
        parameters_ratio: Feature network's, to that of repeated FPN+PANet.
        multiply_adds_ratio: The same.
        speedup: Over softmax fusion.
    """

    ap: float
    parameters: float | None = None
    multiply_adds: float | None = None
    parameters_ratio: float | None = None
    multiply_adds_ratio: float | None = None
    speedup: float | None = None


PAPER = {
    'table4_r50_fpn': Paper(37.0, 34e6, 97e9),
    'table4_b3_fpn': Paper(40.3, 21e6, 75e9),
    'table4_b3_bifpn': Paper(44.4, 12e6, 24e9),
    'table5_fpn': Paper(42.29, parameters_ratio=1.0, multiply_adds_ratio=1.0),
    'table5_fpn_panet': Paper(44.08, parameters_ratio=1.0, multiply_adds_ratio=1.0),
    'table5_nas_fpn': Paper(43.16, parameters_ratio=0.71, multiply_adds_ratio=0.72),
    'table5_fully_connected': Paper(43.06, parameters_ratio=1.24, multiply_adds_ratio=1.21),
    'table5_bifpn_sum': Paper(43.94, parameters_ratio=0.88, multiply_adds_ratio=0.67),
    'table5_bifpn': Paper(44.39, parameters_ratio=0.88, multiply_adds_ratio=0.68),
    'table6_softmax': Paper(33.96, speedup=1.0),
    'table6_fast': Paper(33.85, speedup=1.28),
}
# To which the others of a table are compared, by the beginnings of their names.
BASELINES = {'table5': 'table5_fpn_panet', 'lite0': 'lite0_fpn_panet', 'table6': 'table6_softmax'}
