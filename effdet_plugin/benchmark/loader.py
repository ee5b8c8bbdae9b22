"""Time a config's training pipeline, from files to batches, beside effdet's loader.

The loader runs in this process on one thread, so the CPU time says what one worker can do. effdet
reads the same images by its own dataset, `transforms_coco_train` (scale 0.1 to 2.0) and collation
with plain targets: it labels no anchors here.
"""

import copy
import io
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from PIL import Image

from effdet_plugin.benchmark.machine import describe
from effdet_plugin.benchmark.report import Measure, Report
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.benchmark.timing import TOTAL, Figures, Stopwatch, in_turns
from effdet_plugin.config import parse_options
from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.datasets.cache import Cache
from effdet_plugin.datasets.reader import image_key
from effdet_plugin.errors import ConfigError, InstallError
from effdet_plugin.images import read_image
from effdet_plugin.shipped_configs import config_path
from effdet_plugin.training.settings import TrainSettings
from effdet_plugin.training.train import prepare

# A call takes as many batches as have at least so many images: single ones differ by their scale.
IMAGES_PER_CALL = 64
# Mean difference of grey levels between OpenCV's and Pillow's decoder, of the same image.
MAX_DIFFERENCE = 3.0
# Switches of `EfficientDetDataset` that are timed beside the config as it is.
SWITCHES: dict[str, dict[str, Any]] = {
    'reduced decoding': {'reduced_decoding': True},
    'cached': {'cache': 'ram:2'},
}
COMPARED = 8  # images whose pixels are compared
PARTS = {
    'LoadImageFromFile': 'decode',
    'ImageReader': 'decode',
    'ToRGB': 'RGB',
    'LoadAnnotations': 'annotations',
    'RandomFlip': 'flip',
    'ScaleJitterCrop': 'resize and crop',
    'RandomResizePad': 'resize and crop',
    'PackDetInputs': 'pack',
    'ImageToNumpy': 'pack',
}


class Stream:
    """An endless stream of batches whose parts are timed.

    Args:
        loader: In this process.
        count: Number of batches in a call.
    """

    def __init__(self, loader: Any, count: int) -> None:
        self.loader, self.count = loader, count
        self.watch: Stopwatch | None = None
        loader.collate_fn = self.timed(loader.collate_fn, 'collate')
        self._batches = self._forever()

    def __call__(self, watch: Stopwatch) -> None:
        """Read batches."""
        self.watch = watch
        for _ in range(self.count):
            next(self._batches)

    def fill(self) -> bool:
        """Read every image once; return whether the cache has all of them, whole, after that.

        It has none that are tiny, reduced, or too many.
        """
        dataset = self.loader.dataset
        cache: Cache | None = getattr(dataset, 'cache', None)
        for _ in range(len(self.loader)):
            next(self._batches)
            if cache is None or not 0 <= cache.used < cache.limit:
                return False
        paths = (dataset.get_data_info(i)['img_path'] for i in range(len(dataset)))
        keys = (image_key(path, 1) for path in paths)
        return all(key and cache.get(key) is not None for key in keys) if cache else False

    def timed(self, step: Callable[..., Any], name: str, before: str = '') -> Callable[..., Any]:
        """Return a step that ends a part, and perhaps another one before it."""

        def call(*arguments: Any) -> Any:
            if before and self.watch:
                self.watch.lap(before)
            found = step(*arguments)
            if self.watch:
                self.watch.lap(name)
            return found

        return call

    def time_steps(self, steps: list[Any], before: str) -> None:
        """Time the steps of a pipeline, in place; ``before`` is what comes before the first."""
        for index, step in enumerate(steps):
            name = type(step).__name__
            steps[index] = self.timed(step, PARTS.get(name, name), '' if index else before)

    def _forever(self) -> Iterator[Any]:
        epoch = 0
        while True:
            if hasattr(self.loader.sampler, 'set_epoch'):
                self.loader.sampler.set_epoch(epoch)
            yield from self.loader
            epoch += 1


def measure(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Measure.

    Args:
        settings: ``config``, ``data``, ``batches``, ``rounds``, ``against`` and ``step_ms`` matter.
        tell: Told what is being done.

    Returns:
        For each batch size a measure ``loader/b<batch>/<config>`` with its parts below it. All
        times are of one image; ``images_per_second`` is of one core.

    Raises:
        UserError: The data cannot be read; effdet would read other images.
    """
    settings.check()
    if settings.config is None:
        raise ConfigError('benchmark loader: give a CONFIG, such as d0_coco')
    config, device = config_path(settings.config), torch.device('cpu')
    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        cfg = _config(config, settings, Path(folder))
        report = Report(describe(device, 1), [])
        for batch in settings.batches:
            prefix = f'loader/b{batch}/{config.stem}'
            streams = {prefix: ours(cfg, batch)}
            dataset = streams[prefix].loader.dataset
            for name, switches in SWITCHES.items():
                try:
                    streams[f'{prefix}, {name}'] = ours(cfg, batch, **switches)
                except ConfigError as error:
                    report.notes.append(f'{name} is left out: {error}')
            if (cached := streams.get(f'{prefix}, cached')) and not cached.fill():
                del streams[f'{prefix}, cached']
                report.notes.append('cached is left out: an epoch does not put all images there')
            if settings.against:
                streams[f'{prefix}, effdet'] = rival(dataset, batch)
            found = in_turns(streams, settings.rounds, device, warm_up=1, report=tell)
            against = f'{prefix}, effdet' if settings.against else ''
            for name, stream in streams.items():
                images = stream.count * batch
                related = '' if name == against else against
                report.measures += _rows(name, found[name], images, related)
                report.notes.append(_feeding(name, found[name], images, batch, settings.step_ms))
    return report


def ours(cfg: Config, batch: int, **switches: Any) -> Stream:
    """Return the training batches of a config.

    Args:
        cfg: Complete, with data that can be read.
        batch: Images per batch.
        switches: Further arguments of its `EfficientDetDataset`.

    Raises:
        ConfigError: It has none, or the switches are not for it.
    """
    node = copy.deepcopy(cfg.train_dataloader).to_dict()
    for key in ('prefetch_factor', 'batch_sampler', 'num_batch_per_epoch'):
        node.pop(key, None)
    if switches:
        nodes = dataset_nodes(node['dataset'])
        wrapper = next((one for one in nodes if one.get('type') == 'EfficientDetDataset'), None)
        if wrapper is None:
            raise ConfigError('the config has no EfficientDetDataset')
        wrapper.update(switches)
    node.update(batch_size=batch, num_workers=0, persistent_workers=False, drop_last=False)
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet'))
    with scope, redirect_stdout(io.StringIO()):  # pycocotools says that it reads
        loader = Runner.build_dataloader(node, seed=0)
    stream = Stream(loader, _count(len(loader.dataset), batch))
    steps = getattr(getattr(loader.dataset, 'pipeline', None), 'transforms', None)
    if isinstance(steps, list):
        stream.time_steps(steps, 'sampling')
    return stream


def rival(dataset: Any, batch: int) -> Stream:
    """Return effdet's batches of the same images.

    Args:
        dataset: Ours, of COCO annotations.
        batch: Images per batch.

    Raises:
        InstallError: effdet is not installed.
        ConfigError: effdet reads other images.
    """
    try:
        from effdet.data.dataset import DetectionDatset
        from effdet.data.loader import DetectionFastCollate
        from effdet.data.parsers import create_parser
        from effdet.data.parsers.parser_config import CocoParserCfg
        from effdet.data.transforms import transforms_coco_train
    except ImportError as error:
        raise InstallError(f'--against effdet: {error}; pip install effdet==0.4.1') from error
    size = getattr(dataset, 'image_size', None)
    source = getattr(dataset, 'ann_file', '')
    if size is None or not str(source).endswith('.json'):
        raise ConfigError('--against effdet: it needs an EfficientDetDataset of one COCO json')
    with redirect_stdout(io.StringIO()):
        parser = create_parser('coco', cfg=CocoParserCfg(ann_filename=source))
    theirs = DetectionDatset(Path(dataset.data_prefix['img']), parser)
    check_same_images(dataset, theirs)
    theirs.transform = transforms_coco_train(size, use_prefetcher=True)
    loader = torch.utils.data.DataLoader(
        theirs, batch, shuffle=True, num_workers=0, collate_fn=DetectionFastCollate()
    )
    stream = Stream(loader, _count(len(theirs), batch))
    stream.time_steps(theirs.transform.transforms, 'decode')
    parser.get_ann_info = stream.timed(parser.get_ann_info, 'annotations', 'sampling')
    return stream


def check_same_images(dataset: Any, theirs: Any) -> None:
    """Check that both datasets have the same files, and that these are read as the same images.

    Args:
        dataset: Ours.
        theirs: effdet's.

    Raises:
        ConfigError: They have not, or are not.
    """
    own = {Path(dataset.get_data_info(i)['img_path']).resolve() for i in range(len(dataset))}
    infos = theirs.parser.img_infos
    other = {(theirs.data_dir / info['file_name']).resolve() for info in infos}
    if own != other:
        some = min(own ^ other)
        raise ConfigError(
            f'--against effdet: {len(own)} images here and {len(other)} there, such as {some} in '
            'one of them only; set filter_cfg of the dataset so that it leaves out none'
        )
    for path in sorted(own)[:COMPARED]:
        ours_, pillows = read_image(path), np.asarray(Image.open(path).convert('RGB'))
        if ours_.shape != pillows.shape:
            raise ConfigError(f'--against effdet: {path}: is turned by EXIF, which effdet ignores')
        error = float(np.abs(ours_.astype(np.int16) - pillows).mean())
        if error > MAX_DIFFERENCE:
            raise ConfigError(f'--against effdet: {path}: read with a mean difference of {error}')


def workers_for(rate: float, per_core: float) -> int:
    """Return how many workers read ``rate`` images a second, if each reads ``per_core``."""
    return max(1, math.ceil(rate / per_core))


def _config(config: Path, settings: Settings, folder: Path) -> Config:
    """Return the complete config of a training, data checked."""
    given = TrainSettings(
        config=config,
        data=settings.data,
        work_dir=folder / 'run',
        image_size=settings.image_size,
        cfg_options=parse_options(settings.options or {}),
    )
    return prepare(given, scratch=folder).cfg


def _count(images: int, batch: int) -> int:
    """Return the number of batches in a call: an epoch, or enough to average over the scales."""
    return max(1, min(math.ceil(images / batch), math.ceil(IMAGES_PER_CALL / batch)))


def _rows(name: str, found: dict[str, Figures], images: int, against: str) -> list[Measure]:
    speed = _per_second(found, images)
    total = Measure(
        name,
        found[TOTAL],
        images,
        against,
        f'{speed:.0f} images/s per core',
        {'images_per_second': round(speed, 1)},
    )
    parts = [Measure(f'{name}/{part}', found[part], images) for part in found if part != TOTAL]
    return [total, *parts]


def _per_second(found: dict[str, Figures], images: int) -> float:
    return 1000 * images / float(np.median(found[TOTAL].cpu_ms))


def _feeding(
    name: str, found: dict[str, Figures], images: int, batch: int, step_ms: float | None
) -> str:
    """Return what it takes to feed a training."""
    speed = _per_second(found, images)
    if step_ms is None:
        return f'{name}: 100 images/s take {workers_for(100, speed)} workers'
    rate = 1000 * batch / step_ms
    return (
        f'{name}: a step of {batch} images in {step_ms:g} ms takes {rate:.1f} images/s: '
        f'{workers_for(rate, speed)} worker(s)'
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    threads, own = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(own)
