"""The metadata of a ``.tflite`` that MediaPipe Tasks read: input, outputs, labels and anchors.

Written with flatbuffers alone, after the schemas ``metadata_schema.fbs`` and
``object_detector_metadata_schema.fbs`` of google-ai-edge/mediapipe (mediapipe/tasks/metadata). A
table is a dict from the number of a field in its schema to its value.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effdet_plugin.export.extras import need
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.runtime import Array

NAME = 'TFLITE_METADATA'  # of the buffer
LABELS = 'labels.txt'
EXTRA = 'tflite'
# Names by which MediaPipe tells the outputs apart.
LOCATION, CATEGORY, SCORE, COUNT = 'location', 'category', 'score', 'number of detections'

_IMAGE, _BOXES, _FEATURE = 2, 3, 1  # members of ContentProperties
_NORMALIZATION, _THRESHOLD = 1, 3  # members of ProcessUnitOptions
_RGB, _BOUNDARIES, _RATIO = 1, 1, 0
_YXYX = (1, 0, 3, 2)  # where left, top, right and bottom are in a box
_AXIS_LABELS, _VALUE_LABELS = 2, 3  # kinds of AssociatedFile
_DATE = (1980, 1, 1, 0, 0, 0)  # the same export gives the same bytes

Table = Mapping[int, Any]


def labels_text(classes: Sequence[str]) -> str:
    """Return the text of ``labels.txt``: a class on each line, its label is the line's number.

    Args:
        classes: Their names; line breaks in them become spaces.
    """
    return ''.join(' '.join(name.split('\n')).replace('\r', ' ') + '\n' for name in classes)


def with_labels(model: bytes, classes: Sequence[str]) -> bytes:
    """Append ``labels.txt`` to a packed model as a zip archive, where readers look for it."""
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, 'a') as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, _DATE), labels_text(classes))
    return file.getvalue()


def labels_of(content: bytes) -> list[str]:
    """Return the lines of a file's ``labels.txt``.

    Raises:
        ValueError: The archive at its end is missing or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(LABELS).decode().split('\n')[:-1]
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f'no {LABELS}') from error


def model_metadata(
    metadata: Metadata, score_thr: float | None, anchors: Array | None = None
) -> bytes:
    """Return the buffer that MediaPipe Tasks and the Task library read.

    Args:
        metadata: Of the file.
        score_thr: Detections below are not reported, unless a program asks for them.
        anchors: ``(N, 4)`` float32 (y, x, h, w) of the centre and size, as shares of the image:
            for the form with raw outputs; None for detections.
    """
    outputs = _detections(score_thr) if anchors is None else _raw(score_thr)
    graph = {0: 'ObjectDetector', 2: [_input(metadata)], 3: outputs}
    if anchors is None:
        graph[8] = [{0: 'detection_result', 1: [LOCATION, CATEGORY, SCORE]}]
    else:
        graph[9] = [{0: 'DETECTOR_METADATA', 1: _decoding(anchors, len(metadata.classes))}]
    return _packed(
        {
            0: 'EfficientDet',
            1: f'Object detector of {len(metadata.classes)} classes',
            2: f'effdet_plugin {metadata.version}',
            3: [graph],
            7: '1.2.0' if anchors is None else '1.5.0',
        },
        b'M001',
    )


def normalisation(metadata: Metadata) -> tuple[float, float] | None:
    """Return mean and standard deviation of the input; None: the graph normalises by itself.

    MediaPipe has one number for all channels only (``image_preprocessing_graph.cc``: "Per-channel
    image normalization is not available").
    """
    if len(set(metadata.mean)) == len(set(metadata.std)) == 1:
        return metadata.mean[0], metadata.std[0]
    return None


def _input(metadata: Metadata) -> Table:
    mean, std = normalisation(metadata) or (0.0, 1.0)
    limits = [np.array([(value - mean) / std], np.float32) for value in (255.0, 0.0)]
    options = {0: np.array([mean], np.float32), 1: np.array([std], np.float32)}
    return {
        0: 'image',
        1: 'RGB image, stretched to this size',
        3: _content(_IMAGE, {0: np.int8(_RGB)}),
        4: [{0: np.uint8(_NORMALIZATION), 1: options}],
        5: {0: limits[0], 1: limits[1]},
    }


def _detections(score_thr: float | None) -> list[Table]:
    """Outputs of ``TFLite_Detection_PostProcess``."""
    rows = {0: np.int32(2), 1: np.int32(2)}  # of the second axis
    category = _tensor(CATEGORY, _FEATURE, {}, rows)
    return [
        _tensor(LOCATION, _BOXES, _box_properties(), rows),
        {**category, 6: [{0: LABELS, 2: np.int8(_VALUE_LABELS)}]},
        {**_tensor(SCORE, _FEATURE, {}, rows), **_threshold(score_thr)},
        _tensor(COUNT, _FEATURE, {}),
    ]


def _raw(score_thr: float | None) -> list[Table]:
    """Outputs of all anchors."""
    score = {**_tensor(SCORE, _FEATURE, {}), 6: [{0: LABELS, 2: np.int8(_AXIS_LABELS)}]}
    location = _tensor(LOCATION, _BOXES, _box_properties())
    return [location, {**score, **_threshold(score_thr)}]


def _tensor(name: str, kind: int, properties: Table, rows: Table | None = None) -> dict[int, Any]:
    return {0: name, 3: _content(kind, properties) | ({2: rows} if rows else {})}


def _content(kind: int, properties: Table) -> dict[int, Any]:
    return {0: np.uint8(kind), 1: properties}


def _box_properties() -> Table:
    return {0: np.array(_YXYX, np.uint32), 1: np.int8(_BOUNDARIES), 2: np.int8(_RATIO)}


def _threshold(score_thr: float | None) -> dict[int, Any]:
    if score_thr is None:
        return {}
    return {4: [{0: np.uint8(_THRESHOLD), 1: {0: np.float32(score_thr)}}]}


def _decoding(anchors: Array, num_classes: int) -> bytes:
    """Return ``ObjectDetectorOptions``: how boxes follow from anchors and box codes."""
    fixed = [{0: x, 1: y, 2: w, 3: h} for y, x, h, w in anchors.astype(np.float32)]
    one = np.float32(1)
    options = {
        0: np.int32(num_classes),
        1: np.int32(len(anchors)),
        2: np.int32(4),  # numbers of a box
        5: np.int32(2),  # of a key point; there is none, but MediaPipe takes no other number
        6: one,  # x, y, w and h have no scale
        7: one,
        8: one,
        9: one,
        10: np.bool_(True),  # exponential of w and h
    }
    return _packed({0: '1.0.0', 1: {0: {0: fixed}}, 2: options}, b'V001')


def _packed(table: Table, identifier: bytes) -> bytes:
    """Return a flatbuffer with this root."""
    flatbuffers = need('flatbuffers', EXTRA)
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(_write(builder, table), identifier)
    return bytes(builder.Output())


def _write(builder: Any, value: Any) -> int:
    """Write a value that a field points to; return its offset."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, bytes):
        builder.Prep(16, len(value))  # a flatbuffer inside another is aligned
        return int(builder.CreateByteVector(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    if isinstance(value, list):
        offsets = [_write(builder, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    return _write_table(builder, value)


def _write_table(builder: Any, table: Table) -> int:
    """Write a table after what its fields point to."""
    pointed = {k: _write(builder, v) for k, v in table.items() if not isinstance(v, np.generic)}
    builder.StartObject(max(table, default=-1) + 1)
    for field, value in sorted(table.items(), reverse=True):
        if field in pointed:
            builder.PrependUOffsetTRelativeSlot(field, pointed[field], 0)
        else:
            # A zero is the default of all fields used here, which is left out.
            put = getattr(builder, f'Prepend{_kind(value)}Slot')
            put(field, value.item(), 0)
    return int(builder.EndObject())


def _kind(value: np.generic) -> str:
    names = {'bool': 'Bool', 'int8': 'Int8', 'uint8': 'Uint8', 'int32': 'Int32'}
    return (names | {'float32': 'Float32'})[value.dtype.name]
