"""COCO folders of the labelling tools, each with what must come of it."""

from pathlib import Path
from typing import Any

from coco_faults import TWO, plain
from layout_builder import (
    BOTH,
    HEIGHT,
    WIDTH,
    Layout,
    categories,
    coco,
    dump,
    save_image,
    save_images,
    text,
)


def original_tree(root: Path) -> None:
    save_images(root, ['train2017/0.jpg', 'train2017/1.jpg', 'val2017/0.jpg'])
    dump(root / 'annotations/instances_train2017.json', coco(['0.jpg', '1.jpg']))
    dump(root / 'annotations/instances_val2017.json', coco(['0.jpg']))
    dump(root / 'annotations/person_keypoints_train2017.json', coco(['0.jpg']))
    dump(root / 'annotations/captions_val2017.json', {'images': [], 'annotations': []})


def roboflow(root: Path) -> None:
    for split in ('train', 'valid', 'test'):
        names = ['a_jpg.rf.0123456789abcdef.jpg', 'b_jpg.rf.0123456789abcdef.jpg']
        save_images(root / split, names)
        document = coco(names, first_image=0)
        group = {'id': 0, 'name': 'shapes', 'supercategory': 'none'}
        for entry in document['categories']:
            entry['supercategory'] = 'shapes'
        document['categories'].insert(0, group)
        dump(root / split / '_annotations.coco.json', document)
    text(root / 'README.roboflow.txt', 'circle square')


def supervisely(root: Path) -> None:
    save_images(root, ['ds/images/0.jpg', 'ds/images/1.jpg'])
    document = coco(['0.jpg', '1.jpg'], first_category=0)
    document['categories'].append({'id': 2, 'name': 'triangle'})
    for entry in document['categories']:
        entry['supercategory'] = entry['name']
    dump(root / 'ds/annotations/coco_instances.json', document)


def cvat_subsets(root: Path) -> None:
    for split in ('train', 'val'):
        save_images(
            root, [f'images/{split}/a/frame_000000.PNG', f'images/{split}/b/frame_000000.PNG']
        )
        names = ['a/frame_000000.PNG', 'b/frame_000000.PNG']
        dump(root / f'annotations/instances_{split}.json', coco(names))


def label_studio(*names: str) -> Any:
    def build(root: Path) -> None:
        save_images(root, ['images/ab12-shot 0.jpg', 'images/cd34-shot 1.jpg'])
        dump(root / 'result.json', coco(names, first_category=0, first_image=0))

    return build


def via(root: Path) -> None:
    document = plain(root)
    for entry in document['images']:
        entry.update(width=-1, height=-1)
    for entry in document['annotations']:
        x, y, width, height = entry.pop('bbox')
        entry['segmentation'] = [x, y, x + width, y, x + width, y + height, x, y + height]
        entry['image_id'] = str(entry['image_id'])
    dump(root / 'via_export_coco.json', document)


def labelme(root: Path) -> None:
    for folder in ('JPEGImages', 'Visualization'):
        save_images(root / folder, ['0.jpg', '1.jpg'])
    document = coco(['JPEGImages/0.jpg', 'JPEGImages/1.jpg'])
    document['categories'].insert(0, {'id': 0, 'name': '_background_', 'supercategory': None})
    dump(root / 'annotations.json', document)


def coco_annotator(root: Path) -> None:
    document = plain(root)
    for entry in document['images']:
        entry.update(path=f'/datasets/x/{entry["file_name"]}', dataset_id=3)
    for entry in document['annotations']:
        entry.update(iscrowd=False, color='#ff0000')
    dump(root / '.exports/coco-1700000000.json', document)


def polygons_only(root: Path) -> None:
    document = plain(root)
    for entry in document['annotations']:
        x, y, width, height = entry['bbox']
        entry['bbox'] = []
        entry['segmentation'] = [[x, y, x + width, y, x + width, y + height]]
    dump(root / 'labels_my-project.json', document)


def fiftyone(root: Path) -> None:
    save_images(root, ['data/0.jpg', 'data/1.jpg'])
    dump(root / 'labels.json', coco(['0.jpg', '1.jpg'], first_category=0) | {'license': None})


def pylabel(root: Path) -> None:
    document = plain(root)
    for entry in document['annotations']:
        entry.update(category_id=str(entry['category_id']), iscrowd=None, segmentation=None)
        entry.update(id=str(entry['image_id']))
    dump(root / 'dataset.json', document)


def box_objects(root: Path) -> None:
    document = plain(root)
    for entry in document['annotations']:
        keys = ('x', 'y', 'width', 'height')
        entry['bbox'] = dict(zip(keys, entry['bbox'], strict=True)) | {'cx': 1, 'cy': 2}
        entry['item_id'] = entry.pop('image_id')
    dump(root / 'export.json', document)


def one_image_twice(root: Path) -> None:
    save_images(root, ['images/0.jpg', 'images/1.jpg'])
    dump(root / 'a.json', coco(['0.jpg', '1.jpg', '0.jpg'], boxes={2: [(0, (1, 1, 9, 9))]}))


def all_crowd(root: Path) -> None:
    document = plain(root)
    for entry in document['annotations']:
        entry['iscrowd'] = 1
    dump(root / 'annotations.json', document)


def mac_zip(root: Path) -> None:
    decomposed, composed = 'u\u0308ber.jpg', '\u00fcber.jpg'
    save_images(root, [f'images/{decomposed}', 'images/1.JPEG'])
    dump(root / 'annotations.json', coco([composed, '1.jpeg']))
    text(root / '._annotations.json', 'Mac OS X')
    text(root / '__MACOSX/images/._1.JPEG', 'Mac OS X')
    text(root / '.DS_Store', 'x')


def train_and_test(root: Path) -> None:
    save_images(root, [*TWO, 'images/2.jpg'])
    dump(root / 'train.json', coco(['0.jpg', '1.jpg']))
    dump(root / 'test.json', coco(['2.jpg'], first_image=9))


def train_beside_unnamed(root: Path) -> None:
    save_images(root, [*TWO, 'images/2.jpg'])
    dump(root / 'annotations.json', coco(['0.jpg', '1.jpg']))
    dump(root / 'val.json', coco(['2.jpg'], first_image=9))


def two_unnamed(root: Path) -> None:
    save_images(root, TWO)
    dump(root / 'cats.json', coco(['0.jpg']))
    dump(root / 'dogs.json', coco(['0.jpg', '1.jpg']))


def broken_val(root: Path) -> None:
    save_images(root, TWO)
    dump(root / 'train.json', coco(['0.jpg']))
    text(root / 'val.json', '{"images": [{"id": 1,')


def moved_folder(root: Path) -> None:
    save_images(root, TWO)
    dump(root / 'a.json', coco(['C:\\Users\\me\\pics\\0.jpg', '/data/pics/1.jpg']))


def only_one_of_two_folders(root: Path) -> None:
    save_images(root, ['b/1.jpg'])
    dump(root / 'a.json', coco(['a/1.jpg', 'b/1.jpg']))


def ambiguous_folders(root: Path) -> None:
    save_images(root, ['a/1.jpg', 'b/1.jpg'])
    dump(root / 'a.json', coco(['1.jpg']))


def lying_images(root: Path) -> None:
    for name in TWO:
        save_image(root / name, size=(HEIGHT, WIDTH), orientation=6)
    dump(root / 'annotations.json', coco(['0.jpg', '1.jpg']))


def boxes_of_the_lying_image(root: Path) -> None:
    for name in TWO:
        save_image(root / name, size=(HEIGHT, WIDTH), orientation=6)
    document = coco(['0.jpg', '1.jpg'], boxes={0: [(0, (10, 70, 20, 20))]})
    for entry in document['images']:
        entry.update(width=HEIGHT, height=WIDTH)
    dump(root / 'annotations.json', document)


def scaled_images(root: Path) -> None:
    for name in TWO:
        save_image(root / name, size=(WIDTH // 2, HEIGHT // 2))
    dump(root / 'annotations.json', coco(['0.jpg', '1.jpg']))


def many_boxes(root: Path) -> None:
    boxes = [(0, (x % 80, x // 80 + 1, 9, 9)) for x in range(300)]
    dump(root / 'annotations.json', plain(root, boxes={0: boxes}))


def same_in_both(root: Path) -> None:
    document = plain(root)
    dump(root / 'train.json', document)
    dump(root / 'val.json', document)


def annotations_elsewhere(root: Path) -> None:
    save_images(root, ['JPEGImages/0.jpg', 'JPEGImages/1.jpg'])
    dump(root / 'coco/train.json', coco(['0.jpg', '1.jpg']))


def cut_image(root: Path) -> None:
    dump(root / 'annotations.json', plain(root))
    path = root / 'images/1.jpg'
    path.write_bytes(path.read_bytes()[:-120])


def text_as_image(root: Path) -> None:
    dump(root / 'annotations.json', plain(root))
    text(root / 'images/1.jpg', 'no image')


def negatives(root: Path) -> None:
    dump(root / 'annotations.json', plain(root, boxes={1: []}))


def no_box_at_all(root: Path) -> None:
    dump(root / 'annotations.json', plain(root, boxes={0: [], 1: []}))


def group_with_box(root: Path) -> None:
    document = plain(root)
    document['categories'] = [{'id': 1, 'name': 'circle'}, *categories(['square'], first=2)]
    document['categories'][1]['supercategory'] = 'circle'
    dump(root / 'annotations.json', document)


def thin_boxes(root: Path) -> None:
    boxes = {0: [*BOTH, (0, (5, 5, 0.4, 9)), (0, (-50, 5, 20, 9)), (1, (5, 5, 0, 9))]}
    dump(root / 'annotations.json', plain(root, boxes=boxes))


COCO_LAYOUTS = {
    'original_tree': Layout(original_tree, train=2, val=1, boxes=6),
    'roboflow': Layout(roboflow, val=2, boxes=8, says=('shapes',), finds=('class_group',)),
    'supervisely': Layout(supervisely, classes=('circle', 'square', 'triangle')),
    'cvat_subsets': Layout(cvat_subsets, val=2, boxes=8),
    'label_studio_windows': Layout(
        label_studio('images\\ab12-shot 0.jpg', 'images\\cd34-shot%201.jpg')
    ),
    'label_studio_media': Layout(
        label_studio(
            '..\\..\\label-studio\\label-studio\\media\\upload\\4\\ab12-shot 0.jpg',
            '/data/local-files/?d=pics/images/cd34-shot%201.jpg',
        ),
        finds=('image_found_elsewhere',),
    ),
    'via_flat_polygon': Layout(via, finds=('box_from_outline',)),
    'labelme_background': Layout(labelme, says=('_background_',), finds=('class_group',)),
    'coco_annotator_hidden': Layout(coco_annotator),
    'makesense_polygons': Layout(polygons_only, finds=('box_from_outline',)),
    'fiftyone': Layout(fiftyone),
    'pylabel_texts': Layout(pylabel, finds=('annotation_id_double',)),
    'box_objects_item_id': Layout(box_objects),
    'one_image_twice': Layout(one_image_twice, boxes=5, finds=('image_repeated',)),
    'all_crowd': Layout(all_crowd, error=True, says=('crowd',), finds=('nothing_to_learn',)),
    'mac_zip': Layout(mac_zip),
    'train_and_test': Layout(train_and_test),
    'unnamed_and_val': Layout(train_beside_unnamed, val=1, boxes=6),
    'two_unnamed': Layout(two_unnamed, error=True, says=('cats.json', 'dogs.json', '--data')),
    'file_of_two': Layout(two_unnamed, data='dogs.json', train=2, boxes=4),
    'broken_val': Layout(broken_val, error=True, says=('val.json',)),
    'moved_folder': Layout(moved_folder, says=('0.jpg',), finds=('image_found_elsewhere',)),
    'missing_in_folder': Layout(
        only_one_of_two_folders, error=True, says=('a/1.jpg',), finds=('image_missing',)
    ),
    'ambiguous_folders': Layout(
        ambiguous_folders, error=True, says=('a/1.jpg', 'b/1.jpg'), finds=('image_ambiguous',)
    ),
    'lying_images': Layout(lying_images),
    'boxes_of_the_lying_image': Layout(
        boxes_of_the_lying_image, error=True, says=('64x96',), finds=('size_other',)
    ),
    'scaled_images': Layout(scaled_images, error=True, says=('48x32',), finds=('size_other',)),
    'many_boxes': Layout(many_boxes, boxes=302),
    'same_in_both': Layout(
        same_in_both, val=2, boxes=8, says=('train and val',), finds=('image_in_two_splits',)
    ),
    'annotations_elsewhere': Layout(annotations_elsewhere, data='coco'),
    'cut_image': Layout(cut_image, error=True, says=('1.jpg',), finds=('image_unreadable',)),
    'text_as_image': Layout(
        text_as_image, error=True, says=('1.jpg',), finds=('image_unreadable',)
    ),
    'negatives': Layout(negatives, boxes=2),
    'no_box_at_all': Layout(no_box_at_all, error=True, finds=('nothing_to_learn',)),
    'group_with_box': Layout(group_with_box),
    'thin_boxes': Layout(thin_boxes, finds=('box_thin', 'box_outside', 'box_empty')),
}
