"""An evaluation as the command line starts it: whose classes, which images, what is written."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from effdet_plugin.config import load
from effdet_plugin.errors import CheckpointError, ConfigError, UserError
from effdet_plugin.evaluation import NAMES
from effdet_plugin.models.detectors import EfficientDet
from effdet_plugin.training import TestSettings, evaluate, metrics_table
from effdet_plugin.training.running import build_runner
from support import REPOSITORY, shared_data

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
CLASSES = ('circle', 'square')
Options = dict[str, Any]


@pytest.fixture
def settings(options: Options) -> TestSettings:
    return TestSettings(CONFIG, 'none', image_size='192x128', cfg_options=options)


@pytest.fixture(scope='session')
def checkpoint(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of two classes, as a training writes them."""
    folder = tmp_path_factory.mktemp('checkpoint')
    cfg = load(CONFIG, options=options)
    cfg.work_dir = str(folder / 'run')
    state_dict = build_runner(cfg).model.state_dict()
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(meta=meta, state_dict=state_dict), folder / 'two.pth')
    return folder / 'two.pth'


def test_evaluate__random_weights(
    settings: TestSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A size that is not square, from the text of the command line to detections in a file."""
    shapes: set[tuple[int, ...]] = set()
    extract_feat = EfficientDet.extract_feat

    def note_shape(model: EfficientDet, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shapes.add(tuple(images.shape[1:]))
        return extract_feat(model, images)

    monkeypatch.setattr(EfficientDet, 'extract_feat', note_shape)
    out = tmp_path / 'new' / 'results.json'
    metrics = evaluate(replace(settings, out=out, test_dev=True))
    assert not re.search(r'loading annotations|Epoch\(test\)|mmengine', capsys.readouterr().out)
    assert shapes == {(3, 128, 192)}
    assert metrics['coco/images'] == 3
    assert {f'coco/bbox_{name}' for name in NAMES} < metrics.keys()
    rows = json.loads(out.read_text())
    assert {row['image_id'] for row in rows} == {10, 11, 12}
    assert {row['category_id'] for row in rows} <= {3, 7}
    assert all(row['score'] == round(row['score'], 3) for row in rows)
    # Boxes are in the original image of 64x48, from a network input of 192x128.
    assert max(row['bbox'][0] for row in rows) <= 64
    assert max(row['bbox'][1] for row in rows) <= 48
    assert [path.name for path in tmp_path.iterdir()] == ['new']


def test_evaluate__own_data_of_some_of_the_classes(
    settings: TestSettings, checkpoint: Path, data: Path, tmp_path: Path, small: Options
) -> None:
    document = json.loads((data / 'val.json').read_text())
    document['annotations'] = [a for a in document['annotations'] if a['category_id'] == 7]
    document['categories'] = [dict(id=5, name='square')]
    for annotation in document['annotations']:
        annotation['category_id'] = 5
    for image in document['images']:
        (tmp_path / image['file_name']).write_bytes((data / image['file_name']).read_bytes())
    (tmp_path / 'squares.json').write_text(json.dumps(document))
    own = replace(
        settings,
        checkpoint=str(checkpoint),
        data=tmp_path / 'squares.json',
        cfg_options=small | {'model.bbox_head.num_classes': 2},
    )
    metrics = evaluate(own)
    assert metrics['coco/images'] == 3
    assert metrics['coco/bbox_mAP'] >= 0


@pytest.mark.parametrize('split', ['train', 'val'])
def test_evaluate__says_where_all_images_are_tested(
    settings: TestSettings,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    split: str,
) -> None:
    own = tmp_path / 'own'
    own.mkdir()
    document = json.loads((data / f'{split}.json').read_text())
    (own / f'{split}.json').write_text(json.dumps(document))
    for image in document['images']:
        (own / image['file_name']).write_bytes((data / image['file_name']).read_bytes())
    metrics = evaluate(replace(settings, data=own))
    assert metrics['coco/images'] == len(document['images'])
    said = f'{own} has no test or validation split: all 4 images are tested'
    assert capfd.readouterr().out.count(said) == (split == 'train')
    evaluate(replace(settings, data=own / f'{split}.json'))
    assert 'no test or validation split' not in ''.join(capfd.readouterr())


def test_evaluate__classes_that_the_checkpoint_does_not_know(
    settings: TestSettings, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    document = json.loads((data / 'val.json').read_text())
    document['categories'][0]['name'] = 'triangle'
    for image in document['images']:
        (tmp_path / image['file_name']).write_bytes((data / image['file_name']).read_bytes())
    (tmp_path / 'val.json').write_text(json.dumps(document))
    own = replace(settings, checkpoint=str(checkpoint), data=tmp_path / 'val.json')
    with pytest.raises(CheckpointError, match=r"does not know .*'triangle' of .*val\.json"):
        evaluate(own)


def test_evaluate__class_count_that_does_not_fit(
    settings: TestSettings, checkpoint: Path, options: Options
) -> None:
    names = (*CLASSES, 'line', 'ring', 'star')
    options = options | {
        'model.bbox_head.num_classes': 5,
        'test_dataloader.dataset.dataset.metainfo.classes': names,
    }
    with pytest.raises(CheckpointError, match=r'2 classes.* 5') as error:
        evaluate(replace(settings, checkpoint=str(checkpoint), cfg_options=options))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(checkpoint='absent.pth'), r'absent\.pth'),
        (dict(cfg_options={'test_dataloader': None}), 'no test_dataloader'),
        (dict(cfg_options={}), r'instances_val2017\.json'),
        (dict(cfg_options={'test_evaluator.ann_fille': 'x.json'}), r"'ann_file'"),
    ],
)
def test_evaluate__refuses(settings: TestSettings, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        evaluate(replace(settings, **change))
    assert '\n' not in str(error.value)


def test_evaluate__out_needs_our_metric(
    settings: TestSettings, options: Options, tmp_path: Path
) -> None:
    other = options | {
        'test_evaluator': dict(
            _delete_=True, type='DumpDetResults', out_file_path=str(tmp_path / 'x.pkl')
        )
    }
    del other['test_evaluator.ann_file']
    with pytest.raises(ConfigError, match=r'--out.*DumpDetResults.*CocoTwelveMetric'):
        evaluate(replace(settings, cfg_options=other, out=tmp_path / 'x.json'))


def test_evaluate__mmdets_metric_becomes_the_twelve_numbers(
    settings: TestSettings, options: Options, data: Path
) -> None:
    evaluator = dict(
        _delete_=True, type='CocoMetric', ann_file=str(data / 'val.json'), metric='bbox'
    )
    other = options | {'test_evaluator': evaluator}
    del other['test_evaluator.ann_file']
    assert 'coco/bbox_AR_l@100' in evaluate(replace(settings, cfg_options=other))


@pytest.mark.parametrize(('name', 'images'), [('instances_val', 152), ('boxes_only_val', 50)])
def test_evaluate__real_images(
    name: str, images: int, small: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files of the COCO sample, each image once; the classes are COCO's."""
    folder = shared_data('coco_val_mini')
    options = small | {'test_dataloader.batch_size': 8}
    metrics = evaluate(
        TestSettings(
            CONFIG,
            'none',
            data=folder / 'annotations' / f'{name}.json',
            image_size=64,
            cfg_options=options,
        )
    )
    assert metrics['coco/images'] == images


def test_metrics_table() -> None:
    metrics = {'coco/images': 3.0, 'coco/bbox_mAP': 0.12345, 'coco/bbox_AR@1': -1.0}
    lines = metrics_table(metrics).splitlines()
    assert [line.split() for line in lines] == [
        ['bbox_mAP', '0.123'],
        ['bbox_AR@1', '-1.000'],
        ['images', '3'],
    ]
