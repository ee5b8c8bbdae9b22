"""Parameters and multiply-adds of networks, counted on the meta device, and published figures.

On the meta device a network needs no memory and no arithmetic, so D7x is counted in seconds.

Reference: google/automl at 6a54c87, efficientdet/README.md (AP, FLOPs); parameters and
multiply-adds are counted from its variables at 90 classes.
Paper: Tan, Pang, Le, "EfficientDet", CVPR 2020, tables 4, 5 and 6.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.module_tracker import ModuleTracker

from effdet_plugin.config import Options, load
from effdet_plugin.ops.shapes import ShapesOnly

# Functions, not operators of aten: there an observer of each costs more time than the pass.
_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)


class Published(NamedTuple):
    """Figures of one network; None if they are not published.

    Attributes:
        ap: AP in percent, on COCO val2017 (reference) or test-dev (paper).
        parameters: Trainable parameters.
        multiply_adds: Of all convolutions for one image.
        flops: The reference's FLOPs as text (one multiply-add counts as one); empty if unknown.
        parameters_ratio: Parameters of the neck, relative to repeated FPN+PANet.
        multiply_adds_ratio: Multiply-adds of the neck, relative to repeated FPN+PANet.
        speedup: Latency of softmax fusion, relative to that of this network.
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

NUM_CLASSES = 90  # in the reference and the paper: the largest category id of COCO
# Module paths of the parts that the reference reports.
PARTS = {
    'backbone': 'backbone',
    'extra_levels': 'neck.extra_levels',
    'bifpn': 'neck.cells',
    'class_head': 'bbox_head.cls_tower',
    'box_head': 'bbox_head.box_tower',
}


@dataclass(frozen=True)
class Costs:
    """Costs of a network.

    Attributes:
        parameters: Trainable parameters.
        with_statistics: Trainable parameters, running means and running variances.
        multiply_adds: For one image: kernel elements times output positions, summed over all
            convolutions; without biases, norms, activations and pooling.
        parameters_by_part: Trainable parameters of each part in `PARTS` that the detector has.
        multiply_adds_by_part: Multiply-adds of each part in `PARTS` that the detector has.
    """

    parameters: int
    with_statistics: int
    multiply_adds: int
    parameters_by_part: Mapping[str, int]
    multiply_adds_by_part: Mapping[str, int]


@dataclass(frozen=True)
class CostRow:
    """Costs of one config's network.

    Attributes:
        name: The config's file name without ``_coco.py``.
        config: The config file.
        image_size: (height, width) in pixels.
        costs: Of the whole network.
        published: Figures of the reference; None for networks that it does not have.
        latency_ms: Milliseconds of the network with one image, where they were measured.
    """

    name: str
    config: str
    image_size: tuple[int, int]
    costs: Costs
    published: Published | None
    latency_ms: float | None = None

    @property
    def size(self) -> str:
        """The image size as ``WIDTHxHEIGHT``."""
        return '{1}x{0}'.format(*self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with the differences from the reference's counts."""
        plain: dict[str, Any] = {
            'name': self.name,
            'config': self.config,
            'image_size': self.image_size,
            'parameters': self.costs.parameters,
            'multiply_adds': self.costs.multiply_adds,
            'latency_ms': self.latency_ms,
            'published': None,
        }
        if self.published:
            figures = {k: v for k, v in self.published._asdict().items() if v is not None}
            plain['published'] = figures
            for key in ('parameters', 'multiply_adds'):
                plain[f'{key}_difference'] = plain[key] - figures[key]
        return plain


def reference_configs(root: Path) -> list[Path]:
    """Return the configs of the reference's networks.

    Args:
        root: The repository; paths below the working directory are relative to it.
    """
    paths = [root / 'configs' / 'efficientdet' / f'{name}_coco.py' for name in REFERENCE]
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in paths]


def network_name(config: Path) -> str:
    """Return ``d0`` for ``d0_coco.py``."""
    return config.stem.removesuffix('_coco')


def count_rows(
    configs: Iterable[Path],
    num_classes: int | None = NUM_CLASSES,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
) -> list[CostRow]:
    """Build each config's network on the meta device and count it.

    Args:
        configs: Config files.
        num_classes: Number of classes; None keeps that of each config.
        image_size: Input size, see `effdet_plugin.config.parse_size`; None keeps that of each
            config.
        options: ``--cfg-options`` for all configs.

    Raises:
        ConfigError: A config cannot be used.
    """
    rows = []
    for path in configs:
        cfg = load(path, image_size=image_size, options=options)
        size = int(cfg.image_size[0]), int(cfg.image_size[1])
        costs = count_costs(build_on_meta(cfg.model, num_classes), size)
        name = network_name(path)
        rows.append(CostRow(name, str(path), size, costs, REFERENCE.get(name)))
    return rows


def build_on_meta(model: Mapping[str, Any], num_classes: int | None = None) -> nn.Module:
    """Build a model without memory for its weights and without a download.

    Args:
        model: Config of the detector.
        num_classes: Number of classes of the head; None keeps the config's.
    """
    model = copy.deepcopy(dict(model))
    if model['backbone'].get('pretrained'):
        model['backbone']['pretrained'] = False
    if num_classes is not None:
        model['bbox_head']['num_classes'] = num_classes
    init_default_scope('mmdet')
    with torch.device('meta'), ShapesOnly():
        return MODELS.build(model).eval()


def count_costs(model: nn.Module, image_size: tuple[int, int]) -> Costs:
    """Count a detector's costs for one image.

    Args:
        model: A detector, on the meta device (see `build_on_meta`) or any other device.
        image_size: ``(height, width)`` of the network input in pixels.
    """
    multiply_adds = _multiply_adds(model, image_size)
    modules = dict(model.named_modules())
    parts = {name: path for name, path in PARTS.items() if path in modules}
    statistics = sum(
        buffer.numel()
        for name, buffer in model.named_buffers()
        if name.endswith(('running_mean', 'running_var'))
    )
    return Costs(
        parameters=_parameters(model),
        with_statistics=_parameters(model) + statistics,
        multiply_adds=multiply_adds['Global'],
        parameters_by_part={name: _parameters(modules[path]) for name, path in parts.items()},
        multiply_adds_by_part={
            name: _of_part(multiply_adds, f'{type(model).__name__}.{path}')
            for name, path in parts.items()
        },
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


class _Convolutions(ShapesOnly):
    """Counts multiply-adds of convolutions by the modules around them, and all as ``Global``."""

    def __init__(self, modules: ModuleTracker) -> None:
        super().__init__()
        self.modules = modules
        self.by_path: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``; an output (transposed: input) value of a convolution is one kernel."""
        out = super().__torch_function__(func, types, args, kwargs)
        if func in _CONVOLUTIONS or func in _TRANSPOSED:
            weight = args[1] if len(args) > 1 else (kwargs or {})['weight']
            values = out if func in _CONVOLUTIONS else args[0]
            number = values.numel() * weight[0].numel()
            self.by_path.update(dict.fromkeys(self.modules.parents, number))
        return out


def _multiply_adds(model: nn.Module, image_size: tuple[int, int]) -> dict[str, int]:
    """Return the multiply-adds of convolutions by module path, and the sum as ``Global``."""
    image = torch.zeros(1, 3, *image_size, device=next(model.parameters()).device)
    with torch.no_grad(), ModuleTracker() as modules, _Convolutions(modules) as counted:
        model(image, mode='tensor')
    return counted.by_path


def _of_part(by_path: Mapping[str, int], path: str) -> int:
    """Return a module's count; a ModuleList is never called itself, so its members are summed."""
    if path in by_path:
        return by_path[path]
    return sum(count for name, count in by_path.items() if name.rpartition('.')[0] == path)


def model_table(rows: Sequence[CostRow]) -> list[list[str]]:
    """Return the lines of the table of networks, header first; ``-`` where nothing is published."""
    header = ['model', 'size', 'parameters', 'reference', 'multiply-adds', 'reference']
    table = [[*header, 'its FLOPs', 'its AP val']]
    for row in rows:
        ref = row.published
        table.append(
            [
                *(row.name, row.size),
                *(f'{row.costs.parameters:,}', f'{ref.parameters:,}' if ref else '-'),
                *(f'{row.costs.multiply_adds:,}', f'{ref.multiply_adds:,}' if ref else '-'),
                *((ref.flops or '-', f'{ref.ap:.1f}') if ref else ('-', '-')),
            ]
        )
    return _with_latency(table, rows)


def readme_table(rows: Sequence[CostRow]) -> list[list[str]]:
    """Return the lines of the README's table, header first; each name links to its config."""
    header = ['config', 'size', 'parameters', 'multiply-adds', "AP val2017, the reference's"]
    table = [header] + [
        [
            f'[{row.name}]({row.config})',
            row.size,
            f'{row.costs.parameters:,}',
            f'{row.costs.multiply_adds / 1e9:,.2f}G',
            f'{row.published.ap:.1f}' if row.published else '-',
        ]
        for row in rows
    ]
    return _with_latency(table, rows)


def _with_latency(table: list[list[str]], rows: Sequence[CostRow]) -> list[list[str]]:
    """Add a last column with the measured times, if there are any."""
    if all(row.latency_ms is None for row in rows):
        return table
    times = [f'{row.latency_ms:,.0f}' if row.latency_ms is not None else '-' for row in rows]
    return [[*line, cell] for line, cell in zip(table, ['ms', *times], strict=True)]


def to_text(table: Sequence[Sequence[str]]) -> str:
    """Return a table, header first, with aligned columns for a console."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return '\n'.join(
        '  '.join(
            text.rjust(width) if index else text.ljust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def to_markdown(table: Sequence[Sequence[str]]) -> str:
    """Return a table, header first, as Markdown."""
    lines = ['| ' + ' | '.join(line) + ' |' for line in table]
    lines.insert(1, '| :-- |' + ' --: |' * (len(table[0]) - 1))
    return '\n'.join(lines)
