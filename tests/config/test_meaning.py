"""A setting by another name is suggested by its meaning, at its place in the config."""

import pytest
from mmengine.config import Config

from effdet_plugin.config import check, load, merge_options
from effdet_plugin.config.options import places_with
from effdet_plugin.config.schema import keys_meant, paths_meant
from effdet_plugin.errors import ConfigError
from support import REPOSITORY


@pytest.fixture(scope='module')
def custom() -> Config:
    return load(REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py')


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('lr', 'optim_wrapper.optimizer.lr'),
        ('learning_rate', 'optim_wrapper.optimizer.lr'),
        ('learningRate', 'optim_wrapper.optimizer.lr'),
        ('optimizer.lr', 'optim_wrapper.optimizer'),
        ('optim_wrapper.lr', 'optim_wrapper.optimizer.lr'),
        ('optim_wrapper.optimizer.learning_rate', 'lr'),
        ('epochs', 'train_cfg.max_epochs'),
        ('max-epochs', 'train_cfg.max_epochs'),
        ('train_cfg.epochs', 'max_epochs'),
        ('train_dataloader.epochs', 'train_cfg.max_epochs'),
        ('batch_size', 'train_dataloader.batch_size'),
        ('samples_per_gpu', 'train_dataloader.batch_size'),
        ('val_dataloader.bs', 'batch_size'),
        ('workers', 'train_dataloader.num_workers'),
        ('imgsz', 'image_size'),
        ('model.num_classes', 'model.bbox_head.num_classes'),
        ('model.pretrained', 'model.backbone.pretrained'),
        ('seed', 'randomness.seed'),
        ('weights', 'load_from'),
        ('early_stopping', 'custom_hooks'),
        ('patience', 'custom_hooks'),
        ('lr_config', 'param_scheduler'),
        ('num_cells', 'model.neck.num_cells'),  # no other name: the config has it elsewhere
        ('model.bbox_head.gamma', 'model.bbox_head.loss_cls.gamma'),
        ('model.nek', 'neck'),  # by its letters
    ],
)
def test_options__suggest_by_meaning(custom: Config, key: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        merge_options(custom.copy(), [f'{key}=1'])
    assert f'; did you mean {meant!r}?' in str(error.value)


@pytest.mark.parametrize(
    ('key', 'option'), [('device', '--device'), ('amp', '--amp'), ('resume_from', '--resume')]
)
def test_options__that_are_options_of_the_command(custom: Config, key: str, option: str) -> None:
    with pytest.raises(ConfigError, match=f"no '{key}'; it is an option of the command: {option}"):
        merge_options(custom.copy(), [f'{key}=1'])


def test_options__no_letters_where_the_meaning_is_not_taken(custom: Config) -> None:
    with pytest.raises(ConfigError) as error:  # AdamW has none
        merge_options(custom.copy(), ['momentum=0.9'])
    assert 'did you mean' not in str(error.value)
    assert 'optim_wrapper.optimizer.momentum, which this config does not take' in str(error.value)


def test_check__suggests_by_meaning_in_a_file(custom: Config) -> None:
    cfg = custom.copy()
    cfg.optim_wrapper.optimizer = dict(type='AdamW', learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate: .*did you mean 'lr'\?"):
        check(cfg)


def test_check__an_authors_variable_may_have_any_name() -> None:
    check(Config(dict(lr=0.1, epochs=3, batch_size=2, size=4, checkpoint='x.pth')))


def test_meant() -> None:
    assert keys_meant('numEpochs') == ['max_epochs']
    assert paths_meant('bs') == ['train_dataloader.batch_size']
    assert paths_meant('kittens') == keys_meant('kittens') == []


def test_places_with__training_before_evaluation(custom: Config) -> None:
    assert places_with(custom, 'batch_size') == ['train_dataloader.batch_size']
    assert sorted(places_with(custom, 'test_mode')) == [
        'test_dataloader.dataset.dataset.test_mode',
        'val_dataloader.dataset.dataset.test_mode',
    ]
