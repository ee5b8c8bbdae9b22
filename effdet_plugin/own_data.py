"""Puts a person's own data into a config: every data set, evaluator and class count of it.

Used by ``tools/train.py CONFIG --data DIR``. The config that is dumped into the work dir afterwards
holds the classes and absolute paths, so it trains again by itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from effdet_plugin.datasets.readers import (
    DatasetDescription,
    Split,
    read_dataset,
    with_validation,
    write_coco,
)
from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.write import image_root, json_paths
from effdet_plugin.errors import ConfigError, DatasetError

#: Where the converted annotations lie below the work dir.
DATA_FOLDER = 'data'
_LOADERS = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'test'}
_EVALUATORS = {'val_evaluator': 'val', 'test_evaluator': 'test'}
#: What a data set of any class takes beside its source; the rest belongs to the class replaced.
_KEPT_KEYS = ('pipeline', 'test_mode', 'filter_cfg', 'lazy_init', 'serialize_data', 'max_refetch')
#: Parts of a model that have no classes, or not ours.
_WITHOUT_CLASSES = ('backbone', 'neck', 'data_preprocessor')


def apply_data(
    cfg: Config, data_dir: Path | str, work_dir: Path | str, *, write: bool = True
) -> DatasetDescription:
    """Read own data, write it as COCO json below the work dir and point the config to it.

    Args:
        cfg: Changed in place: data sets (also inside wrappers), evaluators and class counts.
        data_dir: Folder with pictures and annotations as labelling tools write them, or one
            annotation file. Nothing is written there.
        work_dir: The jsons are written into ``data/`` below it; the same data gives the same
            files, so a second run and other processes of one run leave them as they are.
            For a dry run give a temporary directory.
        write: False only sets the paths.

    Returns:
        The description with the validation split that is used; ``remarks()`` has the lines to
        say.

    Raises:
        ConfigError: If the model needs masks, which own data is not read for.
        DatasetError: If the data cannot be trained on; one line with file and row or id.
    """
    _refuse_mask_heads(cfg)
    description = with_validation(read_dataset(data_dir).check())
    folder = Path(work_dir).absolute() / DATA_FOLDER
    paths = write_coco(description, folder) if write else json_paths(description, folder)
    set_data(cfg, description, paths)
    return _with_remarks(cfg, description, folder)


def _refuse_mask_heads(cfg: Config) -> None:
    model = cfg.get('model') or {}
    if any(part.get('mask_head') for part in (model, model.get('roi_head') or {})):
        raise ConfigError(
            '--data: the readers give boxes, and this model has a mask head; set the data sets in '
            'the config, with masks loaded, or take a model of boxes'
        )


def set_data(cfg: Config, description: DatasetDescription, paths: dict[str, Path]) -> None:
    """Point every data set, evaluator and class count of a config to a described data set.

    Args:
        cfg: Changed in place.
        description: Gives classes and the folder of the pictures.
        paths: COCO json by split; without ``test``, ``val`` is tested.
    """
    paths = paths | {'test': paths.get('test', paths['val'])}
    prefix = f'{image_root(description).as_posix()}/'
    for key, split in _LOADERS.items():
        if cfg.get(key) is not None:
            cfg[key].dataset = _data_set(
                cfg[key].dataset, paths[split], prefix, description.classes
            )
    for key, split in _EVALUATORS.items():
        for node in _nodes(cfg.get(key)):
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
    """What ``--dry-run`` prints as its last line.

    Args:
        description: As :func:`apply_data` returns it.
        remarks: Further lines than those of the data.
    """
    used = [description.train, description.splits.get('val')]
    return {
        'classes': list(description.classes),
        'train_images': len(description.train),
        'val_images': len(description.splits.get('val') or []),
        'boxes': sum(split.num_targets for split in used if split is not None),
        'remarks': [*description.remarks(), *remarks],
    }


def _data_set(node: ConfigDict, path: Path, prefix: str, classes: tuple[str, ...]) -> ConfigDict:
    """The node of a data set or of a wrapper around some, with its source replaced."""
    if 'dataset' in node:
        node.dataset = _data_set(node.dataset, path, prefix, classes)
        return node
    if 'datasets' in node:  # several sources become one
        node.datasets = [_data_set(node.datasets[0], path, prefix, classes)]
        return node
    kept = {key: node[key] for key in _KEPT_KEYS if key in node}
    filters = {'filter_empty_gt': False, 'min_size': 0} | dict(kept.pop('filter_cfg', None) or {})
    filters.pop('bbox_min_size', None)  # of VOC data sets only
    return ConfigDict(
        type='CocoDataset',
        data_root='',
        ann_file=str(path),
        data_prefix={'img': prefix},
        metainfo={'classes': classes},
        filter_cfg=filters,
        **kept,
    )


def _nodes(value: object) -> Iterator[ConfigDict]:
    """All dicts in a value of a config, the outermost first."""
    if isinstance(value, ConfigDict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _nodes(one)


def _keep_small_batch(cfg: Config, num_images: int) -> str:
    """Keep the only batch of a set that is smaller than one: what was done, '' for nothing."""
    loader = cfg.get('train_dataloader') or ConfigDict()
    batch_size = loader.get('batch_size', 1)
    if not loader.get('drop_last') or batch_size <= num_images:
        return ''
    loader.drop_last = False
    return f'{num_images} training pictures are fewer than a batch of {batch_size}'


def _left_out(cfg: Config, train: Split) -> str:
    """What the config's own filter does to the training pictures, '' for nothing."""
    nodes = _nodes((cfg.get('train_dataloader') or {}).get('dataset'))
    filters = next((node.filter_cfg for node in nodes if 'filter_cfg' in node), ConfigDict())
    smallest = filters.get('min_size', 0)
    count = sum(
        (filters.get('filter_empty_gt', False) and not len(image.boxes))
        or min(image.width, image.height) < smallest
        for image in train
    )
    if count == len(train):
        raise DatasetError(
            f"the config's filter_cfg (min_size={smallest}) leaves out all {count} pictures"
        )
    return f"the config's filter_cfg leaves out {count} training pictures" if count else ''


def _with_remarks(cfg: Config, description: DatasetDescription, folder: Path) -> DatasetDescription:
    """The description with what applying it has shown."""
    findings = Findings()
    said = f'{description.source} annotations are converted to COCO json in {folder}'
    remarks = {
        'converted': said if description.source != 'COCO' else '',
        'small_batch': _keep_small_batch(cfg, len(description.train)),
        'filtered': _left_out(cfg, description.train),
    }
    for kind, detail in remarks.items():
        if detail:
            findings.add(kind, description.root.name, '', detail)
    return description.changed(findings=description.findings + findings.all())
