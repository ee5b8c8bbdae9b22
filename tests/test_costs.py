"""Counted costs of configs, and the tables of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from effdet_plugin.benchmark import Settings
from effdet_plugin.benchmark.network import latencies
from effdet_plugin.cost_plot import check_plot_file, plot_costs
from effdet_plugin.costs import (
    REFERENCE,
    CostRow,
    Costs,
    count_costs,
    count_rows,
    model_table,
    readme_table,
    reference_configs,
    to_markdown,
    to_text,
)
from effdet_plugin.errors import ConfigError
from support import REPOSITORY

LITE0 = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'


@pytest.fixture
def rows() -> list[CostRow]:
    d0, own = Costs(3_880_068, 0, 2_492_331_520, {}, {}), Costs(1000, 0, 2_000_000_000, {}, {})
    return [
        CostRow('d0', 'configs/d0_coco.py', (512, 512), d0, REFERENCE['d0']),
        CostRow('own', 'own.py', (128, 192), own, None),
    ]


def test_count_rows__size_and_classes() -> None:
    """Twice the pixels, not square: twice the convolutions, since Lite0 has no SE."""
    (row,) = count_rows([LITE0], num_classes=80, image_size='512x256')
    assert (row.name, row.image_size) == ('lite0', (256, 512))
    (small,) = count_rows([LITE0], num_classes=80, image_size=256)
    assert row.costs.multiply_adds == 2 * small.costs.multiply_adds
    # 10 classes fewer: 9 anchors of 64 weights and a bias each.
    assert row.costs.parameters == REFERENCE['lite0'].parameters - 10 * 9 * 65
    assert row.costs == count_rows([LITE0], None, '512x256')[0].costs  # the config has 80 classes


def test_count_costs__equals_the_count_of_torch() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.neck = nn.Sequential(nn.Conv2d(8, 8, 5, groups=4), nn.BatchNorm2d(8))
            self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2)

        def forward(self, images: Tensor, mode: str) -> Tensor:
            maps: Tensor = self.up(self.neck(self.backbone(images)))
            return F.conv2d(input=maps, weight=torch.ones(2, 6, 1, 1))

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Detector()(torch.zeros(1, 3, 40, 52), 'tensor')
    costs = count_costs(Detector(), (40, 52))
    assert costs.multiply_adds == counter.get_total_flops() // 2
    backbone = sum(counter.get_flop_counts()['Detector.backbone'].values())
    assert costs.multiply_adds_by_part == {'backbone': backbone // 2}


def test_count_rows__refuses() -> None:
    with pytest.raises(ConfigError, match='WIDTHxHEIGHT'):
        count_rows([LITE0], image_size='0')


def test_reference_configs__are_there() -> None:
    assert [path.name for path in reference_configs(REPOSITORY)][:2] == ['d0_coco.py', 'd1_coco.py']
    assert all(Path(REPOSITORY / path).is_file() for path in reference_configs(REPOSITORY))


def test_to_text__columns_are_aligned(rows: list[CostRow]) -> None:
    header, *lines = to_text(model_table(rows)).splitlines()
    assert lines[0].split() == [
        *('d0', '512x512', '3,880,068', '3,880,067', '2,492,331,520', '2,492,331,520'),
        *('2.54B', '34.3'),
    ]
    assert lines[1].split()[:4] == ['own', '192x128', '1,000', '-']
    assert len({len(line) for line in (header, *lines)}) == 1


def test_to_markdown__links_to_configs(rows: list[CostRow]) -> None:
    lines = to_markdown(readme_table(rows)).splitlines()
    assert lines[2] == '| [d0](configs/d0_coco.py) | 512x512 | 3,880,068 | 2.49G | 34.3 |'
    assert lines[3].endswith('| 2.00G | - |')


def test_to_dict__differences(rows: list[CostRow]) -> None:
    plain = rows[0].to_dict()
    assert plain['parameters_difference'] == 1
    assert plain['multiply_adds_difference'] == 0
    assert plain['published']['ap'] == 34.3
    assert rows[1].to_dict()['published'] is None
    assert 'parameters_difference' not in rows[1].to_dict()


def test_plot_costs__draws_what_is_published(rows: list[CostRow], tmp_path: Path) -> None:
    plot_costs(rows, tmp_path / 'one.png')
    lite = Costs(3_243_470, 0, 973_589_696, {}, {})
    rows.append(CostRow('lite0', 'lite0.py', (320, 320), lite, REFERENCE['lite0']))
    plot_costs(rows, tmp_path / 'two.png')
    one, two = (Image.open(tmp_path / f'{name}.png').convert('RGB') for name in ('one', 'two'))
    assert one.size == two.size
    orange = (217, 115, 13)  # of the Lite networks
    colours = [dict(map(reversed, image.getcolors(1 << 20))) for image in (one, two)]
    assert orange not in colours[0]
    assert colours[1][orange] > 20


def test_latency__is_a_column_and_a_third_plot(rows: list[CostRow], tmp_path: Path) -> None:
    timed = [replace(rows[0], latency_ms=1234.5), rows[1]]
    assert [line[-1] for line in model_table(timed)] == ['ms', '1,234', '-']
    assert timed[0].to_dict()['latency_ms'] == 1234.5
    plot_costs(rows, tmp_path / 'two.png')
    plot_costs(timed, tmp_path / 'three.png', '1 thread')
    two, three = (Image.open(tmp_path / f'{name}.png') for name in ('two', 'three'))
    assert three.width > two.width


def test_latencies__times_each_network_once() -> None:
    configs = [
        REPOSITORY / 'configs' / 'efficientdet' / f'{one}_coco.py' for one in ('d0', 'lite0')
    ]
    settings = Settings(models=['none'], rounds=1, device='cpu', image_size=64)
    times, place = latencies(configs, settings)
    assert len(times) == 2
    assert min(times) > 0
    assert place.startswith(f'{torch.get_num_threads()} thread(s) of ')


def test_plot_costs__refuses(rows: list[CostRow], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='no'):
        plot_costs(rows[1:], tmp_path / 'none.png')
    with pytest.raises(ConfigError, match='png'):
        check_plot_file(Path('models.jpg'))
