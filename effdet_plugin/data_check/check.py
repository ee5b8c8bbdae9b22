"""Checks a dataset: the findings of its reader, and those that need all pixels and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effdet_plugin.config import Options, load
from effdet_plugin.data_check.anchors import anchor_reach
from effdet_plugin.data_check.images import Pixels, decode_all, find_copies
from effdet_plugin.data_check.labels import box_pairs
from effdet_plugin.data_check.report import Report
from effdet_plugin.data_check.sheets import CopiedImage, TwiceDrawn
from effdet_plugin.data_check.sources import describe_config
from effdet_plugin.own_data import DatasetDescription, Image, Split, read_dataset
from effdet_plugin.own_data.findings import Findings

# Some boxes of every dataset are reached by no anchor: 4 % of COCO's at 512 pixels.
_MISSED_SHARE = 0.1


@dataclass(frozen=True)
class CheckSettings:
    """The arguments of ``tools/check_dataset.py``.

    Attributes:
        data: A folder, an annotation file, or a config (``.py``) that names its data.
        config: Config of the anchors, where ``data`` is none.
        images: Folder of the images, where they are not beside the annotations.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        cfg_options: See `effdet_plugin.config.merge_options`.
    """

    data: Path
    config: Path
    images: Path | None = None
    image_size: str | int | None = None
    cfg_options: Options | None = None


def check_dataset(settings: CheckSettings) -> Report:
    """Check a dataset; nothing is written.

    Args:
        settings: See `CheckSettings`.

    Returns:
        What was found. Images that cannot be read are not in its description.

    Raises:
        UserError: The data or the config cannot be read at all.
    """
    is_config = settings.data.suffix == '.py'
    path = settings.data if is_config else settings.config
    cfg = load(path, image_size=settings.image_size, options=settings.cfg_options)
    if is_config:
        description = describe_config(cfg)
    else:
        description = read_dataset(settings.data, settings.images)
    findings = Findings()
    # Boxes that are the same are among those that are nearly so.
    unnoted = {'box_same'}
    if not settings.data.is_dir():  # several jsons may name the images of one folder
        unnoted.add('image_unused')
    findings.extend(one for one in description.findings if one.kind not in unnoted)
    description, copies = _check_images(description, findings)
    twice = _check_boxes(description, findings)
    reach = anchor_reach(cfg, description)
    if reach is not None and reach.missed > _MISSED_SHARE:
        detail = f'{reach.missed:.0%} of the boxes are reached by no anchor at IoU 0.5'
        findings.add('anchors_miss', path.name, '', detail)
    description = replace(description, findings=findings.all())
    return Report(settings.data, path.name, description, copies, twice, reach)


def _check_images(
    description: DatasetDescription, findings: Findings
) -> tuple[DatasetDescription, list[CopiedImage]]:
    """Decode all images; return the description without those that cannot be, and the copies."""
    named = [(name, one) for name, split in description.splits.items() for one in split or []]
    paths = list(dict.fromkeys(image.path for _, image in named))
    decoded = dict(zip(paths, decode_all(paths), strict=True))
    is_dark = any(one.kind == 'image_dark' for one in description.findings)
    readable: list[tuple[str, Image, Pixels]] = []
    for name, image in named:
        pixels = decoded[image.path]
        file = _short(description, image)
        if isinstance(pixels, str):
            if not (is_dark and '16 bits' in pixels):  # noted by the reader
                findings.add('image_unreadable', file, '', pixels)
            continue
        if pixels.size != (image.width, image.height):
            written, seen = f'{image.width}x{image.height}', 'x'.join(map(str, pixels.size))
            findings.add('size_other', file, '', f'{written} expected, {seen} decoded')
        for label in image.labels[image.crowd & ~image.difficult]:
            findings.add('box_crowd', file, '', description.classes[label])
        readable.append((name, image, pixels))
    kept = {id(image) for _, image, _ in readable}
    splits = {
        name: split and Split([image for image in split if id(image) in kept])
        for name, split in description.splits.items()
    }
    return replace(description, splits=splits), _note_copies(description, readable, findings)


def _note_copies(
    description: DatasetDescription,
    images: Sequence[tuple[str, Image, Pixels]],
    findings: Findings,
) -> list[CopiedImage]:
    copies = []
    for first, second, exact in find_copies([pixels for _, _, pixels in images]):
        (name, image, _), (other_name, other, _) = images[first], images[second]
        if image.path == other.path:  # noted by the reader
            continue
        how = 'the same pixels as' if exact else 'nearly the same pixels as'
        detail = f'{how} {_short(description, image)}'
        across = name != other_name
        if across:
            detail = f'{other_name}; {detail} in {name}'
        kind = 'image_copy_across' if across else 'image_copy'
        findings.add(kind, _short(description, other), '', detail)
        copies.append(CopiedImage(name, image, other_name, other))
    return copies


def _check_boxes(description: DatasetDescription, findings: Findings) -> list[TwiceDrawn]:
    """Note pairs of boxes that are one object."""
    found = []
    for split in description.splits.values():
        for image in split or []:
            for first, second, iou in box_pairs(image):
                places = [first, second]
                names = dict.fromkeys(description.classes[one] for one in image.labels[places])
                kind = 'box_twice' if len(names) == 1 else 'box_two_classes'
                x1, y1, x2, y2 = (round(side) for side in image.boxes[first])
                detail = f'{" and ".join(names)} at ({x1}, {y1}, {x2}, {y2}), IoU {iou:.2f}'
                row = ''
                if description.source == 'COCO':  # others have no ids
                    row = f'annotations {" and ".join(map(str, image.annotation_ids[places]))}'
                findings.add(kind, _short(description, image), row, detail)
                found.append(TwiceDrawn(image, first, second))
    return found


def _short(description: DatasetDescription, image: Image) -> str:
    inside = image.path.is_relative_to(description.root)
    return str(image.path.relative_to(description.root) if inside else image.path)
