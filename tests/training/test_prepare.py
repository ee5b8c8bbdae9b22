"""A training is prepared: work dir, resuming, switches; nothing is trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from effdet_plugin.errors import CheckpointError, ConfigError, UserError
from effdet_plugin.training import TrainSettings, prepare
from effdet_plugin.training import settings as switches
from effdet_plugin.training.running import build_runner
from effdet_plugin.training.settings import set_cache

Options = dict[str, Any]
Hashes = Callable[[Path], dict[str, str]]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(resume='absent.pth'), r'absent\.pth'),
        (dict(image_size='12xx'), 'WIDTHxHEIGHT'),
        (dict(cfg_options={'model.nekc.x': 1}), "'neck'"),
        (dict(data=Path('absent')), 'absent'),
        (dict(config=Path('absent.py')), r'absent\.py'),
        (dict(cache='ram:0'), '--cache ram:0: give ram'),
        (dict(cache='ram:1000000'), 'GB of memory; give less'),
    ],
)
def test_prepare__refuses(
    settings: TrainSettings, run_dir: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        prepare(replace(settings, **change))
    assert '\n' not in str(error.value)
    assert not run_dir.exists()


def test_prepare__cache(settings: TrainSettings, run_dir: Path, tmp_path: Path) -> None:
    options = {**(settings.cfg_options or {}), 'train_dataloader.dataset.reduced_decoding': True}
    folder = tmp_path / 'cache'
    prepared = prepare(replace(settings, cache=f'{folder}:0.5', cfg_options=options))
    node = prepared.cfg.train_dataloader.dataset
    assert (node.cache, node.reduced_decoding) == (f'{folder}:0.5', True)
    assert f'decoded images are kept in {folder}: at most 0.5 GB' in prepared.remarks()
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(node)
    assert dataset.cache.limit == 2**29
    assert not folder.exists(), 'before the first image'


def test_set_cache__one_dataset_of_ours() -> None:
    ours = dict(type='EfficientDetDataset', dataset=dict(type='CocoDataset'))
    nested = dict(type='EfficientDetDataset', dataset=ours)
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=nested))))
    set_cache(cfg, 'ram:0.5')
    assert cfg.train_dataloader.dataset.dataset.cache == 'ram:0.5'
    assert 'cache' not in cfg.train_dataloader.dataset.dataset.dataset
    several = dict(type='ConcatDataset', datasets=[ours, dict(ours)])
    with pytest.raises(ConfigError, match='several EfficientDetDatasets'):
        set_cache(Config(dict(train_dataloader=dict(dataset=several))), 'ram:0.5')


def test_prepare__a_config_is_what_its_run_writes(
    settings: TrainSettings,
    options: Options,
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the same command is seen to be the same; another one is seen to be another."""
    configured = replace(settings, data=None, cfg_options=options, work_dir=tmp_path / 'configured')
    monkeypatch.setattr(Runner, 'train', lambda runner: runner.model)
    for chosen in (settings, configured):
        build_runner(prepare(chosen).cfg).train()
        assert chosen.work_dir is not None
        (chosen.work_dir / 'epoch_1.pth').touch()
        with pytest.raises(UserError, match=rf'{chosen.work_dir} holds a run;'):
            prepare(chosen)
        with pytest.raises(UserError, match=r'config\.json: randomness\.seed is 3'):
            prepare(replace(chosen, seed=4))


@pytest.mark.parametrize('overwrite', [False, True])
def test_prepare__second_process_leaves_the_work_dir_to_the_first(
    settings: TrainSettings,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
    hashes: Hashes,
) -> None:
    (run_dir / 'data').mkdir(parents=True)
    (run_dir / 'data' / 'train.json').write_text('{"of": "the run that is there"}')
    (run_dir / 'epoch_1.pth').touch()
    before = hashes(run_dir)
    settings = replace(settings, overwrite=overwrite)
    monkeypatch.setenv('RANK', '1')
    if overwrite:
        prepare(settings)
        assert (run_dir / 'epoch_1.pth').exists()
        monkeypatch.setenv('RANK', '0')
        prepare(settings)
        assert not (run_dir / 'epoch_1.pth').exists()
    else:
        with pytest.raises(UserError, match='holds a run'):
            prepare(settings)
        assert hashes(run_dir) == before


def test_prepare__second_process_is_not_stopped_by_the_first(
    settings: TrainSettings, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(settings)
    assert (run_dir / 'data' / 'train.json').exists()
    monkeypatch.setenv('RANK', '1')
    prepare(settings)


@pytest.mark.parametrize('kept', [['meta', 'state_dict', 'message_hub'], ['meta', 'state_dict']])
def test_prepare__refuses_to_resume_from_weights(
    settings: TrainSettings, run_dir: Path, tmp_path: Path, kept: list[str]
) -> None:
    """The best checkpoint of a run, and a converted one."""
    path = tmp_path / 'weights.pth'
    torch.save({key: {} for key in kept}, path)
    with pytest.raises(CheckpointError, match=rf'holds weights only .* load_from={path}$'):
        prepare(replace(settings, resume=str(path)))
    assert not run_dir.exists()


class _Touches:
    """Unpickling one runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_prepare__refuses_a_checkpoint_that_would_run_code(
    settings: TrainSettings, tmp_path: Path
) -> None:
    torch.save(dict(state_dict={}, meta=_Touches(tmp_path / 'written')), tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match=r'bad\.pth'):
        prepare(replace(settings, resume=str(tmp_path / 'bad.pth')))
    assert not (tmp_path / 'written').exists()


def test_prepare__amp(
    settings: TrainSettings, small: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, amp=True)
    prepared = prepare(settings)
    assert prepared.cfg.optim_wrapper.type == 'ClippedAmpOptimWrapper'
    assert prepared.cfg.optim_wrapper.clip_norm == 10
    plain = {
        'optim_wrapper._delete_': True,
        'optim_wrapper.type': 'OptimWrapper',
        'optim_wrapper.optimizer': dict(type='SGD', lr=0.1),
    }
    monkeypatch.setattr(switches, 'get_device', lambda: 'cpu')
    with pytest.raises(ConfigError, match=r'--amp.*AmpOptimWrapper.*GPU'):
        prepare(replace(settings, cfg_options=small | plain))
    monkeypatch.setattr(switches, 'get_device', lambda: 'cuda')
    cfg, *_ = prepare(replace(settings, cfg_options=small | plain))
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


@pytest.mark.parametrize('amp', [None, True, False])
@pytest.mark.parametrize('has_units', [True, False])
@pytest.mark.parametrize('kind', ['cpu', 'cuda'])
def test_prepare__bfloat16_where_the_cpu_is_faster_in_it(
    settings: TrainSettings,
    amp: bool | None,
    has_units: bool,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switches, 'get_device', lambda: kind)
    monkeypatch.setattr(switches, 'has_bfloat16_units', lambda: has_units)
    settings = replace(settings, amp=amp, config=settings.config.with_name('custom_coco.py'))
    wrapper = prepare(settings).cfg.optim_wrapper.type
    is_mixed = amp if amp is not None else has_units and kind == 'cpu'
    assert wrapper == ('ClippedAmpOptimWrapper' if is_mixed else 'ClippedOptimWrapper')


def test_prepare__auto_scale_lr(settings: TrainSettings, small: Options) -> None:
    off = small | {'auto_scale_lr.enable': False}
    assert prepare(replace(settings, cfg_options=off)).cfg.auto_scale_lr.enable is False
    cfg, *_ = prepare(replace(settings, cfg_options=off, auto_scale_lr=True))
    assert cfg.auto_scale_lr.enable is True
