"""One wrapper around any mmdet data set: image size, and randomness that a resumed run repeats."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset

from effdet_plugin.datasets.transforms import remember_size
from effdet_plugin.errors import ConfigError, DatasetError


@DATASETS.register_module()
class EfficientDetDataset:
    """Hands one ``image_size`` to every transform that has such a key, and seeds each sample.

    A sample's randomness is a function of (seed, epoch, index). Workers that live on between epochs
    never learn the epoch from mmengine, so :class:`~effdet_plugin.engine.EpochSampler` sends it
    along.

    Args:
        dataset: config of any mmdet data set or wrapper of some.
        pipeline: transforms of all data sets inside, which then have none of their own. Written
            here, mmdet's ``DetInferencer`` finds it.
        image_size: (height, width) of the network input, or None to leave the transforms as they
            are.
        seed: base of the samples' seeds. None: plain indices are not seeded.
        lazy_init: mmengine's, handed on.

    Raises:
        ConfigError: pipelines here and inside.
        DatasetError: an image or annotation cannot be read; the message names the file.
    """

    def __init__(
        self,
        dataset: dict[str, Any] | BaseDataset,
        image_size: tuple[int, int] | None = None,
        seed: int | None = None,
        pipeline: list[dict[str, Any]] | None = None,
        lazy_init: bool | None = None,
    ) -> None:
        if isinstance(dataset, dict):
            dataset = hand_on(dataset, {'pipeline': pipeline, 'lazy_init': lazy_init})
            dataset = DATASETS.build(dataset)
        self.dataset = dataset
        self.image_size = image_size
        self.seed = seed
        self._hand_on_size()

    def _hand_on_size(self) -> None:
        if self.image_size is not None:
            size = int(self.image_size[0]), int(self.image_size[1])
            set_size(self.dataset, size)
            remember_size(size)

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information of the inner data set, with its ``classes``."""
        return self.dataset.metainfo

    @property
    def pipeline(self) -> Any:
        """Transforms of the data sets inside; new ones (``PipelineSwitchHook``) get the size."""
        return next(_innermost(self.dataset)).pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        for dataset in _innermost(self.dataset):
            dataset.pipeline = pipeline
        self._hand_on_size()

    def __getattr__(self, name: str) -> Any:
        # get_data_info, get_cat_ids, full_init, ...: what mmengine and mmdet ask of a data set.
        if name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> Any:
        epoch, number = index if isinstance(index, tuple) else (0, index)
        if self.seed is None and not isinstance(index, tuple):
            return self._read(number)
        with seeded((self.seed or 0, epoch, number)):
            return self._read(number)

    def _read(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except (OSError, AssertionError, cv2.error) as error:
            raise self._explain(number, error) from error

    def _explain(self, number: int, error: Exception) -> Exception:
        """A one-line error with the image's path, if the image is what cannot be read."""
        path = self.dataset.get_data_info(number).get('img_path', f'sample {number}')
        if readable(path):
            return error
        return DatasetError(f'{path}: the image is missing or cannot be read')


def readable(path: str) -> bool:
    """Whether OpenCV decodes a picture file."""
    try:
        return cv2.imread(path) is not None
    except cv2.error:
        return False


def hand_on(dataset: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy of a data set's config whose innermost data sets have these arguments, but for None.

    Raises:
        ConfigError: an innermost data set has one of them already.
    """
    inner = {key: dataset[key] for key in ('dataset', 'datasets') if key in dataset}
    if inner:
        copies: dict[str, Any] = {
            key: [hand_on(node, arguments) for node in value]
            if isinstance(value, (list, tuple))
            else hand_on(value, arguments)
            for key, value in inner.items()
        }
        return {**dataset, **copies}
    given = {key: value for key, value in arguments.items() if value is not None}
    if twice := given.keys() & dataset.keys():
        raise ConfigError(
            f'EfficientDetDataset: {min(twice)} stands here and in the {dataset.get("type")} '
            'inside; leave one of them out'
        )
    return {**dataset, **given}


def set_size(dataset: Any, size: tuple[int, int]) -> None:
    """Set ``image_size`` of every transform of a data set and of those that it wraps."""
    for inner in _inner(dataset):
        set_size(inner, size)
    for transform in _transforms(vars(dataset).get('pipeline')):
        if hasattr(transform, 'image_size'):
            transform.image_size = size


def _inner(dataset: Any) -> list[Any]:
    """The data sets that a data set wraps."""
    single = [vars(dataset)[name] for name in ('dataset', '_dataset') if name in vars(dataset)]
    return [*single, *vars(dataset).get('datasets', [])]


def _innermost(dataset: Any) -> Iterator[Any]:
    """The data sets that wrap no other."""
    inner = _inner(dataset)
    if not inner:
        yield dataset
    for one in inner:
        yield from _innermost(one)


def _transforms(node: Any) -> Iterator[Any]:
    """All transforms below a pipeline, nested ones as well."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _transforms(item)
    elif node is not None and not isinstance(node, (str, int, float, dict)):
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
