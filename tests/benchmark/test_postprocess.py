"""Post-processing alone, ours and effdet's, on made-up maps of a small Lite0."""

import pytest
import torch
from benchmark_support import NEEDS_EFFDET, settings

from effdet_plugin import benchmark
from effdet_plugin.benchmark import postprocess
from effdet_plugin.errors import ConfigError
from effdet_plugin.trained_model import load_trained

SIZE = (128, 128)


@pytest.fixture(scope='module')
def head() -> torch.nn.Module:
    given = settings()
    trained = load_trained(
        given.config, 'none', 'cpu', image_size=given.image_size, options=given.options
    )
    return trained.model.bbox_head


def test_with_objects__are_found(head: torch.nn.Module) -> None:
    maps = postprocess.with_objects(head, SIZE, 2)
    assert [tuple(x.shape[-2:]) for x in maps.logits] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert 0 < maps.share < 0.01
    for scores in postprocess.ours(head, SIZE, 'gaussian')(maps, None):
        assert 2 <= int((scores > 0.3).sum()) <= 60  # of eight objects, some too small for anchors


def test_flat__nothing_is_above_the_rest(head: torch.nn.Module) -> None:
    maps = postprocess.flat(head, SIZE, 1)
    assert maps.share == 0
    (scores,) = postprocess.ours(head, SIZE, 'hard')(maps, None)
    assert len(scores) == 100
    assert float(scores.max()) < 0.011


def test_measure__effdet_finds_the_same() -> None:
    pytest.importorskip('effdet', reason=NEEDS_EFFDET)
    given = settings(rounds=1, threads=1, nms=('gaussian',), against='effdet')
    plain = benchmark.run('postprocess', given).to_dict()
    row = plain['postprocess/b1/lite0_coco objects, gaussian NMS']
    assert row['against'] == 'postprocess/b1/lite0_coco objects, gaussian NMS, effdet'
    assert row['speedup'] > 1


def test_compare__another_result_is_not_timed(head: torch.nn.Module) -> None:
    found = [torch.tensor([0.9, 0.5])]
    calls = {'a': lambda _: found, 'b': lambda _: found}
    postprocess._compare(calls, {'a, effdet': lambda _: found}, 'objects')
    with pytest.raises(ConfigError, match=r"b: effdet's scores differ by 0\.1"):
        postprocess._compare(calls, {'b, effdet': lambda _: [found[0] + 0.1]}, 'objects')
