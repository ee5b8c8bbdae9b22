"""EfficientDet's anchors with mmdet's prior generator interface."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.anchors import AspectRatio, anchor_sides, level_anchors, strides_of

STRIDE_MODES = ('fractional', 'power_of_two')
# Number of image sizes whose anchors are cached (0.8 MB for D0 at 512). Images that are not padded
# may all differ in size, so the number is limited.
SETS_KEPT = 8


@TASK_UTILS.register_module()
class EfficientDetAnchorGenerator(AnchorGenerator):
    """Anchors ordered by level, row, column, scale and aspect ratio.

    If the image size is given, a stride is image size / feature size, which is a fraction where
    2^level does not divide the size, as in google/automl efficientdet/tf2/anchors.py. mmdet's own
    heads do not pass the image size and get the integer ``strides``.

    Args:
        strides: pixels of the network input per map position of each level.
        octave_base_scale: side of the smallest square anchor in strides; one number, or one per
            level. D0-D6, D7x, Lite3, Lite4: 4; D7: 5; Lite0-Lite2, Lite3x: 3.
        scales_per_octave: number of scales ``2 ** (i / n)``.
        aspect_ratios: width / height, or pairs (width factor, height factor) such as
            ``(1.4, 0.7)``, which older ports were trained with; see
            :func:`~effdet_plugin.ops.anchors.anchor_sides`. mmdet's ``ratios`` are height / width,
            hence the other name.
        stride_mode: ``'fractional'``, or ``'power_of_two'`` to use ``strides`` always.

    Raises:
        ConfigError: unknown ``stride_mode``; not one ``octave_base_scale`` per level.
    """

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        octave_base_scale: float | Sequence[float] = 4.0,
        scales_per_octave: int = 3,
        aspect_ratios: Sequence[AspectRatio] = (1.0, 2.0, 0.5),
        stride_mode: str = 'fractional',
    ) -> None:
        if stride_mode not in STRIDE_MODES:
            raise ConfigError(
                f'stride_mode={stride_mode!r}; choose one of {", ".join(STRIDE_MODES)}'
            )
        scales = (
            [octave_base_scale] * len(strides)
            if isinstance(octave_base_scale, (int, float))
            else octave_base_scale
        )
        if len(scales) != len(strides):
            raise ConfigError(
                f'octave_base_scale has {len(scales)} values for {len(strides)} levels'
            )
        self.sides = [anchor_sides(scale, scales_per_octave, aspect_ratios) for scale in scales]
        self.stride_mode = stride_mode
        # The key has the map sizes, so any number of image sizes can alternate.
        self._cache: OrderedDict[tuple[object, ...], list[Tensor]] = OrderedDict()
        # The base class would make its own square anchors: gen_base_anchors replaces them.
        super().__init__(
            strides=list(strides),
            ratios=[1.0],
            octave_base_scale=1,
            scales_per_octave=1,
            center_offset=0.5,
        )

    def gen_base_anchors(self) -> list[Tensor]:
        """Anchors of the first position of each level, ``(A, 4)`` xyxy float32."""
        return [
            torch.from_numpy(
                level_anchors((1, 1), (stride[1], stride[0]), sides).astype(np.float32)
            )
            for stride, sides in zip(self.strides, self.sides, strict=True)
        ]

    def grid_priors(
        self,
        featmap_sizes: Sequence[tuple[int, int]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cpu',
        image_size: tuple[int, int] | None = None,
    ) -> list[Tensor]:
        """Anchors of all levels; those of the last sizes used are cached on the device.

        Args:
            featmap_sizes: (height, width) of each level's map.
            dtype: of the anchors.
            device: of the anchors.
            image_size: (height, width) of the network input, for fractional strides.

        Returns:
            One ``(height * width * A, 4)`` xyxy tensor per level.
        """
        sizes = tuple((int(h), int(w)) for h, w in featmap_sizes)
        key = (sizes, image_size, dtype, str(device))
        if key not in self._cache:
            # mmdet's strides are (horizontal, vertical).
            strides = [(float(s[1]), float(s[0])) for s in self.strides]
            if image_size is not None and self.stride_mode == 'fractional':
                strides = strides_of(image_size, sizes)
            tables = [level_anchors(*args) for args in zip(sizes, strides, self.sides, strict=True)]
            self._cache[key] = [
                torch.from_numpy(table.astype(np.float32)).to(device=device, dtype=dtype)
                for table in tables
            ]
            if len(self._cache) > SETS_KEPT:
                self._cache.popitem(last=False)  # the least recently used
        self._cache.move_to_end(key)
        return self._cache[key]
