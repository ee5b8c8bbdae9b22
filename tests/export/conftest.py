"""Files of a small network, converted once for all tests of .tflite."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runtime import small_config
from tflite_support import CLASSES, SIZE, Files, images

from effdet_plugin.config.embedded import embed
from effdet_plugin.export import check, tflite
from effdet_plugin.export.api import Options, export
from effdet_plugin.files import write_image
from effdet_plugin.trained_model import TrainedModel, load_trained


@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """A network whose scores and boxes differ, by BN statistics of images; weights fit fp16."""
    cfg = small_config(SIZE)
    cfg.test_dataloader.dataset.dataset.metainfo = {'classes': CLASSES}
    model: Any = load_trained(cfg, 'none', 'cpu').model
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        batch = torch.from_numpy(np.stack(images(4, SIZE))).permute(0, 3, 1, 2).float()
        model.train()
        model.bbox_head(model.extract_feat((batch - 127) / 128))
        model.eval()
    for tower, std in ((model.bbox_head.cls_tower, 0.5), (model.bbox_head.box_tower, 0.1)):
        torch.nn.init.normal_(tower.predict.pointwise.weight, std=std)
        torch.nn.init.zeros_(tower.predict.pointwise.bias)
    path = tmp_path_factory.mktemp('trained') / 'two.pth'
    meta = {'dataset_meta': {'classes': CLASSES}, 'config': embed(cfg)}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return load_trained(None, path, 'cpu')


@pytest.fixture(scope='session')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('photos')
    for number, image in enumerate(images(6)):
        write_image(folder / f'{number}.png', image)
    return folder


@pytest.fixture(scope='session')
def files(trained: TrainedModel, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A file of each end and precision, from one conversion, the longest step."""
    folder, made, kept = tmp_path_factory.mktemp('files'), {}, []
    convert = tflite.converted

    def once(*arguments: Any) -> bytes:
        kept.extend([] if kept else [convert(*arguments)])
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite, 'converted', once)
        # Random weights amplify any rounding: smaller precisions say nothing.
        for precision in ('fp16', *check.INTEGERS):
            patch.setitem(check.BOUNDS, precision, check.Bounds(0, 1e9, 1e9, 1e9))
        for end, precision in (
            ('postprocess', 'fp32'),
            ('raw', 'fp32'),
            ('postprocess', 'fp16'),
            ('postprocess', 'dynamic'),
            ('postprocess', 'int8'),
        ):
            out = folder / f'{end}_{precision}.tflite'
            options = Options('tflite', end, precision=precision, calib=photos)
            lines: list[str] = []
            export(trained, out, options, lines.append)
            made[out.stem] = out
            out.with_suffix('.log').write_text('\n'.join(lines))
    return made
