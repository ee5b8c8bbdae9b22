"""COCO folders in which one thing is different, each with what must come of it."""

from pathlib import Path
from typing import Any

from layout_builder import FIRST, HEIGHT, WIDTH, Layout, coco, dump, save_images, text

TWO = ['images/0.jpg', 'images/1.jpg']


def plain(root: Path, **changes: Any) -> dict[str, Any]:
    """Two images and their document, not yet written."""
    save_images(root, TWO)
    return coco(['0.jpg', '1.jpg'], **changes)


def changed(key: str, **fields: Any) -> Any:
    """A folder in which the first entry of a list has other fields; None removes one."""

    def build(root: Path) -> None:
        document = plain(root)
        entry = document[key][0]
        entry.update(fields)
        for name in [name for name, value in fields.items() if value is None]:
            del entry[name]
        dump(root / 'annotations.json', document)

    return build


def without(*keys: str) -> Any:
    def build(root: Path) -> None:
        document = plain(root)
        dump(root / 'a.json', {key: value for key, value in document.items() if key not in keys})

    return build


def two_names_of_one_id(root: Path) -> None:
    document = plain(root)
    document['categories'][1]['id'] = 1
    dump(root / 'annotations.json', document)


def images_of_masks(root: Path) -> None:
    save_images(root, ['masks/0.jpg', 'masks/1.jpg'])
    dump(root / 'annotations.json', coco(['0.jpg', '1.jpg']))


def foreign(name: str, content: str = 'x') -> Any:
    def build(root: Path) -> None:
        save_images(root, TWO)
        text(root / name, content)

    return build


COCO_FAULTS = {
    'two_names_of_one_id': Layout(
        two_names_of_one_id, error=True, says=('circle', 'square'), finds=('category_id_double',)
    ),
    'images_of_masks': Layout(images_of_masks),
    'nothing_but_images': Layout(foreign('README.txt'), error=True, says=('no annotations',)),
    'tfrecord': Layout(foreign('train.tfrecord'), error=True, says=('TFRecord',)),
    'zip': Layout(foreign('data.zip'), error=True, says=('unpack',)),
    'datumaro': Layout(
        foreign('annotations/default.json', '{"items": [], "categories": {}}'),
        error=True,
        says=('Datumaro',),
    ),
    'label_studio_own': Layout(
        foreign('export.json', '[{"annotations": [], "data": {}}]'), error=True, says=('Studio',)
    ),
    'results_alone': Layout(
        foreign('results.json', '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]'), error=True
    ),
    'other_json_and_yaml_beside': Layout(
        lambda root: (
            changed('images')(root),
            text(root / 'package.json', '{"name": 1, // no json'),
            text(root / 'compose.yaml', 'train: {{ x }}: ['),
        )[0]
    ),
    'category_null': Layout(
        changed('annotations', category_id=None),
        error=True,
        says=('1001',),
        finds=('category_unknown',),
    ),
    'category_unknown': Layout(
        changed('annotations', category_id=9),
        error=True,
        says=('1001', '9'),
        finds=('category_unknown',),
    ),
    'image_unknown': Layout(
        changed('annotations', image_id=99),
        error=True,
        says=('1001', '99'),
        finds=('image_unknown',),
    ),
    'box_nan': Layout(
        changed('annotations', bbox=[1, float('nan'), 2, 3]),
        error=True,
        says=('1001', 'nan'),
        finds=('box_not_finite',),
    ),
    'box_infinite': Layout(
        changed('annotations', bbox=[1, 2, float('inf'), 3]),
        error=True,
        says=('1001',),
        finds=('box_not_finite',),
    ),
    'box_short': Layout(
        changed('annotations', bbox=[1, 2, 3]),
        error=True,
        says=('1001',),
        finds=('box_not_numbers',),
    ),
    'box_of_words': Layout(
        changed('annotations', bbox=['a', 2, 3, 4]),
        error=True,
        says=('1001',),
        finds=('box_not_numbers',),
    ),
    'box_of_texts': Layout(changed('annotations', bbox=[str(side) for side in FIRST])),
    'box_negative': Layout(
        changed('annotations', bbox=[40, 40, -10, 10]), boxes=3, finds=('box_negative',)
    ),
    'no_box_no_polygon': Layout(
        changed('annotations', bbox=None), error=True, says=('1001',), finds=('box_missing',)
    ),
    'image_id_double': Layout(
        changed('images', id=2), error=True, says=('2',), finds=('image_id_double',)
    ),
    'image_without_name': Layout(
        changed('images', file_name=None),
        error=True,
        says=('file_name',),
        finds=('image_id_missing',),
    ),
    'image_missing': Layout(
        changed('images', file_name='9.jpg'), error=True, says=('9.jpg',), finds=('image_missing',)
    ),
    'other_suffix': Layout(
        changed('images', file_name='0.png'), says=('0.png', '0.jpg'), finds=('image_other_suffix',)
    ),
    'size_swapped': Layout(changed('images', width=HEIGHT, height=WIDTH), finds=('size_swapped',)),
    'no_categories': Layout(without('categories'), error=True, finds=('category_unknown',)),
    'no_annotations': Layout(without('annotations'), error=True, finds=('nothing_to_learn',)),
}
