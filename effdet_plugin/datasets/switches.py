"""Augmentation that a dataset's settings add to its pipeline."""

from typing import Any

from effdet_plugin.datasets.autoaugment import DetectionAutoAugment
from effdet_plugin.datasets.grid_mask import GridMask
from effdet_plugin.errors import ConfigError

_READING = 'LoadAnnotations'


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
