"""Mutants of annotation files in every format: structure, words and bytes."""

import json
import random
import re
from pathlib import Path
from typing import Any

from layout_builder import coco, dump, save_images, text, voc, yolo
from measure import Action, Maker
from mmengine.config import Config
from mutants import mutant_bytes, mutants_of

from effdet_plugin.inference.fuse import fuse_files, read_truth
from effdet_plugin.own_data import (
    check_annotation_files,
    read_dataset,
    with_validation,
    write_coco,
)

NAMES = ['0.jpg', '1.jpg', '2.jpg', '3.jpg']
GOOD = coco(NAMES)
RESULTS = [
    {'image_id': 1 + number % 4, 'category_id': 1, 'bbox': [1, 2, 30, 40], 'score': 0.5}
    for number in range(8)
]
HEADER = 'filename,width,height,class,xmin,ymin,xmax,ymax\n'
ROW = '{},96,64,circle,10,20,40,36\n'
_WORDS = (
    '', '0', '-1', '1e400', 'nan', '-inf', '1' * 400, '0x10', '1_0', '٣', 'null', '~', '*a', '&a',
    '!!python/name:os.system', '<<: {a: b}', '..', '../../x', '/dev/zero', 'http://[x', 'a' * 5000,
    '\x00', '\x1b[2J', '\u2028', '\ud800', '"', "'", '<', '&lt;', '&a;', ']]>', '[', '{', ',', ';',
    '1,2', '[' * 5000, '{a: ' * 3000, '\ufeff', 'circle', '96', '0.5', '1e9', '9' * 18,
)  # fmt: skip
_TOKEN = re.compile(r'[\w.+-]+|[^\w\s]')


def mutant_text(content: str, chance: random.Random) -> bytes:
    """Words replaced, lines lost, doubled or exchanged, another encoding; or bytes changed."""
    if chance.random() < 0.25:
        return mutant_bytes(content.encode(), chance)
    for _ in range(chance.randint(1, 4)):
        if chance.random() < 0.7 and (tokens := list(_TOKEN.finditer(content))):
            token = chance.choice(tokens)
            content = content[: token.start()] + chance.choice(_WORDS) + content[token.end() :]
        else:
            lines = content.splitlines(keepends=True) or ['']
            where, other = chance.randrange(len(lines)), chance.choice(lines)
            lines[where : where + chance.randint(0, 1)] = [other] * chance.choice((0, 1, 2, 500))
            content = ''.join(lines)
    encoding = chance.choice(('utf-8',) * 6 + ('utf-16', 'latin-1', 'utf-8-sig', 'utf-32'))
    return content.encode(encoding, 'replace' if encoding == 'latin-1' else 'surrogatepass')


def mutant_json(document: Any, chance: random.Random) -> bytes:
    """Values replaced, or what `mutant_text` does to its text."""
    if chance.random() < 0.4:
        return mutant_text(json.dumps(document, indent=1), chance)
    return json.dumps(mutants_of(document, chance), default=str, skipkeys=True).encode()


def read(path: Path) -> Action:
    """Read, check, split and write a dataset."""

    def action() -> None:
        description = with_validation(read_dataset(path).check())
        unprintable = [line for line in description.remarks() if not line.isprintable()]
        assert not unprintable, unprintable
        write_coco(description, path.parent / 'written')

    return action


def json_of_folder(folder: Path, chance: random.Random) -> Action:
    save_images(folder / 'images', NAMES)
    (folder / 'annotations.json').write_bytes(mutant_json(GOOD, chance))
    return read(chance.choice((folder, folder / 'annotations.json')))


def json_of_config(folder: Path, chance: random.Random) -> Action:
    save_images(folder / 'images', NAMES)
    (folder / 'c.json').write_bytes(mutant_json(GOOD, chance))
    source = dict(type='CocoDataset', data_root=str(folder), ann_file='c.json')
    source |= dict(data_prefix=dict(img='images'), metainfo=dict(classes=('circle', 'square')))
    loader = dict(dataset=source)
    cfg = Config(dict(model={}, train_dataloader=loader, work_dir=str(folder / 'work')))
    return lambda: check_annotation_files(cfg).write()


def voc_tree(folder: Path, chance: random.Random) -> Action:
    save_images(folder / 'JPEGImages', NAMES)
    for name in NAMES:
        voc(folder / f'Annotations/{name[:-4]}.xml', name)
    text(folder / 'ImageSets/Main/train.txt', '0\n1\n2\n')
    text(folder / 'ImageSets/Main/val.txt', '3\n')
    return _changed(folder, chance, ('Annotations/1.xml',) * 4 + ('ImageSets/Main/train.txt',))


def xml_of_config(folder: Path, chance: random.Random) -> Action:
    """The xmls that an XMLDataset of a config names."""
    voc_tree(folder, chance)
    source = dict(type='XMLDataset', data_root=str(folder), ann_file='ImageSets/Main/train.txt')
    source |= dict(img_subdir='JPEGImages', ann_subdir='Annotations')
    source |= dict(metainfo=dict(classes=('circle', 'square')))
    loader = dict(dataset=source)
    cfg = Config(dict(model={}, train_dataloader=loader, work_dir=str(folder / 'work')))
    return lambda: check_annotation_files(cfg).write()


def yolo_tree(folder: Path, chance: random.Random) -> Action:
    save_images(folder / 'images', NAMES)
    for name in NAMES:
        yolo(folder / f'labels/{name[:-4]}.txt')
    files = ('labels/1.txt', 'classes.txt')
    text(folder / 'classes.txt', 'circle\nsquare\n')
    if chance.random() < 0.5:
        (folder / 'classes.txt').unlink()
        kpt = chance.choice(('', 'kpt_shape: [17, 3]\n'))
        names = chance.choice(('names: [circle, square]', 'names:\n  0: circle\n  1: square'))
        text(folder / 'data.yaml', f'path: .\ntrain: images\nval: images\nnc: 2\n{kpt}{names}\n')
        files = ('labels/1.txt', 'data.yaml', 'data.yaml')
    return _changed(folder, chance, files)


def darknet(folder: Path, chance: random.Random) -> Action:
    save_images(folder / 'data', NAMES)
    for name in NAMES:
        yolo(folder / f'data/{name[:-4]}.txt')
    text(folder / 'obj.names', 'circle\nsquare\n')
    text(folder / 'train.txt', ''.join(f'data/{name}\n' for name in NAMES))
    text(
        folder / 'obj.data', 'classes = 2\ntrain = train.txt\nvalid = train.txt\nnames=obj.names\n'
    )
    return _changed(folder, chance, ('obj.data', 'obj.names', 'train.txt', 'data/1.txt'))


def table(folder: Path, chance: random.Random) -> Action:
    save_images(folder, NAMES)
    header, row = chance.choice((
        (HEADER, ROW),
        ('', 'TRAIN,{},circle,0.1,0.2,0.4,0.2,0.4,0.6,0.1,0.6\n'),
        ('', '{},10,20,40,36,circle\n'),
        ('ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n', '{},a,b,1,.1,.5,.1,.6\n'),
    ))  # fmt: skip
    text(folder / 'table.csv', header + ''.join(row.format(name) for name in NAMES * 2))
    return _changed(folder, chance, ('table.csv',))


def results(folder: Path, chance: random.Random) -> Action:
    """Two files of results with the annotations that they are of."""
    is_truth = chance.random() < 0.4
    dump(folder / 'a.json', RESULTS)
    (folder / 'b.json').write_bytes(
        json.dumps(RESULTS).encode() if is_truth else mutant_json(RESULTS, chance)
    )
    (folder / 'truth.json').write_bytes(
        mutant_json(GOOD, chance) if is_truth else json.dumps(GOOD).encode()
    )

    def action() -> None:
        truth = read_truth(folder / 'truth.json')
        fuse_files([folder / 'a.json', folder / 'b.json'], folder / 'out.json', truth=truth)

    return action


def _changed(folder: Path, chance: random.Random, names: tuple[str, ...]) -> Action:
    """Change one of the files, and read the folder."""
    path = folder / chance.choice(names)
    path.write_bytes(mutant_text(path.read_text(), chance))
    is_named = path.suffix in ('.yaml', '.data', '.csv') and chance.random() < 0.5
    return read(path if is_named else folder)


KINDS: dict[str, Maker] = {
    'coco': json_of_folder, 'coco of a config': json_of_config, 'voc': voc_tree,
    'xml of a config': xml_of_config,
    'yolo': yolo_tree, 'darknet': darknet, 'csv': table, 'results': results,
}  # fmt: skip
