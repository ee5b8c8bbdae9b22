"""Tiled inference: large images are cut into overlapping tiles, so small objects stay large."""

import re
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from effdet_plugin.datasets.tile_views import check_tiles
from effdet_plugin.errors import ConfigError
from effdet_plugin.inference.tta import TTA, apply_tta, change_pipelines
from effdet_plugin.models.detectors.tta_model import check_merge

OVERLAP = 0.2
# No grid has so many tiles on a side, and no tile so few pixels.
_LARGEST_GRID = 31
# The first step that belongs to a tile, not to the image: it sets the size of the network input.
_SIZE_STEPS = ('LetterBox', 'Resize', 'TestTimeAug')


@dataclass(frozen=True)
class Tiles:
    """The tiles of an image, and how their detections are merged.

    Attributes:
        grid: Number of (rows, columns).
        tile_size: (height, width) in pixels of the image, instead of ``grid``.
        overlap: Share of a tile's side that neighbours have in common, at least. An object that is
            longer than this is whole in no tile, only in the whole image.
        whole: Whether the whole image is a view, too.
        merge: ``'nms'`` or ``'wbf'``, see `effdet_plugin.models.detectors.TiledDetector`.
        max_per_img: Number of detections kept per image.

    Raises:
        ConfigError: A value cannot be.
    """

    grid: tuple[int, int] | None = None
    tile_size: tuple[int, int] | None = None
    overlap: float = OVERLAP
    whole: bool = True
    merge: str = 'nms'
    max_per_img: int = 1000

    def __post_init__(self) -> None:
        """Check the values."""
        check_tiles(self.grid, self.tile_size, self.overlap)
        check_merge(self.merge)

    @classmethod
    def parse(
        cls,
        text: 'str | int | Tiles',
        overlap: float | None = None,
        whole: bool = True,
        merge: str = 'nms',
    ) -> 'Tiles':
        """Read what a command line says.

        Args:
            text: ``WIDTHxHEIGHT``: two numbers of at most 31 are a grid (``3x2``: 3 columns and 2
                rows), others pixels (``640x480``); one number is a square in pixels (``640``).
                A ``px`` at the end always means pixels. What follows a colon is the overlap
                (``640:0.3``). `Tiles` are returned as they are.
            overlap: See `Tiles`; None: that of the text, else 0.2.
            whole: See `Tiles`.
            merge: See `Tiles`.

        Raises:
            ConfigError: It is none of these, or has an overlap beside ``overlap``.
        """
        if isinstance(text, Tiles):
            return text
        match = re.fullmatch(
            r'(\d{1,6})(?:[xX](\d{1,6}))?( ?px)?(?::(\d?\.?\d+))?', str(text).strip()
        )
        if not match:
            raise ConfigError(
                f'tiles {text!r}: give a grid (2x2, columns x rows) or a size in pixels (640, '
                '640x480), with an overlap after a colon if it is not 0.2 (640:0.3)'
            )
        width, height = int(match[1]), int(match[2] or match[1])
        if match[4] and overlap is not None:
            raise ConfigError(f'tiles {text!r}: has an overlap, so {overlap} cannot be one, too')
        overlap = float(match[4] or OVERLAP) if overlap is None else overlap
        if match[2] and not match[3] and max(width, height) <= _LARGEST_GRID:
            return cls(grid=(height, width), overlap=overlap, whole=whole, merge=merge)
        return cls(tile_size=(height, width), overlap=overlap, whole=whole, merge=merge)


def apply_views(
    cfg: Config, tta: TTA | None, tiles: Tiles | str | int | None, batch_size: int | None = None
) -> dict[str, Any] | None:
    """Change a config's test pipelines for test-time augmentation, tiles, or each tile's views.

    Args:
        cfg: See `apply_tiles`.
        tta: None: no augmentation.
        tiles: What `Tiles.parse` takes; None: no tiles.
        batch_size: See `apply_tiles`.

    Returns:
        The config of the model that merges the views, without its ``module``; None without views.

    Raises:
        ConfigError: A value cannot be, or the pipeline has no step that sets a size.
    """
    inner = apply_tta(cfg, tta) if tta is not None else None
    if tiles is None:
        return inner
    return apply_tiles(cfg, Tiles.parse(tiles), inner, batch_size)


def apply_tiles(
    cfg: Config, tiles: Tiles, inner: dict[str, Any] | None = None, batch_size: int | None = None
) -> dict[str, Any]:
    """Change a config's test pipelines so that they give the tiles of each image.

    Args:
        cfg: Changed in place: the pipelines of ``test_dataloader``.
        tiles: The tiles, and how they are merged.
        inner: What `effdet_plugin.inference.apply_tta` returned for the same config: each tile has
            those views.
        batch_size: Number of tiles per forward pass; None: the number of images in the batch.

    Returns:
        The config of the model that merges the tiles, without its ``module``: what mmengine's
        ``PrepareTTAHook`` takes.

    Raises:
        ConfigError: The pipeline has no step that sets a size.
    """
    change_pipelines(cfg, lambda steps: _tiled(list(steps), tiles))
    return {
        'type': 'TiledDetector',
        'inner': inner,
        'merge': tiles.merge,
        'max_per_img': tiles.max_per_img,
        'batch_size': batch_size,
    }


def _tiled(pipeline: list[dict[str, Any]], tiles: Tiles) -> list[dict[str, Any]]:
    """Return a test pipeline whose steps from the resize on see tiles."""
    index = next((i for i, step in enumerate(pipeline) if step['type'] in _SIZE_STEPS), None)
    if index is None:
        raise ConfigError(
            'test_dataloader: the pipeline has no LetterBox or Resize that tiles could come before'
        )
    step = dict(
        type='TileViews',
        transforms=pipeline[index:],
        grid=tiles.grid,
        tile_size=tiles.tile_size,
        overlap=tiles.overlap,
        whole=tiles.whole,
    )
    return [*pipeline[:index], step]
