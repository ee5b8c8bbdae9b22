"""YOLO and csv folders of the labelling tools, each with what must come of it."""

import json
from pathlib import Path
from typing import Any

from layout_builder import FIRST, Layout, save_image, save_images, text, yolo

NAMES = 'names: [circle, square]\n'


def _described(yaml: str, train: str = 'images/train', val: str = 'images/val') -> Any:
    """Two training images and a validation image with their text files, and a data.yaml."""

    def build(root: Path) -> None:
        for folder, stems in ((train, ('0', '1')), (val, ('2',))):
            for stem in stems:
                save_image(root / folder / f'{stem}.jpg')
                yolo(root / folder.replace('images', 'labels') / f'{stem}.txt')
        text(root / 'data.yaml', yaml)

    return build


def _rows(content: str, yaml: str = NAMES) -> Any:
    """Two images; the text file of the first is given."""

    def build(root: Path) -> None:
        save_images(root, ['images/0.jpg', 'images/1.jpg'])
        text(root / 'labels/0.txt', content)
        yolo(root / 'labels/1.txt')
        text(root / 'data.yaml', f'train: images\n{yaml}')

    return build


def cvat(prefix: str) -> Any:
    def build(root: Path) -> None:
        for stem in ('0', '1'):
            save_image(root / f'obj_train_data/a/{stem}.png')
            yolo(root / f'obj_train_data/a/{stem}.txt')
        text(root / 'obj.names', 'circle\nsquare\n')
        text(
            root / 'train.txt', f'{prefix}obj_train_data/a/0.png\n{prefix}obj_train_data/a/1.png\n'
        )
        described = (
            f'classes = 2\nnames = {prefix}obj.names\ntrain = {prefix}train.txt\nbackup = x/\n'
        )
        text(root / 'obj.data', described)

    return build


def ultralytics_list(root: Path) -> None:
    _described('path: ./\ntrain: train.txt\nnames:\n  0: circle\n  1: square\n')(root)
    text(root / 'train.txt', './images/train/0.jpg\n./images/train/1.jpg\n')


def label_studio(root: Path) -> None:
    save_images(root, ['images/ab-0.jpg', 'images/cd-1.jpg'])
    yolo(root / 'labels/ab-0.txt')
    yolo(root / 'labels/cd-1.txt')
    text(root / 'classes.txt', 'circle\nsquare\n')
    notes = {'categories': [{'id': '0', 'name': 'circle'}], 'info': {'year': 2026}}
    text(root / 'notes.json', json.dumps(notes))


def own_names_in_each_folder(root: Path) -> None:
    for split, names in (('train', 'circle\nsquare\n'), ('val', 'square\ncircle\n')):
        save_image(root / split / f'{split}.jpg')
        yolo(root / split / f'{split}.txt', [(0, FIRST)])
        text(root / split / 'classes.txt', names)
    yolo(root / 'train/train.txt')


def without_names(root: Path) -> None:
    save_image(root / '0.jpg')
    yolo(root / '0.txt')


def empty_val(root: Path) -> None:
    _described(f'train: images/train\nval: images/val\n{NAMES}')(root)
    (root / 'images/val/2.jpg').unlink()


def label_without_image(root: Path) -> None:
    _described(f'train: images/train\n{NAMES}')(root)
    (root / 'images/train/1.jpg').unlink()


def two_yamls(root: Path) -> None:
    _described(f'train: images/train\n{NAMES}')(root)
    (root / 'data.yaml').rename(root / 'a.yaml')
    text(root / 'b.yaml', f'train: [images/val, images/train]\n{NAMES}')


def csv(content: str, names: tuple[str, ...] = ('0.jpg', '1.jpg')) -> Any:
    def build(root: Path) -> None:
        save_images(root / 'images', names)
        text(root / 'table.csv', content)

    return build


def tensorflow_csv(root: Path) -> None:
    header = 'filename,width,height,class,xmin,ymin,xmax,ymax\n'
    save_images(root, ['images/train/0.jpg', 'images/train/1.jpg', 'images/test/2.jpg'])
    row = '96,64,circle,10,10,40,40\n'
    square = row.replace('circle', 'square')
    text(root / 'train_labels.csv', f'{header}0.jpg,{row}0.jpg,{square}1.jpg,{row}')
    text(root / 'test_labels.csv', f'{header}2.jpg,{row}')


def labelme_files(root: Path) -> None:
    save_images(root, ['0.jpg'])
    text(root / '0.json', json.dumps({'shapes': [], 'imagePath': '0.jpg', 'version': '5'}))


POLYGON = '0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n1 0.7 0.7 0.2 0.2\n'
AUTOML = (
    'UNASSIGNED,gs://bucket/x/0.jpg,circle,0.1,0.1,0.4,0.1,0.4,0.5,0.1,0.5\n'
    'UNASSIGNED,gs://bucket/x/1.jpg,square,0.2,0.2,,,0.6,0.6,,\n'
)
SALAD = (
    'TRAINING,images/0.jpg,circle,0.1,0.1,,,0.4,0.5,,\n'
    'VALIDATION,images/1.jpg,square,0.2,0.2,,,0.6,0.6,,\n'
    'TEST,images/2.jpg\n'
)
OPEN_IMAGES = (
    'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n'
    '0,x,circle,1,0.1,0.4,0.2,0.5\n1,x,square,1,0.1,0.4,0.2,0.5\n'
)
RETINANET = 'images/0.jpg,10,10,40,40,circle\nimages/1.jpg,,,,,\nimages/0.jpg,1,1,9,9,square\n'

YOLO_LAYOUTS = {
    'ultralytics': Layout(
        _described(f'path: .\ntrain: images/train\nval: images/val\n{NAMES}'), val=1, boxes=6
    ),
    'roboflow': Layout(
        _described(
            f'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n{NAMES}',
            'train/images',
            'valid/images',
        ),
        val=1,
        boxes=6,
    ),
    'roboflow_download': Layout(
        _described(
            f'train: cells-3/train/images\nval: cells-3/valid/images\n{NAMES}',
            'train/images',
            'valid/images',
        ),
        val=1,
        boxes=6,
    ),
    'fiftyone_windows': Layout(
        _described(
            'path: C:\\Users\\me\\export\ntrain: .\\images\\train\\\n'
            'validation: .\\images\\val\\\nnames:\n  0: circle\n  1: square\n'
        ),
        val=1,
        boxes=6,
    ),
    'other_machine': Layout(
        _described(f'train: /home/you/x/images/train\nval: /home/you/x/images/val\n{NAMES}'),
        val=1,
        boxes=6,
    ),
    'list_of_folders': Layout(
        _described(f'train: [images/train, images/val]\n{NAMES}'), train=3, boxes=6
    ),
    'same_train_and_val': Layout(
        _described(f'train: images/train\nval: images/train\n{NAMES}'),
        val=2,
        boxes=8,
        says=('train and val',),
        finds=('image_in_two_splits',),
    ),
    'no_train_key': Layout(_described(NAMES), val=1, boxes=6),
    'train_not_there': Layout(
        _described(f'train: nowhere\n{NAMES}'), error=True, says=('data.yaml', 'nowhere')
    ),
    'empty_val': Layout(empty_val, says=('val',), finds=('split_empty',)),
    'nc_disagrees': Layout(
        _described(f'train: images/train\nnc: 3\n{NAMES}'), says=('nc', '3'), finds=('names_count',)
    ),
    'names_missing': Layout(
        _described('train: images/train\nnc: 2\n'), error=True, says=('data.yaml', 'names')
    ),
    'names_like_yes_and_no': Layout(
        _described('train: images/train\nnames: [yes, no]\n'), classes=('yes', 'no')
    ),
    'names_with_gaps': Layout(
        _rows('7 0.5 0.5 0.2 0.2\n', 'names:\n  0: circle\n  1: square\n  7: other\n'),
        boxes=3,
        classes=('circle', 'square', 'other'),
    ),
    'broken_yaml': Layout(
        _described('train: images\nnames: [circle, square\n'), error=True, says=('data.yaml',)
    ),
    'two_yamls': Layout(two_yamls, error=True, says=('a.yaml', 'b.yaml', '--data')),
    'yaml_of_two': Layout(two_yamls, data='b.yaml', train=3, boxes=6),
    'cvat': Layout(cvat('data/')),
    'cvat_plain': Layout(cvat('')),
    'cvat_ultralytics': Layout(ultralytics_list),
    'label_studio': Layout(label_studio),
    'labelimg_names_per_folder': Layout(own_names_in_each_folder, train=1, val=1, boxes=3),
    'without_names': Layout(without_names, error=True, says=('classes.txt',)),
    'label_without_image': Layout(
        label_without_image, error=True, says=('1.txt',), finds=('image_missing',)
    ),
    'polygon_and_box_rows': Layout(_rows(POLYGON)),
    'confidence': Layout(_rows('0 0.5 0.5 0.2 0.2 0.93\n'), boxes=3, finds=('box_confidence',)),
    'key_points': Layout(
        _rows('0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 2\n', f'kpt_shape: [2, 3]\n{NAMES}'), boxes=3
    ),
    'empty_text': Layout(_rows(''), boxes=2),
    'repeated_row': Layout(_rows('0 0.5 0.5 0.2 0.2\n' * 2), boxes=3, finds=('box_repeated',)),
    'a_little_outside': Layout(_rows('0 0.95 0.5 0.11 0.2\n'), boxes=3, finds=('box_clipped',)),
    'pixels': Layout(
        _rows('0 48 32 20 20\n'),
        error=True,
        says=('0.txt', 'line 1', '0 to 1'),
        finds=('box_relative',),
    ),
    'class_beyond_names': Layout(
        _rows('5 0.5 0.5 0.2 0.2\n'), error=True, says=('0.txt', '5'), finds=('class_unknown',)
    ),
    'class_with_fraction': Layout(
        _rows('0.5 0.5 0.5 0.2 0.2\n'), error=True, says=('0.txt',), finds=('class_unknown',)
    ),
    'words': Layout(
        _rows('circle 0.5 0.5 0.2 0.2\n'),
        error=True,
        says=('0.txt', 'line 1'),
        finds=('row_malformed',),
    ),
    'short_row': Layout(
        _rows('0 0.5 0.5 0.2\n'), error=True, says=('0.txt', 'line 1'), finds=('row_malformed',)
    ),
    'nan': Layout(
        _rows('0 nan 0.5 0.2 0.2\n'),
        error=True,
        says=('0.txt', 'line 1'),
        finds=('box_not_finite',),
    ),
    'labelme_files': Layout(labelme_files, error=True, says=('labelme',)),
}
CSV_LAYOUTS = {
    'automl': Layout(csv(AUTOML), boxes=2),
    'model_maker': Layout(csv(SALAD, ('0.jpg', '1.jpg', '2.jpg')), train=1, val=1, boxes=2),
    'tensorflow': Layout(tensorflow_csv, boxes=3),
    'open_images': Layout(csv(OPEN_IMAGES), boxes=2),
    'retinanet': Layout(csv(RETINANET), boxes=2),
    'pixels_in_model_maker': Layout(
        csv(SALAD.replace('0.4', '40'), ('0.jpg', '1.jpg', '2.jpg')),
        error=True,
        says=('table.csv', 'line 1'),
        finds=('box_relative',),
    ),
    'unknown_set': Layout(csv(SALAD.replace('TEST', 'TEXT')), error=True, says=('TEXT', 'line 3')),
    'no_number': Layout(
        csv(AUTOML.replace('0.6', 'x')), error=True, says=('line 2',), finds=('box_not_numbers',)
    ),
    'missing_image': Layout(
        csv(AUTOML, ('0.jpg',)), error=True, says=('1.jpg',), finds=('image_missing',)
    ),
}
