"""Both modes on a small Lite0 with random weights; effdet's side where effdet is installed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_support import CONFIG, NEEDS_EFFDET, OPTIONS, settings
from export_networks import spread

from effdet_plugin import benchmark
from effdet_plugin.benchmark import network
from effdet_plugin.benchmark.forms import Form
from effdet_plugin.benchmark.report import Measure
from effdet_plugin.benchmark.subjects import make_detector
from effdet_plugin.benchmark.timing import Figures, Stopwatch
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import write_image
from effdet_plugin.trained_model import load_trained


def test_network_mode_times_equal_forms() -> None:
    plain = benchmark.run('network', settings(batches=[1, 2])).to_dict()
    names = ['eager', 'fast', 'fast + hard NMS']
    assert list(plain) == ['machine'] + [
        f'network/b{batch}/lite0_coco {name}' for batch in (1, 2) for name in names
    ]
    eager, fast = (plain[f'network/b2/lite0_coco {name}'] for name in names[:2])
    assert eager['against'] == 'network/b2/lite0_coco fast'
    assert eager['median_ms'] > 0
    assert 'against' not in fast
    whole, alone = (
        plain['network/b1/lite0_coco fast + hard NMS'],
        plain['network/b1/lite0_coco fast'],
    )
    assert whole['end'] == 'postprocess'
    time = 'cpu_ms' if torch.get_num_threads() == 1 else 'median_ms'
    assert whole['of_network'] == pytest.approx(whole[time] / alone[time], abs=1e-3)
    assert 'of_network' not in plain['network/b1/lite0_coco eager']


def test_of_network__is_of_the_same_file_form() -> None:
    def entry(name: str, end: str, kind: str) -> network.Entry:
        form = Form(name, lambda images: images, lambda x: {}, end=end)
        return network.Entry(name, form, lambda n: np.ones((n, 3)), ('key',), kind=kind)

    entries = [
        entry('a.onnx', 'raw', 'onnx fp32 float'),
        entry('b.onnx', 'postprocess', 'onnx fp32 float'),
        entry('b.xml', 'postprocess', 'openvino fp32 float'),
    ]
    measures = [
        Measure(e.name, Figures([n], [n])) for e, n in zip(entries, (2.0, 3.0, 5.0), strict=True)
    ]
    network.relate_to_networks(entries, measures, 'cpu_ms')
    assert [m.extra for m in measures] == [{}, {'of_network': 1.5}, {}]
    assert measures[1].note == '1.50 x its network'


def test_forms_that_differ_are_not_timed() -> None:
    def entry(name: str, value: float, exact: bool) -> network.Entry:
        form = Form(name, lambda images: images + value, lambda x: {'logits': x}, is_exact=exact)
        return network.Entry(name, form, lambda n: np.ones((n, 3)), ('key',))

    right, wrong = entry('right', 0.0, True), entry('wrong', 1.0, True)
    with pytest.raises(ConfigError, match='wrong differs from right by 1'):
        network.compare([right, wrong], lambda _: None)
    notes = network.compare([right, entry('bf16', 1.0, False)], lambda _: None)
    assert notes == {'bf16': 'differs by 1'}


def test_end2end_parts_sum_up_to_the_whole() -> None:
    plain = benchmark.run('end2end', settings(batches=[2], forms=('fast',))).to_dict()
    whole = 'end2end/b2/lite0_coco fast, hard NMS'
    parts = ('decode', 'prepare', 'network', 'post-processing')
    assert set(plain) == {'machine', whole, *(f'{whole}/{p}' for p in (*parts, 'drawing'))}
    summed = sum(plain[f'{whole}/{part}']['cpu_ms'] for part in parts)
    assert plain[whole]['cpu_ms'] == pytest.approx(summed, rel=0.5)
    assert all(plain[f'{whole}/{part}']['median_ms'] > 0 for part in parts)


def test_effdet_computes_the_same_and_is_timed() -> None:
    pytest.importorskip('effdet', reason=NEEDS_EFFDET)
    plain = benchmark.run('network', settings(against='effdet', nms=())).to_dict()
    assert plain['network/b1/lite0_coco fast']['against'] == 'network/b1/effdet eager'
    assert plain['network/b1/lite0_coco fast']['speedup'] > 0
    whole = benchmark.run('end2end', settings(forms=('fast',), against='effdet')).to_dict()
    assert whole['end2end/b1/lite0_coco fast, hard NMS']['against'] == 'end2end/b1/effdet eager'
    assert {'decode', 'prepare', 'network', 'post-processing'} <= {
        name.rpartition('/')[2] for name in whole if name.startswith('end2end/b1/effdet eager/')
    }


def test_rival_detections_are_ours(tmp_path: Path) -> None:
    """Same weights, an image of the network's size, so that nothing is resized: same best box."""
    pytest.importorskip('effdet', reason=NEEDS_EFFDET)
    from effdet_plugin.benchmark.effdet_rival import RivalDetector

    file = tmp_path / 'noise.png'
    write_image(file, np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    trained = load_trained(CONFIG, 'none', 'cpu', image_size=128, options=OPTIONS)
    detector = make_detector('none', settings(), 1, nms='hard')
    with torch.no_grad():
        # With new weights all scores are 0.01: which box is the best would be chance.
        spread(trained.model.eval(), torch.randn(1, 3, 128, 128))
    detector.model.load_state_dict(trained.model.state_dict())
    with torch.inference_mode():
        rows = RivalDetector(trained, (128, 128))([file], Stopwatch(torch.device('cpu')))[0]
    ours = detector(file)[0].pred_instances
    assert abs(float(rows[0, 4]) - float(ours.scores[0])) < 1e-4
    assert int(rows[0, 5]) - 1 == int(ours.labels[0])
