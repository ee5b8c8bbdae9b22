"""The configs of the roads outside the repository (other_detectors.py), without the roads."""

from pathlib import Path

import mmdet
import pytest
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from roads.road_configs import CONFIGS

from effdet_plugin.config import load

OURS = 'effdet_plugin.'
HAS_CONFIGS = (Path(mmdet.__file__).parent / '.mim' / 'configs').is_dir()


@pytest.mark.skipif(not HAS_CONFIGS, reason='this mmdet has no configs')
@pytest.mark.parametrize('name', CONFIGS)
def test_config__has_our_parts_and_a_base_of_mmdet(name: str, tmp_path: Path) -> None:
    path = tmp_path / f'{name}.py'
    path.write_text(CONFIGS[name])
    cfg = load(path)  # checks every key
    assert cfg.train_dataloader.batch_size == 2
    cfg.model.backbone.pretrained = False
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    assert type(model).__module__.startswith('mmdet.')
    parts = [model.backbone, model.neck, model.bbox_head.loss_bbox]
    if name != 'yolox':  # its class scores are soft
        parts.append(model.bbox_head.loss_cls)
        assert model.bbox_head.cls_out_channels == 2  # background has no channel
    if name in ('retinanet', 'atss'):
        parts.append(model.bbox_head.assigner)
    for part in parts:
        assert type(part).__module__.startswith(OURS), type(part)
