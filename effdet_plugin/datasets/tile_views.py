"""A test pipeline's steps on overlapping tiles of each image."""

import copy
from collections.abc import Sequence
from typing import Any

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.dataset import Compose

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.tiles import TileList, Window, tile_size_of_grid, tile_windows

MIN_TILE_PX = 32
MAX_TILES = 10_000  # more are a mistake in the size, and would fill the memory


@TRANSFORMS.register_module()
class TileViews(BaseTransform):
    """Cut tiles out of ``img``, and run the rest of the pipeline on each of them.

    `effdet_plugin.models.detectors.TiledDetector` takes what it returns.

    Args:
        transforms: The rest of the pipeline, from the step that sets the size to the packing.
        grid: Number of (rows, columns) of tiles.
        tile_size: (height, width) of the tiles in pixels of the image, instead of ``grid``.
        overlap: Share of a tile's side that neighbours have in common, at least; 0 to below 0.9.
        whole: Whether the whole image is a view, too, for objects larger than a tile.

    Raises:
        ConfigError: Not exactly one of ``grid`` and ``tile_size``, or a value that cannot be; on
            use, an image that would have more than 10,000 tiles.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        grid: tuple[int, int] | None = None,
        tile_size: tuple[int, int] | None = None,
        overlap: float = 0.2,
        whole: bool = True,
    ) -> None:
        check_tiles(grid, tile_size, overlap)
        self.transforms = Compose(list(transforms))
        self.grid, self.tile_size, self.overlap, self.whole = grid, tile_size, overlap, whole

    def windows(self, height: int, width: int) -> list[Window]:
        """Return the tiles of an image, the whole one first if it is a view."""
        size = height, width
        tile = self.tile_size or tile_size_of_grid(size, self.grid or (1, 1), self.overlap)
        found = tile_windows(size, tile, self.overlap)
        if len(found) > MAX_TILES:
            raise ConfigError(
                f'tiles of {tile[1]}x{tile[0]} px: an image of {width}x{height} px would have '
                f'{len(found)}; give a larger size (at most {MAX_TILES} tiles)'
            )
        entire = (0, 0, width, height)
        return [entire, *found] if self.whole and found != [entire] else found

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``{'tiles': TileList}``: mmengine's loaders pass it on as it is."""
        image = results['img']
        height, width = image.shape[:2]
        rest = {key: value for key, value in results.items() if key != 'img'}
        windows = self.windows(height, width)
        views = []
        for x1, y1, x2, y2 in windows:
            size = y2 - y1, x2 - x1
            tile = {**copy.deepcopy(rest), 'img': image[y1:y2, x1:x2].copy()}
            views.append(self.transforms({**tile, 'img_shape': size, 'ori_shape': size}))
        return {'tiles': TileList(views, windows, (height, width), self.overlap)}


def check_tiles(
    grid: tuple[int, int] | None, tile_size: tuple[int, int] | None, overlap: float
) -> None:
    """Check the arguments of `TileViews`, which has them in its docstring.

    Raises:
        ConfigError: One of them cannot be.
    """
    if (grid is None) == (tile_size is None):
        raise ConfigError('tiles: give a grid or a tile size, one of both')
    if not 0 <= overlap < 0.9:
        raise ConfigError(f'tiles: the overlap {overlap} must be a share from 0 to below 0.9')
    if grid is not None and min(grid) < 1:
        raise ConfigError(f'tiles: a grid of {grid[1]}x{grid[0]} has no tile')
    if tile_size is not None and min(tile_size) < MIN_TILE_PX:
        raise ConfigError(
            f'tiles: {tile_size[1]}x{tile_size[0]} px is too small, at least {MIN_TILE_PX} are '
            'needed; a grid is written 3x3'
        )
