"""Findings: what is wrong with a dataset, counted by kind, each kind in one line."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from effdet_plugin.errors import escaped

MAX_QUOTED = 200  # letters of a quotation from a file
MAX_PLACES = 20  # places that a finding keeps, so that a dataset full of faults stays small

# The kinds of finding and their messages; {detail} is what is special about a case.
# An error stops a training.
ERRORS = {
    # Boxes.
    'box_not_finite': 'the box {detail} holds NaN or an infinite number: correct or remove it',
    'box_not_numbers': 'the box {detail} is not made of four numbers: correct or remove it',
    'box_missing': 'an object has no box: draw it or remove the object',
    'box_relative': (
        'numbers beyond 2 where parts of the image (0 to 1) belong: {detail}; divide pixels by '
        'width and height'
    ),
    'boxes_are_corners': (
        'the boxes look like corners (x1, y1, x2, y2), but COCO has x, y, width, height: {detail} '
        'leave their image as written, and fit as corners; convert them'
    ),
    'form_other': '{detail}: export them again or convert them',
    'box_angle': (
        'the last number, {detail}, is no confidence (0 to 1) but perhaps an angle: export upright '
        'boxes'
    ),
    'box_keypoints': (
        'the rows look like a box and key points, not like polygons: {detail}; write kpt_shape '
        '(such as [17, 3]) into the data.yaml'
    ),
    'boxes_too_many': 'one image has {detail}: cut it into tiles',
    # Rows, ids and classes.
    'row_malformed': 'this row cannot be read: {detail}',
    'category_unknown': 'category {detail} is not in the list of categories',
    'category_id_double': 'category id {detail} is used for two names: give each its own',
    'class_missing': 'an object has no class name: give it one or remove the object',
    'class_unknown': 'class {detail}',
    'image_unknown': 'this annotation is of image id {detail}, which is not in the list of images',
    'image_id_double': 'image id {detail} is used twice (duplicate): give each image its own',
    'image_id_missing': 'an image entry has no id or no file_name',
    'class_too_long': 'the name of a class has more than 200 letters: {detail}; shorten it',
    # Images.
    'image_missing': 'the image {detail} is missing',
    'image_outside': (
        'the path {detail} leads out of the data folder and is not followed: move the images into '
        'it, or put a link there'
    ),
    'image_dark': 'the image cannot be used: {detail}',
    'image_ambiguous': 'more than one image fits: {detail}',
    'image_unreadable': 'the image cannot be read: {detail}',
    'file_damaged': '{detail}',
    'config_mismatch': 'the config does not fit the data: {detail}',
    'size_other': (
        'the annotations are for an image of another size (width x height): {detail}; was it '
        'scaled or turned after labelling?'
    ),
    'nothing_to_learn': '{detail}',
}
# A remark is one line in the log of a training.
REMARKS = {
    # Boxes.
    'box_clipped': 'a box reaches outside its image: clipped',
    'box_outside': 'a box lies completely outside its image: dropped',
    'box_empty': 'a box has no extent (zero width or height): dropped',
    'box_negative': 'a box has negative width or height: dropped',
    'box_thin': 'a box is thinner than one pixel: dropped',
    'box_swapped': 'a box has its corners swapped (min above max): put in order',
    'box_repeated': 'a row is written twice: one copy is kept',
    'box_same': 'a box is there twice (one image, class and place): both are trained on',
    'box_from_outline': (
        'an object has a polygon or mask and no box: the extent of the outline is its box'
    ),
    'box_not_of_outline': '{detail}: the boxes are taken as written',
    'box_second': 'an object has several boxes: the first is taken',
    'box_confidence': 'a sixth number (a confidence, or an angle?) is not used',
    'box_rotated': (
        'an object is rotated (by {detail} degrees): its unrotated rectangle is taken as its box'
    ),
    'form_unsure': '{detail}: look at some drawn images before a long training',
    'difficult': 'an object is marked difficult: ignored in training and evaluation, as VOC does',
    # Ids and classes.
    'annotation_id_double': 'annotation id {detail} is used twice (duplicate): all are renumbered',
    'class_unused': 'class {detail} has no box: it stays a class',
    'class_group': 'category {detail} only groups others and has no box: it is no class',
    'class_double': 'the class name {detail} is there twice: merged',
    'class_only_here': 'class {detail} is not in the training split',
    'names_count': '{detail}',
    'path_followed': 'reads {detail}',
    # Images.
    'image_dim': (
        'images of 16 bits use only {detail}, and are divided by 256: scale them if they are dark'
    ),
    'image_found_elsewhere': (
        'the path {detail} does not exist (absolute, of another machine or folder); the image was '
        'found by the last parts of its path'
    ),
    'image_other_suffix': 'the image was found with another suffix: {detail}',
    'image_repeated': 'two entries name the same image (duplicate): boxes are merged; {detail}',
    'image_unused': 'an image is not named in the annotations: not used',
    'image_in_two_splits': (
        'the image is in both {detail}: the metrics will be too high (data leakage)'
    ),
    'image_without_annotation': (
        'a listed image has no annotation file: taken as an image without objects'
    ),
    'image_without_objects': 'the image has no object: it is trained on as background',
    'image_turned': (
        'the image is turned by its EXIF tag: its boxes are taken as drawn on the upright image'
    ),
    'size_senseless': "no width and height: {detail}; the image file's size is used",
    'size_swapped': "width and height are exchanged: the image file's size is used ({detail})",
    'size_off': "the size differs a little from the image file's, which is used ({detail})",
    # Of the full check (data_check), which decodes all images.
    'box_twice': 'two boxes of one class are nearly the same (IoU above 0.85): {detail}',
    'box_two_classes': 'boxes of two classes are nearly the same (IoU above 0.85): {detail}',
    'box_crowd': 'a region is marked as a crowd: ignored in training and evaluation',
    'class_alike': 'two class names may be one class in two spellings: {detail}',
    'class_absent': 'class {detail} of the config is not in the file: nothing trains or tests it',
    'class_left_out': 'category {detail} is no class of the config: its boxes are not used',
    'image_copy': 'the image is there twice: {detail}',
    'image_copy_across': (
        'the image is in two splits under two names: {detail}; the metrics will be too high (data '
        'leakage)'
    ),
    'anchors_miss': '{detail}',
    # Splits and files.
    'split_made': '{detail}',
    'split_without_boxes': 'the {detail} split has no box, so its AP (validation) means nothing',
    'split_empty': 'the {detail} split has no images',
    'file_unused': 'not used: {detail}',
    'converted': '{detail}',
    'small_batch': '{detail}',
    'filtered': '{detail}',
}


class Place(NamedTuple):
    """Where a fault was seen.

    Args:
        file: The annotation file or image, relative to the data folder where it can be.
        row: Line of a text file, ``annotation 12``, ``object 2``, or '' for the file as such.
        detail: What is special about this case.
    """

    file: str
    row: str
    detail: str


@dataclass
class Finding:
    """All cases of one kind of fault; ``places`` holds the first of them."""

    kind: str
    count: int = 0
    places: list[Place] = field(default_factory=list)

    @property
    def is_error(self) -> bool:
        """Whether a training must not start."""
        return self.kind in ERRORS

    @property
    def message(self) -> str:
        """One line: where first, what, what to do or what was done, and how often."""
        file, row, detail = self.places[0]
        text = (ERRORS | REMARKS)[self.kind].format(detail=detail)
        more = f' ({self.count} cases in all)' if self.count > 1 else ''
        return f'{file}, {row}: {text}{more}' if row else f'{file}: {text}{more}'


class Findings:
    """Collects findings by kind, in the order in which the kinds are first seen."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Finding] = {}

    def add(self, kind: str, file: object, row: str = '', detail: object = '') -> None:
        """Count one case of a kind of `ERRORS` or `REMARKS`; see `Place`."""
        finding = self._by_kind.setdefault(kind, Finding(kind))
        finding.count += 1
        if len(finding.places) < MAX_PLACES:
            finding.places.append(Place(printable(file), printable(row), printable(detail)))

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add all cases of findings that were collected elsewhere."""
        for one in findings:
            known = self._by_kind.setdefault(one.kind, Finding(one.kind))
            known.count += one.count
            known.places = (known.places + one.places)[:MAX_PLACES]

    def all(self) -> list[Finding]:
        """Return all findings, errors first."""
        return sorted(self._by_kind.values(), key=lambda finding: not finding.is_error)


def printable(value: object) -> str:
    """Return a quotation on one line that every terminal and file takes."""
    text = ' '.join(str(value).split())
    text = text if text.isprintable() else escaped(text)
    return text if len(text) <= MAX_QUOTED else f'{text[:MAX_QUOTED]}...'
