"""The kinds of fault that readers note, and how each is said."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal['error', 'remark']


@dataclass(frozen=True)
class Kind:
    """One kind of fault: how serious it is and how it is said.

    Args:
        severity: ``error`` stops a training, ``remark`` is one line in its log.
        one: The sentence for a single case; ``{detail}`` stands for what is special about it.
        many: The sentence for several; ``{n}`` is their number, ``{detail}`` that of the first.
    """

    severity: Severity
    one: str
    many: str


def _error(one: str, many: str) -> Kind:
    return Kind('error', one, many)


def _remark(one: str, many: str) -> Kind:
    return Kind('remark', one, many)


#: Every kind by its name; the names are stable, a checker may ask for them.
KINDS: dict[str, Kind] = {
    # Boxes.
    'box_not_finite': _error(
        'the box {detail} holds NaN or an infinite number: correct or remove it',
        '{n} boxes hold NaN or an infinite number: correct or remove them',
    ),
    'box_not_numbers': _error(
        'the box {detail} is not made of four numbers: correct or remove it',
        '{n} boxes are not made of four numbers: correct or remove them',
    ),
    'boxes_are_corners': _error(
        'the boxes look like corners (x1, y1, x2, y2), COCO has x, y, width, height: {detail} '
        'leave their picture as written and all of them fit as corners; convert them',
        'in {n} files the boxes look like corners (x1, y1, x2, y2), COCO has x, y, width, '
        'height: {detail} leave their picture as written; convert them',
    ),
    'box_relative': _error(
        'numbers beyond 2 where parts of the picture (0 to 1) belong: {detail}; divide pixels '
        'by width and height',
        '{n} boxes have numbers beyond 2 where parts of the picture (0 to 1) belong; divide '
        'pixels by width and height',
    ),
    'box_clipped': _remark(
        'a box reaches outside its picture: clipped',
        '{n} boxes reach outside their pictures: clipped',
    ),
    'box_outside': _remark(
        'a box lies wholly outside its picture: dropped',
        '{n} boxes lie wholly outside their pictures: dropped',
    ),
    'box_empty': _remark(
        'a box has no extent (zero width or height): dropped',
        '{n} boxes have no extent (zero width or height): dropped',
    ),
    'box_negative': _remark(
        'a box has negative width or height: dropped',
        '{n} boxes have negative width or height: dropped',
    ),
    'box_thin': _remark(
        'a box is thinner than one pixel: dropped',
        '{n} boxes are thinner than one pixel: dropped',
    ),
    'box_swapped': _remark(
        'a box has its corners swapped (min above max): put in order',
        '{n} boxes have their corners swapped (min above max): put in order',
    ),
    'box_repeated': _remark(
        'a row is written twice: one copy kept',
        '{n} rows repeat another row of their file: one copy kept',
    ),
    'box_from_outline': _remark(
        'no box but an outline: its extent is the box',
        '{n} objects have no box but an outline: its extent is the box',
    ),
    'box_second': _remark(
        'an object has several boxes: the first is taken',
        '{n} objects have several boxes: the first is taken',
    ),
    'box_missing': _error(
        'an object has no box: draw it or remove the object',
        '{n} objects have no box: draw them or remove the objects',
    ),
    'box_confidence': _remark(
        'a sixth number (a confidence) is not used',
        '{n} rows have a sixth number (a confidence): not used',
    ),
    'difficult': _remark(
        'an object is marked difficult: ignored in training and evaluation, as VOC does',
        '{n} objects are marked difficult: ignored in training and evaluation, as VOC does',
    ),
    # Rows and ids.
    'row_malformed': _error(
        'this row cannot be read: {detail}',
        '{n} rows cannot be read: {detail}',
    ),
    'category_unknown': _error(
        'category {detail} is not in the list of categories',
        '{n} objects have a category that is not in the list of categories: {detail}',
    ),
    'class_unknown': _error(
        'class {detail}',
        '{n} rows have a class beyond the names: class {detail}',
    ),
    'category_id_double': _error(
        'category id {detail} stands for two names: give each its own',
        '{n} category ids stand for two names: give each its own; {detail}',
    ),
    'class_missing': _error(
        'an object has no class name: give it one or remove the object',
        '{n} objects have no class name: give them one or remove the objects',
    ),
    'image_unknown': _error(
        'this annotation belongs to image id {detail}, which is not in the list of images',
        '{n} annotations belong to an image id that is not in the list of images: {detail}',
    ),
    'image_id_double': _error(
        'image id {detail} is used twice (duplicate): give each picture its own',
        '{n} image ids are used twice (duplicate): give each picture its own; {detail}',
    ),
    'image_id_missing': _error(
        'an image entry has no id or no file_name',
        '{n} image entries have no id or no file_name',
    ),
    'annotation_id_double': _remark(
        'annotation id {detail} is used twice (duplicate): all are renumbered',
        '{n} annotation ids are duplicates: all are renumbered',
    ),
    # Pictures.
    'image_missing': _error(
        'the picture {detail} is not there',
        '{n} pictures are not there: {detail}',
    ),
    'image_ambiguous': _error(
        'more than one picture fits: {detail}',
        '{n} names fit more than one picture: {detail}',
    ),
    'image_unreadable': _error(
        'the picture cannot be read: {detail}',
        '{n} pictures cannot be read: {detail}',
    ),
    'image_found_elsewhere': _remark(
        'the path {detail} is not here; the picture was found by the last part of its path',
        '{n} paths are not here (absolute, of another machine or folder); the pictures were '
        'found by the last parts of their paths',
    ),
    'image_other_suffix': _remark(
        'the picture was found with another suffix: {detail}',
        '{n} pictures were found with another suffix: {detail}',
    ),
    'image_repeated': _remark(
        'two entries name the same picture (duplicate): their boxes are merged; {detail}',
        '{n} pictures are named by several entries (duplicate): their boxes are merged',
    ),
    'image_unused': _remark(
        'a picture is not named in the annotations: not used',
        '{n} pictures are not named in the annotations: not used',
    ),
    'image_in_two_splits': _remark(
        'a picture is in {detail} both: the evaluation is flattered',
        '{n} pictures are in {detail} both: the evaluation is flattered',
    ),
    'image_without_annotation': _remark(
        'a listed picture has no annotation file: taken as a picture without objects',
        '{n} listed pictures have no annotation file: taken as pictures without objects',
    ),
    'size_swapped': _remark(
        'width and height are exchanged: the own size of the picture is used ({detail})',
        'width and height are exchanged in {n} entries: the own size of the pictures is used',
    ),
    'size_off': _remark(
        'the size differs a little from that of the picture: its own size is used ({detail})',
        'the size of {n} entries differs a little from that of the picture: its own is used',
    ),
    'size_other': _error(
        'the annotations are for a picture of another size (width x height): {detail}; '
        'was it scaled or turned after labelling?',
        '{n} annotations are for a picture of another size (width x height): {detail}; were '
        'they scaled or turned after labelling?',
    ),
    # Classes.
    'class_unused': _remark(
        'class {detail} has no box: it stays a class',
        '{n} classes have no box and stay classes: {detail} and others',
    ),
    'class_group': _remark(
        'category {detail} only groups others and has no box: no class',
        '{n} categories only group others and have no box, they are no classes: {detail}',
    ),
    'class_double': _remark(
        'the class name {detail} is there twice: merged',
        '{n} class names are there twice: merged ({detail})',
    ),
    'class_only_here': _remark(
        'class {detail} is not in the training split',
        '{n} classes are not in the training split: {detail}',
    ),
    'names_count': _remark('{detail}', '{detail}'),
    # Splits and files.
    'split_made': _remark('{detail}', '{detail}'),
    'split_without_boxes': _remark(
        'the {detail} split has no box: AP (validation) cannot be told from it',
        '{n} splits have no box, AP (validation) cannot be told from them: {detail}',
    ),
    'split_empty': _remark('the {detail} split has no pictures', '{n} splits have no pictures'),
    'nothing_to_learn': _error('{detail}', '{detail}'),
    'file_unused': _remark('not used: {detail}', '{n} annotation files are not used: {detail}'),
    'converted': _remark('{detail}', '{detail}'),
    'small_batch': _remark('{detail}', '{detail}'),
    'filtered': _remark('{detail}', '{detail}'),
}
