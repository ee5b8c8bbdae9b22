"""Test-time augmentation (TTA): several views of each image, which are scaled or flipped copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from effdet_plugin.config import size_pipelines
from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.errors import ConfigError
from effdet_plugin.export.metadata import SIZE_STEP, Metadata
from effdet_plugin.models.detectors.tta_model import check_merge

SIZE_DIVISOR = 64  # sizes of scaled views are multiples of this, half of the coarsest stride
_FLIP_METAS = ('flip', 'flip_direction')
# Steps that set the size of the network input, with the argument that holds it.
_SIZE_ARGUMENT = {'LetterBox': 'image_size', 'Resize': 'scale'}
Step = dict[str, Any]
Size = tuple[int, int]


@dataclass(frozen=True)
class TTA:
    """The views of an image, and how their detections are merged.

    Attributes:
        scales: Factors on the config's input size. The first view always has that size itself.
        flip: Whether each scale also has a view that is flipped from left to right.
        merge: ``'nms'`` or ``'wbf'``, see `effdet_plugin.models.detectors.EfficientDetTTAModel`.
        size_divisor: Sizes of scaled views are multiples of this.

    Raises:
        ConfigError: ``merge`` is unknown, or a scale is not positive.
    """

    scales: Sequence[float] = (0.8, 1.25)
    flip: bool = True
    merge: str = 'nms'
    size_divisor: int = SIZE_DIVISOR

    def __post_init__(self) -> None:
        """Check the values."""
        check_merge(self.merge)
        if any(scale <= 0 for scale in self.scales):
            raise ConfigError(f'TTA: the scales {tuple(self.scales)} must be positive')


def apply_tta(cfg: Config, tta: TTA) -> dict[str, Any]:
    """Change a config's test pipelines so that they give several views of each image.

    Args:
        cfg: Changed in place: the pipelines of ``test_dataloader``. If it has a ``tta_pipeline``,
            as some of mmdet's configs have, that is used instead of the views of ``tta``.
        tta: The views, and how they are merged.

    Returns:
        The config of the model that merges the views, without its ``module``: what mmengine's
        ``PrepareTTAHook`` takes.

    Raises:
        ConfigError: The pipeline has no step that sets a size.
    """
    change_pipelines(cfg, lambda steps: cfg.get('tta_pipeline') or views_pipeline(steps, tta))
    return {'type': 'EfficientDetTTAModel', 'merge': tta.merge}


def change_pipelines(cfg: Config, change: Callable[[Any], Any]) -> None:
    """Replace every test pipeline of a config, after its steps were given their size.

    Args:
        cfg: Changed in place: the pipelines of ``test_dataloader``.
        change: The steps of a pipeline -> its new steps.
    """
    root = cfg.test_dataloader.dataset
    size_pipelines(root)  # a dataset does not see the steps inside TestTimeAug
    for node in dataset_nodes(root):
        if node.get('pipeline'):
            node.pipeline = change(node.pipeline)


def views_pipeline(pipeline: Sequence[Step], tta: TTA) -> list[Step]:
    """Return a test pipeline that gives several views of each image.

    The flip comes before the step that sets the size, so that padding stays at the right and
    bottom.

    Args:
        pipeline: A test pipeline of one view; its ``LetterBox`` or ``Resize`` has the size.
        tta: The views.

    Raises:
        ConfigError: The pipeline has no step that sets a size.
    """
    index = next((i for i, step in enumerate(pipeline) if step['type'] in _SIZE_ARGUMENT), None)
    if index is None:
        raise ConfigError(
            'test_dataloader: the pipeline has no LetterBox or Resize whose size could be scaled; '
            'give the config a tta_pipeline'
        )
    step = pipeline[index]
    argument = _SIZE_ARGUMENT[step['type']]
    base = step.get(argument)
    if not base:
        raise ConfigError(f'test_dataloader: {step["type"]} has no {argument} that could be scaled')
    scales = [1.0, *(scale for scale in tta.scales if scale != 1)]
    sizes = [scaled_size(base, scale, tta.size_divisor) for scale in scales]
    resizes = [{**step, argument: size} for size in sizes]
    flips = [dict(type='RandomFlip', prob=prob) for prob in ((0.0, 1.0) if tta.flip else (0.0,))]
    rest = [[_with_flip_metas(later)] for later in pipeline[index + 1 :]]
    return [*pipeline[:index], dict(type='TestTimeAug', transforms=[flips, resizes, *rest])]


def scaled_size(size: Sequence[int], scale: float, divisor: int = SIZE_DIVISOR) -> Size:
    """Return a size in pixels times ``scale``, rounded to ``divisor`` unless ``scale`` is 1."""
    if scale == 1:
        return size[0], size[1]
    first, second = (max(divisor, round(x * scale / divisor) * divisor) for x in size)
    return first, second


def tta_of_file(tta: TTA | None, known: Metadata, path: Path | str) -> TTA | None:
    """Return the test-time augmentation that an exported file can follow.

    Args:
        tta: What is asked for; None: nothing.
        known: The file's metadata.
        path: The file, for messages.

    Returns:
        For a file of any size, its views have sizes that it takes.

    Raises:
        ConfigError: The file has one size and the views several, or it resizes images itself.
    """
    if tta is None:
        return None
    if known.input == 'uint8':
        raise ConfigError(
            f'{path}: resizes the images itself, so test-time augmentation cannot; use the '
            'checkpoint, or a file of --input float'
        )
    if known.image_size is not None and any(scale != 1 for scale in tta.scales):
        raise ConfigError(
            f'{path}: has one size, and the views of test-time augmentation several; use the '
            'checkpoint, or a file of any size (--end raw --dynamic)'
        )
    return replace(tta, size_divisor=SIZE_STEP)


def _with_flip_metas(step: Step) -> Step:
    """Add to the packed sample's metainfo whether and how it was flipped."""
    if step['type'] != 'PackDetInputs' or 'meta_keys' not in step:
        return step
    return {**step, 'meta_keys': tuple({*step['meta_keys'], *_FLIP_METAS})}
