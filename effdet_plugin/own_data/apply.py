"""Puts own data into a config: its datasets, evaluators and class counts.

Used by ``tools/train.py CONFIG --data DIR``. The config that is dumped into the work dir afterwards
holds the classes and absolute paths, so it trains again by itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from effdet_plugin.config.dataset_nodes import dataset_nodes, map_sources, source_nodes
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.own_data.dataset import DatasetDescription, Split
from effdet_plugin.own_data.read import read_dataset
from effdet_plugin.own_data.splits import with_validation
from effdet_plugin.own_data.write import image_root, json_paths, write_coco

DATA_FOLDER = 'data'  # of the converted annotations, below the work dir
_LOADERS = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'test'}
_EVALUATORS = {'val_evaluator': 'val', 'test_evaluator': 'test'}
# What a dataset of any class takes beside its source; other keys belong to the class replaced.
_KEPT_KEYS = ('pipeline', 'test_mode', 'filter_cfg', 'lazy_init', 'serialize_data', 'max_refetch')
# Parts of a model that have no classes, or not those of the data.
_WITHOUT_CLASSES = ('backbone', 'neck', 'data_preprocessor')


def apply_data(
    cfg: Config, data_dir: Path | str, work_dir: Path | str, *, write: bool = True
) -> DatasetDescription:
    """Read own data, write it as COCO json below the work dir and point the config to it.

    Args:
        cfg: Changed in place: datasets (also inside wrappers), evaluators and class counts.
        data_dir: Folder with images and annotations as labelling tools write them, or one
            annotation file. Nothing is written there.
        work_dir: The jsons are written into ``data/`` below it. The same data gives the same
            files, so a second run and other processes of one run leave them as they are.
        write: False only sets the paths.

    Returns:
        The description with the validation split that is used; ``remarks()`` has lines to print.

    Raises:
        ConfigError: The model needs masks, which are not read.
        DatasetError: The data cannot be trained on; one line with file and row or id.
    """
    model = cfg.get('model') or {}
    if any(part.get('mask_head') for part in (model, model.get('roi_head') or {})):
        raise ConfigError(
            '--data: only boxes are read, and this model has a mask head; set the datasets in the '
            'config, with masks loaded, or take a model of boxes'
        )
    description = with_validation(read_dataset(data_dir).check())
    folder = Path(work_dir).absolute() / DATA_FOLDER
    paths = write_coco(description, folder) if write else json_paths(description, folder)
    set_data(cfg, description, paths)
    remarks = {
        'converted': f'{description.source} annotations: written as COCO json into {folder}',
        'small_batch': _keep_small_batch(cfg, len(description.train)),
        'filtered': _count_filtered(cfg, description.train),
    }
    if description.source == 'COCO':
        del remarks['converted']
    for kind, remark in remarks.items():
        description = description.with_remark(kind, remark) if remark else description
    return description


def set_data(cfg: Config, description: DatasetDescription, paths: dict[str, Path]) -> None:
    """Point every dataset, evaluator and class count of a config to a described dataset.

    Args:
        cfg: Changed in place.
        description: Gives classes and the folder of the images.
        paths: COCO json by split; without ``test``, ``val`` is tested.
    """
    paths = paths | {'test': paths.get('test', paths['val'])}
    prefix = f'{image_root(description).as_posix()}/'
    for loader, split in _LOADERS.items():
        if cfg.get(loader) is not None:
            node = cfg[loader].dataset
            cfg[loader].dataset = _with_source(node, paths[split], prefix, description.classes)
    for evaluator, split in _EVALUATORS.items():
        for node in _nodes(cfg.get(evaluator)):
            if 'ann_file' in node:
                node.ann_file = str(paths[split])
    set_num_classes(cfg, len(description.classes))


def set_num_classes(cfg: Config, num_classes: int) -> None:
    """Set every class count of the model: heads and what is inside them."""
    if 'num_classes' in cfg:
        cfg.num_classes = num_classes
    for name, part in (cfg.get('model') or {}).items():
        for node in [] if name in _WITHOUT_CLASSES else _nodes(part):
            if 'num_classes' in node:
                node.num_classes = num_classes


def dry_run_summary(description: DatasetDescription, remarks: list[str]) -> dict[str, Any]:
    """Return what ``--dry-run`` prints as its last line.

    Args:
        description: As `apply_data` returns it.
        remarks: Further lines than those of the data.
    """
    val = description.splits.get('val') or Split([])
    return {
        'classes': list(description.classes),
        'train_images': len(description.train),
        'val_images': len(val),
        'boxes': description.train.num_targets + val.num_targets,
        'remarks': [*description.remarks(), *remarks],
    }


def _with_source(node: ConfigDict, path: Path, prefix: str, classes: tuple[str, ...]) -> ConfigDict:
    """Return a dataset node, its wrappers kept, whose one source is a COCO json."""

    def replace_source(source: ConfigDict) -> ConfigDict:
        kept = {key: source[key] for key in _KEPT_KEYS if key in source}
        filter_cfg = {'filter_empty_gt': False, 'min_size': 0}
        filter_cfg |= kept.pop('filter_cfg', None) or {}
        filter_cfg.pop('bbox_min_size', None)  # of VOC datasets only
        return ConfigDict(
            type='CocoDataset',
            data_root='',
            ann_file=str(path),
            data_prefix={'img': prefix},
            metainfo={'classes': classes},
            filter_cfg=filter_cfg,
            **kept,
        )

    for wrapper in dataset_nodes(node):
        if wrapper.get('datasets'):  # several sources become one
            wrapper.datasets = wrapper.datasets[:1]
    return map_sources(node, replace_source)


def _nodes(value: object) -> Iterator[ConfigDict]:
    """Yield all dicts in a value of a config, the outermost first."""
    if isinstance(value, ConfigDict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _nodes(one)


def _keep_small_batch(cfg: Config, num_images: int) -> str:
    """Keep the only batch of a dataset that is smaller than one; return the remark, or ''."""
    loader = cfg.get('train_dataloader') or ConfigDict()
    batch_size = loader.get('batch_size', 1)
    if not loader.get('drop_last') or batch_size <= num_images:
        return ''
    loader.drop_last = False
    return f'{num_images} training images are fewer than a batch of {batch_size}'


def _count_filtered(cfg: Config, train: Split) -> str:
    """Return what the config's own filter does to the training images, '' for nothing."""
    sources = source_nodes((cfg.get('train_dataloader') or {}).get('dataset'))
    filter_cfg = next((source.filter_cfg for source in sources), ConfigDict())
    smallest = filter_cfg.get('min_size', 0)
    count = sum(
        (filter_cfg.get('filter_empty_gt', False) and not len(image.boxes))
        or min(image.width, image.height) < smallest
        for image in train
    )
    if count == len(train):
        raise DatasetError(
            f"the config's filter_cfg (min_size={smallest}) leaves out all {count} images"
        )
    return f"the config's filter_cfg leaves out {count} training images" if count else ''
