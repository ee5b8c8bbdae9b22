"""One wrapper around any mmdet dataset: input size, and randomness that a resumed run repeats."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset

from effdet_plugin.config.dataset_nodes import map_sources
from effdet_plugin.datasets.autoaugment import DetectionAutoAugment
from effdet_plugin.datasets.cache import open_cache
from effdet_plugin.datasets.grid_mask import GridMask
from effdet_plugin.datasets.mosaic import MosaicCrop, check_mosaic, set_mosaic
from effdet_plugin.datasets.reader import READING_ERRORS, raise_if_unreadable, set_reader
from effdet_plugin.errors import ConfigError
from effdet_plugin.images import check_resize_mode

_READING = 'LoadAnnotations'


@DATASETS.register_module()
class EfficientDetDataset:
    """Gives ``image_size`` and ``resize_mode`` to all transforms with such a key; seeds samples.

    A sample's randomness is a function of (seed, epoch, index). Workers that persist between epochs
    never learn the epoch from mmengine, so :class:`~effdet_plugin.engine.EpochSampler` sends it
    with the index.

    Args:
        dataset: Config of any mmdet dataset or wrapper of some.
        image_size: (height, width) of the network input, or None to leave the transforms as they
            are.
        seed: Base of the samples' seeds. None: plain indices are not seeded.
        pipeline: Transforms of all datasets inside, which then have none of their own. Written
            here, mmdet's ``DetInferencer`` finds it.
        lazy_init: mmengine's, passed to all datasets inside.
        test_mode: likewise, in place of their own: mmdet's ``analyze_results.py`` writes it here.
        resize_mode: how images meet ``image_size``, see `effdet_plugin.datasets.transforms`, or
            None to leave the transforms as they are.
        cache: Where decoded images are kept for the next epochs: ``'ram'`` or a folder, both
            perhaps with ``:GB``; see `effdet_plugin.datasets.cache`. None: nowhere.
        reduced_decoding: Decode a JPEG at the half, quarter or eighth of its size where its random
            scale is no larger; see `effdet_plugin.datasets.reader`.
        mosaic: Share of the images that are put into a mosaic with three others, drawn from all
            that are inside; see `effdet_plugin.datasets.mosaic`.
        mosaic_epochs: Number of the first epochs with mosaics, as :class:`EpochSampler` counts
            them. None: all.
        grid_mask: Share of the images that :class:`~effdet_plugin.datasets.GridMask` masks.
        autoaugment: Policy of :class:`~effdet_plugin.datasets.DetectionAutoAugment`; None: no such
            step.

    Raises:
        ConfigError: Pipelines here and inside; an unknown mode; a cache that cannot be; a pipeline
            in which images cannot be cached, reduced or augmented; augmentation in ``test_mode``.
        DatasetError: An image or annotation cannot be read; the message names the file.
    """

    def __init__(
        self,
        dataset: dict[str, Any] | BaseDataset,
        image_size: tuple[int, int] | None = None,
        seed: int | None = None,
        pipeline: list[dict[str, Any]] | None = None,
        lazy_init: bool | None = None,
        test_mode: bool | None = None,
        resize_mode: str | None = None,
        cache: str | None = None,
        reduced_decoding: bool = False,
        mosaic: float = 0.0,
        mosaic_epochs: int | None = None,
        grid_mask: float = 0.0,
        autoaugment: str | None = None,
    ) -> None:
        if resize_mode is not None:
            check_resize_mode(resize_mode)
        if isinstance(dataset, dict):
            given = {'pipeline': pipeline, 'lazy_init': lazy_init}
            given = {key: value for key, value in given.items() if value is not None}
            if test_mode is not None:
                dataset = map_sources(dataset, lambda node: {**node, 'test_mode': test_mode})
            dataset = DATASETS.build(map_sources(dataset, lambda node: _extended(node, given)))
        self.dataset = dataset
        self.image_size = image_size
        self.resize_mode = resize_mode
        self.seed = seed
        self.reduced_decoding = reduced_decoding
        self.cache = None if cache is None else open_cache(cache)
        self.mosaic, self.mosaic_epochs = check_mosaic(mosaic, mosaic_epochs), mosaic_epochs
        self.grid_mask, self.autoaugment = grid_mask, autoaugment
        self._mosaics: list[MosaicCrop] = []
        self._prepare_transforms()

    def _prepare_transforms(self) -> None:
        """Set size and mode of every transform of the datasets inside, and how images are read."""
        self._mosaics = []
        for dataset in _built_datasets(self.dataset):
            if not _inner(dataset):
                self._augment(dataset)
            if (self.cache or self.reduced_decoding) and not _inner(dataset):
                set_reader(dataset.pipeline.transforms, self.cache, self.reduced_decoding)
            for transform in _transforms(vars(dataset).get('pipeline')):
                if self.image_size is not None and hasattr(transform, 'image_size'):
                    transform.image_size = int(self.image_size[0]), int(self.image_size[1])
                if self.resize_mode is not None and hasattr(transform, 'resize_mode'):
                    transform.resize_mode = self.resize_mode

    def _augment(self, source: Any) -> None:
        """Set the augmentation of a source's pipeline."""
        used = [n for n in ('mosaic', 'grid_mask', 'autoaugment') if getattr(self, n)]
        if used and getattr(source, 'test_mode', False):
            raise ConfigError(f'{used[0]} is for training: leave it out where test_mode is set')
        steps = getattr(vars(source).get('pipeline'), 'transforms', [])
        add_augmentation(steps, self.grid_mask, self.autoaugment)
        self._mosaics += set_mosaic(self.dataset, steps, self.mosaic)

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information of the inner dataset, with its ``classes``."""
        return self.dataset.metainfo

    @property
    def pipeline(self) -> Any:
        """Transforms of the datasets inside; new ones (``PipelineSwitchHook``) get the size."""
        return next(one for one in _built_datasets(self.dataset) if not _inner(one)).pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        for dataset in _built_datasets(self.dataset):
            if not _inner(dataset):
                dataset.pipeline = pipeline
        # What takes another's place has what it says: a training may end without augmentation.
        self.mosaic, self.grid_mask, self.autoaugment = 0.0, 0.0, None
        self._prepare_transforms()

    def __getattr__(self, name: str) -> Any:
        # get_data_info, get_cat_ids, full_init, ...: what mmengine and mmdet ask of a dataset.
        if name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        epoch, number = index if isinstance(index, tuple) else (0, index)
        for step in self._mosaics:
            step.is_on = self.mosaic_epochs is None or epoch < self.mosaic_epochs
        if self.seed is None and not isinstance(index, tuple):
            return self._read(number)
        with seeded((self.seed or 0, epoch, number)):
            return self._read(number)

    def _read(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except READING_ERRORS as error:
            path = self.dataset.get_data_info(number).get('img_path', f'sample {number}')
            raise_if_unreadable(path, error)
            raise


def add_augmentation(steps: list[Any], grid_mask: float, autoaugment: str | None) -> None:
    """Add steps to a built pipeline where the reference has them: on the image as it was read.

    Args:
        steps: Changed in place; of a kind that is there already, none is added.
        grid_mask: Share of the images that `GridMask` masks; 0: it is not added.
        autoaugment: Policy of `DetectionAutoAugment`; None: it is not added.

    Raises:
        ConfigError: A value that cannot be; a pipeline without ``LoadAnnotations``.
    """
    added: list[Any] = []
    if grid_mask:
        added.append(GridMask(prob=grid_mask))
    if autoaugment is not None:
        added.append(DetectionAutoAugment(autoaugment))
    kinds = {type(step) for step in steps}
    added = [step for step in added if type(step) not in kinds]
    if not added:
        return
    names = [type(step).__name__ for step in steps]
    if _READING not in names:
        raise ConfigError(
            f'grid_mask and autoaugment are put behind {_READING}; this pipeline has none'
        )
    place = names.index(_READING) + 1
    # The weights of colours are those of RGB.
    if 'ToRGB' in names[place:]:
        place = names.index('ToRGB') + 1
    steps[place:place] = added


def _extended(node: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset node with further arguments; the node has none of them yet."""
    if twice := arguments.keys() & node.keys():
        raise ConfigError(
            f'EfficientDetDataset: {min(twice)} is given here and in the {node.get("type")} '
            'inside; leave one of them out'
        )
    return {**node, **arguments}


def _built_datasets(dataset: Any) -> Iterator[Any]:
    """Yield a built dataset and all that it wraps, outermost first."""
    yield dataset
    for inner in _inner(dataset):
        yield from _built_datasets(inner)


def _inner(dataset: Any) -> list[Any]:
    """Return the built datasets that a dataset wraps."""
    # Not getattr: `EfficientDetDataset` would answer with its inner dataset's attributes.
    single = [vars(dataset)[name] for name in ('dataset', '_dataset') if name in vars(dataset)]
    return [*single, *vars(dataset).get('datasets', [])]


def _transforms(node: Any) -> Iterator[Any]:
    """Yield all transforms of a built pipeline, nested ones as well."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _transforms(item)
    elif node is not None:
        yield node
        yield from _transforms(getattr(node, 'transforms', None))


@contextmanager
def seeded(key: tuple[int, ...]) -> Iterator[None]:
    """Seed numpy and ``random`` from a key, and restore both afterwards."""
    states = np.random.get_state(), random.getstate()
    sequence = np.random.SeedSequence([abs(int(k)) for k in key])
    words = sequence.generate_state(2)
    np.random.seed(int(words[0]))
    random.seed(int(words[1]))
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
