"""VOC folders of the labelling tools, each with what must come of it."""

from pathlib import Path
from typing import Any

from layout_builder import (
    BOTH,
    FIRST,
    SECOND,
    Layout,
    coco,
    dump,
    save_image,
    save_images,
    text,
    voc,
)


def _beside(**changes: Any) -> Any:
    """Two images with their xmls beside them; the first xml is changed."""

    def build(root: Path) -> None:
        save_images(root, ['0.jpg', '1.jpg'])
        voc(root / '0.xml', **({'filename': '0.jpg'} | changes))
        voc(root / '1.xml', '1.jpg')

    return build


def _written(content: str, encoding: str = 'utf-8') -> Any:
    def build(root: Path) -> None:
        save_images(root, ['0.jpg', '1.jpg'])
        text(root / '0.xml', content, encoding)
        voc(root / '1.xml', '1.jpg')

    return build


def _object(inside: str) -> str:
    return f'<annotation><filename>0.jpg</filename><object>{inside}</object></annotation>'


def _box(*corners: object) -> str:
    names = ('xmin', 'ymin', 'xmax', 'ymax')
    sides = (f'<{name}>{side}</{name}>' for name, side in zip(names, corners, strict=True))
    return f'<bndbox>{"".join(sides)}</bndbox>'


def _tree(root: Path, lists: dict[str, str]) -> None:
    for number in range(3):
        save_image(root / f'JPEGImages/00{number}.jpg')
        save_image(root / f'SegmentationClass/00{number}.png')
        voc(root / f'Annotations/00{number}.xml', f'00{number}.jpg')
    for name, content in lists.items():
        text(root / f'ImageSets/Main/{name}.txt', content)


def original(root: Path) -> None:
    lists = {'train': '000\n001\n', 'val': '002\n', 'trainval': '000\n001\n002\n'}
    _tree(root / 'VOCdevkit/VOC2007', lists | {'circle_train': '000  1\n001 -1\n'})


def cvat(root: Path) -> None:
    _tree(root, {'default': '000\n001\n002\n'})
    labels = '# label:color_rgb:parts:actions\nbackground:0,0,0::\nsquare:1,1,1::\ncircle:2,2,2::\n'
    text(root / 'labelmap.txt', labels)


def trainval_only(root: Path) -> None:
    _tree(root, {'trainval': '000\n001.jpg\n002 1\n'})


def listed_without_xml(root: Path) -> None:
    _tree(root, {'train': '000\n001\n', 'val': '002\n'})
    (root / 'Annotations/001.xml').unlink()


def listed_without_image(root: Path) -> None:
    _tree(root, {'train': '000\n001\n', 'val': '002\n'})
    (root / 'JPEGImages/001.jpg').unlink()


def roboflow(root: Path) -> None:
    for split in ('train', 'valid', 'test'):
        for stem in ('0_jpg.rf.0a', '1_jpg.rf.0b'):
            save_image(root / f'{split}/{stem}.jpg')
            voc(root / f'{split}/{stem}.xml', f'{stem}.jpg')


def unlabelled_image(root: Path) -> None:
    _beside()(root)
    save_image(root / '2.jpg')


def coco_style_names(root: Path) -> None:
    for name in ('a.v1.x', 'b.v1.x'):
        save_image(root / f'images/{name}.jpg')
        voc(root / f'xml/{name}.xml', name, size=None)


def beside_coco(root: Path) -> None:
    _tree(root, {'train': '000\n001\n', 'val': '002\n'})
    dump(root / 'coco/train.json', coco(['000.jpg', '001.jpg', '002.jpg']))


def wrong_root(root: Path) -> None:
    save_images(root, ['images/0.jpg'])
    text(root / 'annotations.xml', '<annotations><image name="0.jpg"/></annotations>')


GBK = f'<?xml version="1.0" encoding="gbk"?>{_object("<name>苹果</name>" + _box(1, 2, 30, 40))}'
SWAPPED = _object('<name>circle</name>' + _box(30, 40, 1, 2))
TWO_BOXES = _object('<name>circle</name>' + _box(1, 2, 30, 40) + _box(1, 2, 20, 30))
DECIMALS = _object('<name>circle</name>' + _box('45.70000076293945', '1.5', '60.25', '20'))
NO_NUMBER = _object('<name>circle</name>' + _box('a', '1.5', '60.25', '20'))
NO_NAME = _object(_box(1, 2, 30, 40))
NO_BOX = _object('<name>circle</name><polygon><x1>3</x1></polygon>')

VOC_LAYOUTS = {
    'original': Layout(original, train=2, val=1, boxes=6),
    'cvat': Layout(cvat, train=3, boxes=6, classes=('square', 'circle')),
    'trainval_only': Layout(trainval_only, train=3, boxes=6),
    'listed_without_xml': Layout(
        listed_without_xml, val=1, boxes=4, finds=('image_without_annotation',)
    ),
    'listed_without_image': Layout(
        listed_without_image, error=True, says=('001',), finds=('image_missing',)
    ),
    'roboflow': Layout(roboflow, val=2, boxes=8),
    'unlabelled_image': Layout(unlabelled_image, says=('2.jpg',), finds=('image_unused',)),
    'dots_in_names': Layout(coco_style_names),
    'wrong_names_inside': Layout(_beside(filename='C:\\pics\\7.bmp')),
    'size_zero': Layout(_beside(size=(0, 0))),
    'size_other': Layout(
        _beside(size=(200, 100)), error=True, says=('0.xml', '200x100'), finds=('size_other',)
    ),
    'unspecified': Layout(_beside(extra='<difficult>Unspecified</difficult>')),
    'no_difficult': Layout(_beside(extra='')),
    'difficult': Layout(_beside(extra='<difficult>1</difficult>'), boxes=2, finds=('difficult',)),
    'right_edge_plus_one': Layout(
        _beside(boxes=[(0, (70, 10, 27, 20)), (1, SECOND)]), says=('0.xml',), finds=('box_clipped',)
    ),
    'no_object': Layout(_beside(boxes=[]), boxes=2),
    'no_extent': Layout(_beside(boxes=[*BOTH, (0, (9, 9, 0, 0))]), finds=('box_empty',)),
    'repeated_box': Layout(_beside(boxes=[*BOTH, (0, FIRST)]), boxes=5),
    'swapped': Layout(_written(SWAPPED), boxes=3, says=('0.xml',), finds=('box_swapped',)),
    'two_boxes': Layout(_written(TWO_BOXES), boxes=3, finds=('box_second',)),
    'decimals': Layout(_written(DECIMALS), boxes=3),
    'gbk': Layout(_written(GBK, 'gbk'), boxes=3, classes=('circle', 'square', '苹果')),
    'no_number': Layout(
        _written(NO_NUMBER), error=True, says=('0.xml', 'object 1'), finds=('box_not_numbers',)
    ),
    'no_name': Layout(
        _written(NO_NAME), error=True, says=('0.xml', 'name'), finds=('class_missing',)
    ),
    'no_box': Layout(_written(NO_BOX), error=True, says=('0.xml',), finds=('box_missing',)),
    'broken': Layout(_written('<annotation><object>'), error=True, says=('0.xml',)),
    'coco_wins_and_says_so': Layout(
        beside_coco,
        train=3,
        boxes=6,
        says=('COCO', '--data', 'Annotations'),
        finds=('file_unused',),
    ),
    'annotations_folder_of_two': Layout(beside_coco, data='Annotations', val=1, boxes=6),
    'cvat_images': Layout(wrong_root, error=True, says=('CVAT',)),
}
