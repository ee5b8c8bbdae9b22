"""The table of networks: what our configs build, counted, beside the reference's figures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effdet_plugin.benchmark.counting import build_on_meta, count_costs
from effdet_plugin.benchmark.published import PUBLISHED, Published
from effdet_plugin.config import Options, load

CLASSES_OF_THE_REFERENCE = 90  # what its figures are counted with


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        name: ``d0``.
        config: The config file.
        image_size: (height, width) in pixels.
        parameters: Counted in ours.
        multiply_adds: Counted in ours, all convolutions, one image.
        published: The reference's; None for a config that is not one of its networks.
    """

    name: str
    config: str
    image_size: tuple[int, int]
    parameters: int
    multiply_adds: int
    published: Published | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json, with the differences to the reference's counts."""
        plain: dict[str, Any] = asdict(self)
        if self.published:
            plain['published'] = self.published._asdict()
            plain['parameters_difference'] = self.parameters - self.published.parameters
            plain['multiply_adds_difference'] = self.multiply_adds - self.published.multiply_adds
        return plain


def count_row(
    config: Path,
    *,
    num_classes: int = CLASSES_OF_THE_REFERENCE,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
) -> Row:
    """Build a config's network on the meta device and count it.

    Args:
        config: A config file.
        num_classes: In place of the config's.
        image_size: In place of the config's; see `effdet_plugin.config.parse_size`.
        options: ``--cfg-options``.

    Raises:
        ConfigError: The config cannot be used.
    """
    cfg = load(config, image_size=image_size, options=options)
    size = (int(cfg.image_size[0]), int(cfg.image_size[1]))
    costs = count_costs(build_on_meta(cfg.model, num_classes), size)
    name = config.stem.removesuffix('_coco')
    return Row(name, str(config), size, costs.parameters, costs.multiply_adds, PUBLISHED.get(name))


def reference_configs(root: Path) -> list[Path]:
    """Return the configs of the reference's networks below a clone's folder.

    Args:
        root: The clone; configs in the working folder are named relative to it.
    """
    paths = [root / 'configs' / 'efficientdet' / f'{name}_coco.py' for name in PUBLISHED]
    here = Path.cwd()
    return [path.relative_to(here) if path.is_relative_to(here) else path for path in paths]


# Header, and the cell of a row beside the reference's figures.
_COLUMNS: Sequence[tuple[str, Callable[[Row, Published], str]]] = (
    ('model', lambda row, _: row.name),
    ('size', lambda row, _: '{1}x{0}'.format(*row.image_size)),
    ('parameters', lambda row, _: f'{row.parameters:,}'),
    ('reference', lambda _, ref: f'{ref.parameters:,}'),
    ('multiply-adds', lambda row, _: f'{row.multiply_adds:,}'),
    ('reference', lambda _, ref: f'{ref.multiply_adds:,}'),
    ('its FLOPs', lambda _, ref: ref.flops or '-'),
    ('its AP val', lambda _, ref: f'{ref.ap:.1f}'),
)


def to_cells(rows: Iterable[Row]) -> list[list[str]]:
    """Return the table's cells, header first; ``-`` where the reference has no figure."""
    cells = [[header for header, _ in _COLUMNS]]
    for row in rows:
        cells.append(
            [
                '-'
                if row.published is None and header in ('reference', 'its FLOPs', 'its AP val')
                else cell(row, row.published or Published(0, 0, 0))
                for header, cell in _COLUMNS
            ]
        )
    return cells


def to_text(rows: Iterable[Row]) -> str:
    """Return an aligned table for a console."""
    cells = to_cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def to_markdown(rows: Iterable[Row]) -> str:
    """Return the table for the README, each name a link to its config."""
    lines = ["| config | size | parameters | multiply-adds | AP val2017, the reference's |"]
    lines.append('| :-- | --: | --: | --: | --: |')
    for row in rows:
        ap = f'{row.published.ap:.1f}' if row.published else '-'
        lines.append(
            f'| [{row.name}]({row.config}) | {row.image_size[1]}x{row.image_size[0]} '
            f'| {row.parameters:,} | {row.multiply_adds / 1e9:,.2f}G | {ap} |'
        )
    return '\n'.join(lines)
