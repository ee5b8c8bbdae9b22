"""The loss is checked, logged and shown, without reading it from the device at every step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from toy import toy_config, train

from effdet_plugin.engine.hooks import ProgressBarHook, image_names
from effdet_plugin.errors import UserError


def config_with(work_dir: Path, **dataset: int) -> Config:
    loader = {'num_workers': 0, 'persistent_workers': False, 'dataset': dataset}
    return toy_config(work_dir, train_dataloader=loader, train_cfg={'max_epochs': 2})


@pytest.mark.parametrize('interval', [1, 2, 4, 50])
def test_finite__names_step_process_and_images(tmp_path: Path, interval: int) -> None:
    config = config_with(tmp_path, poison=7)
    config.custom_hooks[2]['interval'] = interval
    with pytest.raises(UserError) as info:
        train(config)
    message = str(info.value)
    assert 'process 0' in message
    assert 'images/7.jpg' in message
    # Which step that is follows from the sampler's order.
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3)).tolist()
    assert f'nan at step {order.index(7) // 2 + 1} (epoch 1' in message
    assert not list(tmp_path.glob('epoch_*'))


def test_deferred__records_what_mmengine_records(tmp_path: Path) -> None:
    histories = []
    for name in ('DeferredRuntimeInfoHook', 'RuntimeInfoHook'):
        config = config_with(tmp_path / name)
        config.default_hooks['runtime_info'] = {'type': name}
        config.default_hooks['logger'] = {'type': 'LoggerHook', 'interval': 4}
        config.experiment_name = name
        config.log_level = 'INFO'
        train(config)
        hub = MessageHub.get_current_instance()
        histories.append({k: v.data[0].tolist() for k, v in hub.log_scalars.items()})
        log = next((tmp_path / name).glob('*/vis_data/scalars.json')).read_text()
        assert log.count('"loss"') == 2  # step 4 of each epoch; 6 steps an epoch
    assert len(histories[0]['train/loss']) == 12
    assert histories[0]['train/loss'] == pytest.approx(histories[1]['train/loss'])
    assert histories[0]['train/lr'] == histories[1]['train/lr']


def test_image_names__as_much_as_the_batch_says() -> None:
    samples = [
        BaseDataElement(metainfo={'img_path': 'a.jpg', 'img_id': 1}),
        BaseDataElement(metainfo={'img_id': 2}),
        BaseDataElement(),
    ]
    assert image_names({'data_samples': samples}) == ['a.jpg', '2']
    assert image_names({'inputs': []}) == []
    assert image_names(None) == []


@pytest.mark.filterwarnings('error')  # a warning would break the line of the bar
def test_progress_bar__counts_steps_and_shows_the_loss(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: torch.set_warn_always(False))  # else torch warns once a process
    torch.set_warn_always(True)
    runner: Any = SimpleNamespace(max_iters=4, iter=0)
    hook = ProgressBarHook(interval=2)
    hook.before_train(cast(Runner, runner))
    for step in range(4):
        runner.iter = step
        loss = torch.tensor(2.0 / (step + 1), requires_grad=True)
        hook.after_train_iter(runner, step, outputs={'loss': loss})
    hook.after_train(runner)
    shown = capsys.readouterr().err
    assert '4/4' in shown
    assert 'loss=0.500' in shown
