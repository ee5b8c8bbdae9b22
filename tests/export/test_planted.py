"""A converter that gets something wrong is caught, and leaves no file."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import export_networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from effdet_plugin.config import set_resize_mode
from effdet_plugin.errors import CheckpointError
from effdet_plugin.export import api
from effdet_plugin.export.program import EndToEnd
from effdet_plugin.trained_model import TrainedModel

Fault = Callable[[dict[str, np.ndarray]], None]
SIZE = (128, 128)


@pytest.fixture(scope='module')
def trained() -> TrainedModel:
    torch.manual_seed(0)
    return export_networks.network('lite0', SIZE)


def planted(trained: TrainedModel, fault: Fault, shift: int = 0) -> Any:
    """A format whose files run the network in PyTorch, with a fault."""
    hard = api.with_nms(trained, api.Options(nms='hard'))
    module = EndToEnd(hard.model, SIZE, 'postprocess').eval()
    limit = [-1.5]
    interpolate = F.interpolate

    def wrong(*args: Any, **kwargs: Any) -> torch.Tensor:
        return interpolate(*args, **kwargs).roll(shift, -1)

    class Runtime:
        metadata = None

        @torch.no_grad()
        def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
            module.min_score.fill_(limit[0])
            F.interpolate = wrong  # type: ignore[assignment]
            try:
                found = module(torch.from_numpy(images))
            finally:
                F.interpolate = interpolate
            names = ('boxes', 'scores', 'labels', 'num')
            arrays = {n: x.numpy().copy() for n, x in zip(names, found, strict=True)}
            fault(arrays)
            return arrays

    def set_min_score(_: Any, value: float) -> None:
        limit[0] = value

    def save(built: Any, metadata: Any, path: Path) -> None:
        path.write_text('a file')

    return SimpleNamespace(
        build=lambda program: None, set_min_score=set_min_score, save=save,
        load=lambda path: Runtime(),
    )  # fmt: skip


def nothing(arrays: dict[str, np.ndarray]) -> None:
    pass


def counts_padding(arrays: dict[str, np.ndarray]) -> None:
    arrays['num'][:] = arrays['scores'].shape[1]


def fills_padding(arrays: dict[str, np.ndarray]) -> None:
    """As OpenVINO does with a sentinel of minus infinity."""
    counts_padding(arrays)
    arrays['labels'][arrays['labels'] < 0] = 0
    arrays['scores'][arrays['scores'] == 0] = -np.inf


def leaves_values(arrays: dict[str, np.ndarray]) -> None:
    for row, count in enumerate(arrays['num']):
        arrays['boxes'][row, count:] = 7


def loses_the_best(arrays: dict[str, np.ndarray]) -> None:
    for row, count in enumerate(arrays['num']):
        for name in ('boxes', 'scores', 'labels'):
            arrays[name][row, : count - 1] = arrays[name][row, 1:count]
            arrays[name][row, count - 1 :] = -1 if name == 'labels' else 0
    arrays['num'] -= 1


def moves_boxes(arrays: dict[str, np.ndarray]) -> None:
    arrays['boxes'][arrays['scores'] > 0] += 0.1


def nan(arrays: dict[str, np.ndarray]) -> None:
    arrays['scores'][0, 0] = np.nan


@pytest.mark.parametrize(
    ('fault', 'shift', 'said'),
    [
        (nothing, 1, 'differs from PyTorch'),  # a resize that is off by one pixel
        (counts_padding, 0, 'padding among them'),
        (fills_padding, 0, 'finite values: False'),
        (leaves_values, 0, 'are no padding'),
        (loses_the_best, 0, 'matched'),
        (moves_boxes, 0, 'box'),
        (nan, 0, 'finite values: False'),
    ],
)
def test_export__a_wrong_converter(
    trained: TrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: Fault,
    shift: int,
    said: str,
) -> None:
    monkeypatch.setattr(api, 'import_module', lambda _: planted(trained, fault, shift))
    monkeypatch.setattr(api, 'program_of', lambda *_: None)
    monkeypatch.setattr(api, 'check_installed', lambda *_: None)
    with pytest.raises(CheckpointError, match=said):
        api.export(trained, tmp_path / 'm.onnx', api.Options(nms='hard'))
    assert not list(tmp_path.iterdir())


def test_export__a_right_converter(
    trained: TrainedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(api, 'import_module', lambda _: planted(trained, nothing))
    monkeypatch.setattr(api, 'program_of', lambda *_: None)
    monkeypatch.setattr(api, 'check_installed', lambda *_: None)
    made = api.export(trained, tmp_path / 'm.onnx', api.Options(nms='hard'))
    assert [path.name for path in tmp_path.iterdir()] == ['m.onnx']
    assert len(made.differences) == 4
    assert all(x.expected > 0 and x.matched == 1 for x in made.differences.values())
    with_padding, whole = list(made.differences.values())[1::2]
    assert with_padding.expected < whole.expected


def test_metadata__the_resize_mode_is_the_configs(trained: TrainedModel) -> None:
    config = copy.deepcopy(trained.config)
    set_resize_mode(config, 'stretch')
    stretched = replace(trained, config=config)
    assert api.metadata_of(stretched, api.Options()).resize_mode == 'stretch'
    assert api.metadata_of(trained, api.Options()).resize_mode == 'letterbox'
    # The check prepares its images in the same way: below a wide image there is padding, or none.
    wide = [np.full((50, 100, 3), 200, np.uint8)]
    below = [
        api.Reference(way, api.metadata_of(way, api.Options()), wide).inputs[0, 0, 100]
        for way in (trained, stretched)
    ]
    assert not below[0].any()
    assert below[1].all()


def test_reference__of_one_image_has_its_mirror_image(trained: TrainedModel) -> None:
    metadata = api.metadata_of(trained, api.Options())
    reference = api.Reference(trained, metadata, export_networks.images(1))
    first, second = reference.inputs
    assert not np.array_equal(first, second)
    found = reference.run(2)
    assert len(found['num']) == 2
